package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// withOutput gives a command whose output goes to files in the project, as after `ebb up > out.log 2> err.log`.
func withOutput(t *testing.T) (c *command, root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "index.js"), []byte("exports.h = async () => 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	var files [2]io.Writer
	for i, name := range []string{"out.log", "err.log"} {
		f, err := os.Create(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files[i] = f
	}
	c = newCommand(System{Stdout: files[0], Stderr: files[1], Env: os.LookupEnv})
	c.detach()
	t.Cleanup(c.finish)
	return c, root
}

func TestWatch_LeavesItsOwnOutputOut(t *testing.T) {
	t.Parallel()
	c, root := withOutput(t)
	w, err := (&upRun{c: c, p: &project{c: c, root: root}, watch: true}).startWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fmt.Fprintln(c.Stdout, `{"event":"deployed"}`)
	fmt.Fprintln(c.Stderr, "deployed")
	if err := os.WriteFile(filepath.Join(root, "index.js"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-w.Changes():
		if !slices.Equal(got, []string{"index.js"}) {
			t.Errorf("changes: %q", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("the change was not seen")
	}
}

func TestProject_PackagesNoOutputOfItsOwn(t *testing.T) {
	t.Parallel()
	c, root := withOutput(t)
	p := &project{c: c, root: root, quiet: map[string]bool{}, finder: runtimes.New(c.Env)}
	r, err := p.build(context.Background(), &app.App{Name: "shop", Functions: []app.Function{{Key: "f", Handler: "index.h", Runtime: "nodejs22.x"}}}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	code := r.Functions["f"].Code
	if !code.Has("index.js") || code.Has("out.log") || code.Has("err.log") {
		t.Errorf("the package holds %v", code.Manifest.Entries)
	}
}
