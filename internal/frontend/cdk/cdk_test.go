package cdk_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/frontend"
	"github.com/ebb-run/ebb/internal/frontend/cdk"
	"github.com/ebb-run/ebb/internal/frontend/frontendtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestFrontend_LoadsGoldenProjects(t *testing.T) {
	t.Parallel()
	frontendtest.RunGolden(t, "testdata", cdk.Frontend{}, *update)
}

// put writes files below a folder of the test's own.
func put(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLoad_RunsTheProjectsOwnProgram(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		files map[string]string
		want  []string // of the call and its environment, in any order
	}{
		"its app": {map[string]string{"cdk.json": `{"app": "node app.js", "context": {"a": 1}}`, "cdk.context.json": `{"b": 2}`},
			[]string{"sh", "node app.js", "CDK_OUTDIR={out}", `"a":1`, `"b":2`, `"given":"x"`, `"stage":"prod"`, "CDK_DEFAULT_ACCOUNT=000000000000"}},
		"its CLI": {map[string]string{"cdk.json": `{"app": "node app.js"}`, "node_modules/aws-cdk/bin/cdk": ""},
			[]string{"node", "synth", "--no-lookups", "--output", "{out}", "given=x", "stage=prod"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			p := frontend.Project{Root: put(t, row.files), Run: func(_ context.Context, tool frontend.Tool) (string, error) {
				got = slices.Concat([]string{tool.Name}, tool.Args, tool.Env)
				return "", errors.New("stopped here")
			}}
			_, l := cdk.Frontend{}.Load(t.Context(), p, frontend.Options{Stage: "prod", Params: map[string]string{"given": "x"}})
			all := strings.Join(got, "\n")
			for _, want := range row.want {
				if !strings.Contains(all, want) {
					t.Errorf("no %s in\n%s", want, all)
				}
			}
			if len(l) != 1 || l[0].Code != "synth-failed" || l[0].Pos.File != "cdk.json" || l[0].Pos.Line != 1 {
				t.Errorf("diagnostics: %v", l)
			}
		})
	}
}

func TestLoad_SaysWhyTheProgramDidNotRun(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err       error
		code, say string
	}{
		"no packages": {errors.New("node: exit status 1: Error: Cannot find module 'aws-cdk-lib'"), "synth-failed", "npm install"},
		"containers":  {errors.New("spawnSync docker ENOENT"), "synth-failed", "containers"},
		"own hint":    {errs.New(errs.Failed, "it took more memory").WithHint("Use less."), "synth-failed", "Use less."},
		"not allowed": {nil, "exec-not-allowed", "Allow it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := frontend.Project{Root: put(t, map[string]string{"cdk.json": `{"app": "node app.js"}`})}
			if row.err != nil {
				p.Run = func(context.Context, frontend.Tool) (string, error) { return "", row.err }
			}
			a, l := cdk.Frontend{}.Load(t.Context(), p, frontend.Options{})
			if a != nil || len(l) != 1 || l[0].Severity != diag.Error || l[0].Code != row.code || !strings.Contains(l[0].Hint, row.say) {
				t.Errorf("got %v", l)
			}
		})
	}
}
