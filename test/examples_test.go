package test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// calls says how each example is called, and what it answers.
var calls = map[string]struct{ path, want string }{ // never written
	"hello-api":            {"/hello/ann", `{"message":"Hello, ann!"}`},
	"stream-node":          {"/", "data: 1\n\ndata: 2\n\ndata: 3"},
	"hello-cloudformation": {"/hello/ann", `{"message": "Hello, ann!"}`},
	"hello-cdk":            {"/hello/ann", `{"message":"Hello, ann!","queue":true}`},
	"hello-sam":            {"/hello/ann", `{"message":"Good day, ann!","payload":"2.0"}`},
	"layers":               {"/hello/ann", `{"message": "HELLO, ANN!"}`},
}

// install installs the packages of an example whose own program needs them, and skips where there is no registry.
func install(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("npm", "install", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("npm cannot install the packages of %s: %v\n%s", filepath.Base(dir), err, out)
	}
}

func TestExamples_AllRunAsTheyStand(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(filepath.Join("..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			t.Parallel()
			call, ok := calls[e.Name()]
			if !ok {
				t.Fatalf("example %s has no call in this test", e.Name())
			}
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, e.Name()), os.DirFS(filepath.Join("..", "examples", e.Name()))); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(dir, e.Name(), "cdk.json")); err == nil {
				install(t, filepath.Join(dir, e.Name()))
			}
			s := ebb.Start(t, dir, filepath.Join(dir, "data"), "up", e.Name(), "--listen", "127.0.0.1:0", "--no-watch")
			if status, body := get(http.DefaultClient, s.Ready.Gateway+call.path); status != 200 || strings.TrimSpace(body) != call.want {
				t.Errorf("GET %s gives %d %s", call.path, status, body)
			}
			if code := s.Interrupt(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
