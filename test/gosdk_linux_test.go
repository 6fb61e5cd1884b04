package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Both Go SDKs do a round of every service from outside, and a function with them in its binary finds its queue without an endpoint in its code.
func TestWire_TheGoSDKsUseServices(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"serverless.yml": `service: gosdk
provider: {name: aws, runtime: provided.al2023, region: eu-west-1, timeout: 30}
functions:
  both: {handler: bootstrap}
`})
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "bootstrap"), ".")
	build.Dir, build.Env = "testdata/gosdk", append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data := filepath.Join(t.TempDir(), "data")
	s := ebb.Start(t, dir, data, "up", "--listen", "127.0.0.1:0")
	t.Cleanup(func() { noteAnswered(t, s.Ready.API, data) })
	_, access, secret := accessKey(t, dir, data, "deploy")
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "bootstrap"), s.Ready.AWS, access, secret)
	cmd.Env = append(os.Environ(), "AWS_CONFIG_FILE=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all by v1\n") || !strings.Contains(string(out), "all by v2\n") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Run("in a function", func(t *testing.T) {
		if strings.Contains(s.Stderr(), "not isolated") {
			t.Skip("names are captured in sandboxes alone, which this machine does not give")
		}
		if r := ebb.Run(t, dir, "invoke", "both"); strings.TrimSpace(r.Stdout) != `"by v1 ☃, by v2 ☃"` {
			t.Errorf("%+v\n%s", r, ebb.Run(t, dir, "logs", "both").Stdout)
		}
	})
}
