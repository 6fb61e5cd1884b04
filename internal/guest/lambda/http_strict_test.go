package lambda

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAppendEvent_DecodesIntoTheTypesOfAWS runs the module in testdata/http/strict, which has aws-lambda-go and so stays
// out of the product's dependencies. It reads the golden files, never the network.
func TestAppendEvent_DecodesIntoTheTypesOfAWS(t *testing.T) {
	t.Parallel()
	strictly(t, "http")
}

// TestAppendBatch_DecodesIntoTheTypesOfAWS does so in testdata/batch/strict.
func TestAppendBatch_DecodesIntoTheTypesOfAWS(t *testing.T) {
	t.Parallel()
	strictly(t, "batch")
}

func strictly(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("go", "test", "-count=1", "./...")
	cmd.Dir = filepath.Join("testdata", dir, "strict")
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil && (strings.Contains(string(out), "GOPROXY=off") || strings.Contains(string(out), "module lookup disabled")) {
		t.Skipf("aws-lambda-go is not in the module cache: go mod download -C internal/guest/lambda/testdata/%s/strict", dir)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
