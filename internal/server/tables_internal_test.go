package server

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
)

// The URL of the database may stand in a file. What is wrong with the file is told without what it holds.
func TestTablesURL_ComesFromAFile(t *testing.T) {
	t.Parallel()
	const url = "postgres://ebb:s3cret@db/ebb"
	for name, row := range map[string]struct {
		text  string
		mode  os.FileMode
		ok    bool
		warns bool
	}{
		"one line":           {url + "\n", 0o600, true, false},
		"readable by others": {url, 0o644, true, true},
		"empty":              {"\n", 0o600, false, false},
		"two lines":          {url + "\n" + url + "\n", 0o600, false, false},
		"missing":            {"", 0, false, false},
	} {
		file := filepath.Join(t.TempDir(), "url")
		if row.mode != 0 {
			if err := os.WriteFile(file, []byte(row.text), row.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, row.mode); err != nil { // whatever the umask
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		s := &Server{o: Options{Config: &config.Config{TablesFile: file}, Log: slog.New(slog.NewTextHandler(&log, nil))}}
		got, err := s.tablesURL()
		if row.ok != (err == nil) || row.ok && got != url || err != nil && (errs.CodeOf(err) != errs.Invalid || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if said := log.String(); (said != "") != row.warns || strings.Contains(said, "s3cret") {
			t.Errorf("%s: the log says %q", name, said)
		}
	}
}
