package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/errs"
)

func tool(version string) *artifact.Tree {
	return artifact.FromFiles(
		artifact.File{Path: "nodejs/node_modules/tool/index.js", Mode: 0o644, Data: fmt.Appendf(nil, "exports.v = %q", version)},
		artifact.File{Path: "only-in/" + version, Mode: 0o644, Data: []byte(version)},
	)
}

const usesTool = "const t = require('tool'); exports.hello = async () => t.v;"

// deployLayers deploys an App whose Function has layers.
func (n *node) deployLayers(t testing.TB, a *app.App, code *artifact.Tree, layers ...*artifact.Tree) (*api.Deployed, error) {
	t.Helper()
	f := a.Functions[0]
	u := api.Unit{Key: f.Key, Runtime: f.Runtime, Handler: f.Handler}
	for _, l := range layers {
		digest, err := n.client.PutTree(t.Context(), l, nil)
		if err != nil {
			t.Fatal(err)
		}
		u.Layers = append(u.Layers, digest)
	}
	var err error
	if u.Code, err = n.client.PutTree(t.Context(), code, nil); err != nil {
		t.Fatal(err)
	}
	return n.client.Deploy(t.Context(), api.DeployRequest{App: a, Units: []api.Unit{u}})
}

func TestLayers_ALaterOneCoversAnEarlierOneAndRollbackBringsThemBack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	a, code := shop("shop", "dev", usesTool)
	for _, round := range []struct {
		layers []*artifact.Tree
		want   string
	}{{[]*artifact.Tree{tool("one"), tool("two")}, "two"}, {[]*artifact.Tree{tool("two"), tool("one")}, "one"}, {[]*artifact.Tree{tool("three")}, "three"}} {
		d, err := n.deployLayers(t, a, code, round.layers...)
		if err != nil || len(d.Changed) != 1 {
			t.Fatalf("%+v, %v", d, err)
		}
		n.answers(t, round.want)
	}
	if d, err := n.deployLayers(t, a, code, tool("three")); err != nil || len(d.Changed) != 0 {
		t.Errorf("the same again: %+v, %v", d, err)
	}
	if _, err := n.client.Rollback(t.Context(), "shop", "dev", ""); err != nil {
		t.Fatal(err)
	}
	n.answers(t, "one")
	// What the deployments need is kept, however old it is; a tree can be unpacked anew.
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	aged(t, filepath.Join(dir, "artifacts"))
	n = open(t, dir)
	other, theirs := shop("other", "dev", says("theirs"))
	other.Routes[0].Path = "/other"
	if _, err := n.deploy(t, other, theirs); err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); err != nil { // waits for what is being collected
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "artifacts", "trees")); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	if status, body := n.get(t, "shop.dev.localhost"); status != 200 || body != "one" {
		t.Errorf("after a restart: %d %s\n%s", status, body, n.log)
	}
	if _, err := n.client.Rollback(t.Context(), "shop", "dev", ""); err != nil {
		t.Fatal(err)
	}
	if status, body := n.get(t, "shop.dev.localhost"); status != 200 || body != "two" {
		t.Errorf("rolled back: %d %s\n%s", status, body, n.log)
	}
}

// aged makes all files look old.
func aged(t *testing.T, dir string) {
	t.Helper()
	old := time.Now().Add(-48 * time.Hour)
	for name := range tree(t, dir) {
		if err := os.Chtimes(name, old, old); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

func TestLayers_GoWithTheLastDeploymentThatHasThem(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	a, code := shop("shop", "dev", usesTool)
	if _, err := n.deployLayers(t, a, code, tool("one"), tool("two")); err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	aged(t, filepath.Join(dir, "artifacts"))
	n = open(t, dir)
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the next start finds what nothing needs
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		n = open(t, dir)
	}
	left, err := os.ReadDir(filepath.Join(dir, "artifacts", "manifests"))
	if err != nil || len(left) > 0 {
		t.Errorf("%d manifests are left, %v", len(left), err)
	}
}

func TestLayers_ServerHoldsTheLimits(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	a, code := shop("shop", "dev", usesTool)
	six := []*artifact.Tree{tool("1"), tool("2"), tool("3"), tool("4"), tool("5"), tool("6")}
	if _, err := n.deployLayers(t, a, code, six...); errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), "6 layers; 5 are allowed") {
		t.Errorf("six: %v", err)
	}
	if _, err := n.deployLayers(t, a, code, six[:5]...); err != nil {
		t.Errorf("five: %v", err)
	}
}

func TestLayers_PathsBelowOptAreWarnedOf(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	if n.Mounts() {
		t.Skip("sandboxes here show layers at /opt")
	}
	for i, c := range []struct{ code, env, want string }{
		{"// x\nconst p = '/opt/nodejs/node_modules/tool/index.js'; exports.hello = async () => p;", "", "line 2 of handler.js names /opt/nodejs/node_modules/tool/index.js"},
		{"exports.hello = async () => `/opt/only-in/${1}`;", "", "line 1 of handler.js names /opt/only-in/"},
		{"exports.hello = async () => 1;", "a:/opt/only-in", "its variable STAGE names /opt/only-in"},
		{"exports.hello = async () => ['/opt/homebrew/bin', '/srv/opt/only-in/v', '/opt/only'];", "", ""},
	} {
		a, code := shop("shop", "dev", c.code)
		if c.env != "" {
			a.Functions[0].Env["STAGE"] = app.Lit(c.env)
		}
		d, err := n.deployLayers(t, a, code, tool("v"))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(d.Warnings, "\n")
		if c.want == "" && strings.Contains(got, "/opt") || !strings.Contains(got, c.want) {
			t.Errorf("%d: warnings %q, want %q", i, got, c.want)
		}
	}
	a, code := shop("shop", "dev", "exports.hello = async () => '/opt/only-in/v';")
	if d, err := n.deployLayers(t, a, code); err != nil || strings.Contains(strings.Join(d.Warnings, "\n"), "/opt") {
		t.Errorf("without layers: %+v, %v", d, err)
	}
}
