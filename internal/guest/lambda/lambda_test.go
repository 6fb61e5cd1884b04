package lambda_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/guesttest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/testkit/executable"
)

func protocol(t testing.TB) *lambda.Protocol {
	t.Helper()
	p, err := lambda.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// interpreter finds a program, by variable first so that other versions can be tried.
func interpreter(t testing.TB, variable, name string) []string {
	t.Helper()
	if p := os.Getenv(variable); p != "" {
		return []string{p}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s on this machine", name)
	}
	return []string{p}
}

func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := executable.Write(file, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func unit(runtime, handler, root string) *guest.Unit {
	return &guest.Unit{
		Function: "demo", Version: "$LATEST", ARN: "arn:aws:lambda:us-east-1:000000000000:function:demo", Runtime: runtime, Handler: handler,
		Root: root, MemoryMB: 256, Timeout: 3 * time.Second, Region: "us-east-1", Account: "000000000000",
		LogGroup: "/aws/lambda/demo", LogStream: "2024/01/02/[$LATEST]0123456789abcdef0123456789abcdef",
	}
}

func launch(t testing.TB, u *guest.Unit) *guesttest.Guest {
	t.Helper()
	g, err := guesttest.Launch(t, protocol(t), u)
	if err != nil {
		t.Fatalf("%v; output:\n%s", err, g.Output())
	}
	return g
}

// initError starts a Unit that cannot start.
func initError(t *testing.T, u *guest.Unit) (*guest.InitError, *guesttest.Guest) {
	t.Helper()
	g, err := guesttest.Launch(t, protocol(t), u)
	var e *guest.InitError
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T) is no InitError; output:\n%s", err, err, g.Output())
	}
	return e, g
}
