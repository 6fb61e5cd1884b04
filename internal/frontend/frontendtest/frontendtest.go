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
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/fence"
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
	faults, err := check(dir, f, update)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults {
		t.Error(fault)
	}
}

// check loads one project and says what is wrong with the result. An error means that the check itself could not be made.
func check(dir string, f frontend.Frontend, update bool) (faults []string, err error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	var o options
	if data, err := os.ReadFile(filepath.Join(dir, "options.json")); err == nil {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&o); err != nil {
			return nil, fmt.Errorf("options.json: %w", err)
		}
	}
	p := frontend.Project{Root: root, Reads: fence.New(fence.Options{Root: root}).Check, Env: func(k string) (string, bool) { v, ok := o.Env[k]; return v, ok }}
	file, ok := f.Detect(p)
	if !ok {
		return []string{f.Name() + " does not detect the project"}, nil
	}
	p.File = file
	a, diags := f.Load(context.Background(), p, o.Options)
	again, diags2 := f.Load(context.Background(), p, o.Options)
	gotApp, err := encode(a)
	if err != nil {
		return nil, err
	}
	appAgain, err := encode(again)
	if err != nil {
		return nil, err
	}
	gotDiag := printed(diags)
	if a == nil && !diags.HasErrors() {
		faults = append(faults, "there is neither an App nor an error")
	}
	if !bytes.Equal(gotApp, appAgain) || !bytes.Equal(gotDiag, printed(diags2)) {
		faults = append(faults, "loading twice gives different results")
	}
	if bytes.Contains(gotApp, []byte(root)) || bytes.Contains(gotDiag, []byte(root)) {
		faults = append(faults, "the result names the absolute folder "+root)
	}
	if a != nil {
		back, err := app.Decode(gotApp)
		if err != nil {
			return append(faults, fmt.Sprintf("the App does not decode: %v", err)), nil
		}
		for i := range a.Functions {
			a.Functions[i].Place = diag.Pos{} // not part of the stored form
		}
		if !reflect.DeepEqual(a, back) {
			backApp, _ := encode(back)
			faults = append(faults, "the App changes when it is encoded and decoded:\n"+firstDifference(gotApp, backApp))
		}
	}
	for _, file := range []struct {
		name string
		got  []byte
	}{{wantApp, gotApp}, {wantDiag, gotDiag}} {
		fault, err := compare(filepath.Join(dir, file.name), file.got, update)
		if err != nil {
			return nil, err
		}
		if fault != "" {
			faults = append(faults, fault)
		}
	}
	return faults, nil
}

// compare holds got against the file; nothing and no file are the same.
func compare(name string, got []byte, update bool) (string, error) {
	if update && len(got) == 0 {
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		return "", nil
	}
	if update {
		return "", os.WriteFile(name, got, 0o644)
	}
	want, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if !bytes.Equal(got, want) {
		return name + " differs (rewrite it with -update):\n" + firstDifference(want, got), nil
	}
	return "", nil
}

func encode(a *app.App) ([]byte, error) {
	if a == nil {
		return nil, nil
	}
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the App: %w", err)
	}
	return append(data, '\n'), nil
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
