package export

import (
	"archive/tar"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// FromS3 writes the folder of a table's export to S3 as an export of the table, which Read checks. dir is what was copied of the bucket: the folder
// with manifest-summary.json, or one above it.
func FromS3(w io.Writer, dir, table string) error {
	root, err := exportFolder(dir)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(root, summaryManifest))
	if err != nil {
		return errs.New(errs.Invalid, "read export: %w", err)
	}
	var s manifestSummary
	if err := json.Unmarshal(text, &s); err != nil {
		return errs.New(errs.Invalid, "%s: it is not to be understood: %w", filepath.Join(root, summaryManifest), err)
	}
	if err := s.check(filepath.Join(root, summaryManifest)); err != nil {
		return err
	}
	files, err := os.ReadDir(filepath.Join(root, "data"))
	if err != nil {
		return errs.New(errs.Invalid, "read export: %w", err)
	}
	o := &writer{tar: tar.NewWriter(w), at: time.Now().UTC()}
	if err := o.json(headerName, Header{Format: Format, Begun: o.at}); err != nil {
		return err
	}
	base := path.Join(tablesFolder, table)
	for _, f := range files {
		if f.Type().IsRegular() && !strings.HasPrefix(f.Name(), ".") && !strings.HasPrefix(f.Name(), "_") {
			if err := o.copy(path.Join(base, "data", f.Name()), filepath.Join(root, "data", f.Name())); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{filesManifest, summaryManifest} {
		if err := o.copy(path.Join(base, name), filepath.Join(root, name)); err != nil {
			return err
		}
	}
	if err := o.json(endName, Totals{}); err != nil {
		return err
	}
	return o.tar.Close()
}

// copy writes a file.
func (o *writer) copy(name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return errs.New(errs.Invalid, "read export: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := o.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: o.at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(o.tar, f)
	return err
}

// exportFolder finds the one export in a folder.
func exportFolder(dir string) (string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == summaryManifest {
			found = append(found, filepath.Dir(at))
		}
		return err
	})
	switch {
	case err != nil:
		return "", errs.New(errs.NotFound, "read export: %w", err)
	case len(found) == 0:
		return "", errs.New(errs.Invalid, "there is no %s in %s", summaryManifest, dir).
			WithHint("Name the folder AWSDynamoDB/… that a table's export to S3 has made, as `aws s3 cp --recursive` copies it.")
	case len(found) > 1:
		return "", errs.New(errs.Invalid, "there are %d exports in %s: %s", len(found), dir, strings.Join(found, ", ")).WithHint("Name one of them.")
	}
	return found[0], nil
}
