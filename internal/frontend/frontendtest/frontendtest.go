// Package frontendtest runs the golden projects of a front-end.
//
// Main function: [RunGolden]. Each sub-folder of a testdata folder is one whole small
// project beside what loading it must give:
//
//   - want.app.json: the App, as indented JSON. It is absent where the load must fail.
//   - want.diag.txt: the diagnostics, ordered by place, hints indented. It is absent where there must be none.
//   - options.json: the [frontend.Options] of the load, optional. An "Env" object in it is the user's environment.
//
// Guarantees: both files are compared byte for byte; the App survives its JSON form unchanged; loading twice
// gives the same bytes; an App is absent only together with an error.
package frontendtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

const (
	wantApp  = "want.app.json"
	wantDiag = "want.diag.txt"
)

type options struct {
	frontend.Options
	Env map[string]string
}

// RunGolden loads every project in dir with f and compares. With update it writes what came out instead; the
// checks that need no golden file run all the same.
func RunGolden(t *testing.T, dir string, f frontend.Frontend, update bool) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, e := range entries {
		if !e.IsDir() || e.Name() == "fuzz" {
			continue
		}
		ran++
		t.Run(e.Name(), func(t *testing.T) {
			t.Parallel()
			runOne(t, filepath.Join(dir, e.Name()), f, update)
		})
	}
	if ran == 0 {
		t.Fatalf("no golden projects in %s", dir)
	}
}

func runOne(t *testing.T, dir string, f frontend.Frontend, update bool) {
	t.Helper()
	root, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	var o options
	if data, err := os.ReadFile(filepath.Join(dir, "options.json")); err == nil {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&o); err != nil {
			t.Fatalf("options.json: %v", err)
		}
	}
	p := frontend.Project{Root: root, Env: func(k string) (string, bool) { v, ok := o.Env[k]; return v, ok }}
	file, ok := f.Detect(p)
	if !ok {
		t.Fatalf("%s does not detect the project", f.Name())
	}
	p.File = file
	a, diags := f.Load(context.Background(), p, o.Options)
	if a == nil && !diags.HasErrors() {
		t.Error("there is neither an App nor an error")
	}
	gotApp, gotDiag := encode(t, a), printed(diags)
	again, diags2 := f.Load(context.Background(), p, o.Options)
	if !bytes.Equal(gotApp, encode(t, again)) || !bytes.Equal(gotDiag, printed(diags2)) {
		t.Error("loading twice gives different results")
	}
	if bytes.Contains(gotApp, []byte(root)) || bytes.Contains(gotDiag, []byte(root)) {
		t.Errorf("the result names the absolute folder %s", root)
	}
	if a != nil {
		back, err := app.Decode(gotApp)
		if err != nil {
			t.Fatalf("the App does not decode: %v", err)
		}
		if !reflect.DeepEqual(a, back) {
			t.Errorf("the App changes when it is encoded and decoded:\n%s", firstDifference(gotApp, encode(t, back)))
		}
	}
	for name, got := range map[string][]byte{wantApp: gotApp, wantDiag: gotDiag} {
		compare(t, filepath.Join(dir, name), got, update)
	}
}

// compare holds got against the file; nothing and no file are the same.
func compare(t *testing.T, name string, got []byte, update bool) {
	t.Helper()
	if update {
		var err error
		if len(got) == 0 {
			if err = os.Remove(name); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		} else {
			err = os.WriteFile(name, got, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (rewrite it with -update):\n%s", name, firstDifference(want, got))
	}
}

func encode(t *testing.T, a *app.App) []byte {
	t.Helper()
	if a == nil {
		return nil
	}
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		t.Fatalf("the App does not encode: %v", err)
	}
	return append(data, '\n')
}

func printed(l diag.List) []byte {
	var b bytes.Buffer
	for _, d := range l.Sorted() {
		b.WriteString(d.String() + "\n")
		if d.Hint != "" {
			b.WriteString("  hint: " + d.Hint + "\n")
		}
	}
	return b.Bytes()
}

// firstDifference shows where two texts part.
func firstDifference(want, got []byte) string {
	w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
	for i := range max(len(w), len(g)) {
		var wl, gl string
		if i < len(w) {
			wl = w[i]
		}
		if i < len(g) {
			gl = g[i]
		}
		if wl != gl || i >= len(w) || i >= len(g) {
			from := max(0, i-3)
			return "want:\n" + lines(w, from, i+6) + "\ngot:\n" + lines(g, from, i+6)
		}
	}
	return "the texts are equal, the data is not (an empty map or list beside an absent one, or a number of another type)"
}

func lines(l []string, from, to int) string {
	from, to = min(from, len(l)), min(to, len(l))
	return "  " + strings.Join(l[from:to], "\n  ")
}
