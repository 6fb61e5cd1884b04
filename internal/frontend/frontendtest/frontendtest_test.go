package frontendtest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// fake is a front-end that gives what its function says, which may differ from call to call.
type fake func(p frontend.Project, o frontend.Options) (*app.App, diag.List)

func (fake) Name() string { return "fake" }
func (fake) Detect(p frontend.Project) (string, bool) {
	_, err := os.Stat(filepath.Join(p.Root, "fake.yml"))
	return "fake.yml", err == nil
}
func (f fake) Load(_ context.Context, p frontend.Project, o frontend.Options) (*app.App, diag.List) {
	return f(p, o)
}

func named(name string) *app.App { return &app.App{Name: name, Stage: "dev", Source: "fake"} }

func project(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append(files, "fake.yml") {
		content := ""
		if name == "options.json" {
			content = `{"Stage": "prod", "Env": {"WHO": "ann"}}`
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCheck_WritesThenAccepts(t *testing.T) {
	t.Parallel()
	dir := project(t, "options.json")
	f := fake(func(p frontend.Project, o frontend.Options) (*app.App, diag.List) {
		who, _ := p.Env("WHO")
		return named(who + "-" + o.Stage), diag.List{{Severity: diag.Note, Code: "n", Message: "seen", Hint: "Nothing."}}
	})
	if faults, err := check(dir, f, false); err != nil || len(faults) != 2 {
		t.Errorf("without golden files: %q, %v", faults, err)
	}
	if faults, err := check(dir, f, true); err != nil || len(faults) != 0 {
		t.Errorf("update: %q, %v", faults, err)
	}
	if faults, err := check(dir, f, false); err != nil || len(faults) != 0 {
		t.Errorf("after the update: %q, %v", faults, err)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, wantApp)); !strings.Contains(string(data), `"name": "ann-prod"`) {
		t.Errorf("the golden file is %s", data)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, wantDiag)); string(data) != "note: seen [n]\n  hint: Nothing.\n" {
		t.Errorf("the diagnostics are %s", data)
	}
	silent := fake(func(frontend.Project, frontend.Options) (*app.App, diag.List) { return named("ann-prod"), nil })
	if faults, err := check(dir, silent, false); err != nil || len(faults) != 1 {
		t.Errorf("a lost diagnostic: %q, %v", faults, err)
	}
	if _, err := check(dir, silent, true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, wantDiag)); err == nil {
		t.Error("an update leaves the file of diagnostics that are gone")
	}
}

func TestCheck_FindsWhatAFrontendMustNotDo(t *testing.T) {
	t.Parallel()
	calls := 0
	for name, row := range map[string]struct {
		f    fake
		want string
	}{
		"nothing at all": {func(frontend.Project, frontend.Options) (*app.App, diag.List) { return nil, nil }, "neither an App nor an error"},
		"other each time": {func(frontend.Project, frontend.Options) (*app.App, diag.List) {
			calls++
			return named(strings.Repeat("x", calls)), nil
		}, "loading twice"},
		"own machine": {func(p frontend.Project, _ frontend.Options) (*app.App, diag.List) { return named(p.Root), nil }, "absolute folder"},
		"lost in JSON": {func(frontend.Project, frontend.Options) (*app.App, diag.List) {
			a := named("x")
			a.Resources = []app.Resource{{ID: "R", Properties: map[string]any{"n": 1}}}
			return a, nil
		}, "encoded and decoded"},
	} {
		faults, err := check(project(t), row.f, true)
		if err != nil || len(faults) != 1 || !strings.Contains(faults[0], row.want) {
			t.Errorf("%s: %q, %v", name, faults, err)
		}
	}
	dir := project(t)
	_ = os.Remove(filepath.Join(dir, "fake.yml"))
	if faults, err := check(dir, fake(nil), false); err != nil || len(faults) != 1 || !strings.Contains(faults[0], "does not detect") {
		t.Errorf("not detected: %q, %v", faults, err)
	}
}

func TestRunGolden_RunsEachProject(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, name := range []string{"a", "b"} {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "fake.yml"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := fake(func(p frontend.Project, _ frontend.Options) (*app.App, diag.List) {
		return named(filepath.Base(p.Root)), nil
	})
	t.Run("update", func(t *testing.T) { RunGolden(t, root, f, true) })
	t.Run("compare", func(t *testing.T) { RunGolden(t, root, f, false) })
	if data, _ := os.ReadFile(filepath.Join(root, "b", wantApp)); !strings.Contains(string(data), `"name": "b"`) {
		t.Errorf("golden file of b: %s", data)
	}
}
