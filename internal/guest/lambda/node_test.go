package lambda_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/guesttest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
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
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
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

func nodeUnit(t testing.TB, handler string, files map[string]string) *guest.Unit {
	t.Helper()
	u := unit("nodejs20.x", handler, write(t, files))
	u.Interpreter = interpreter(t, "EBB_TEST_NODE", "node")
	return u
}

func launch(t testing.TB, u *guest.Unit) *guesttest.Guest {
	t.Helper()
	g, err := guesttest.Launch(t, protocol(t), u)
	if err != nil {
		t.Fatalf("%v; output:\n%s", err, g.Output())
	}
	return g
}

func TestNode_RunsACommonJSHandler(t *testing.T) {
	t.Parallel()
	g := launch(t, nodeUnit(t, "index.handler", map[string]string{"index.js": `exports.handler = async (e, c) => ({hi: e.name, id: c.awsRequestId})`}))
	for range 3 {
		b, err := g.Call(t, `{"name":"ann"}`)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := b.Body.String(), `{"hi":"ann","id":"8476a536-e9f4-11e8-9739-2dfe598c3fcd"}`; got != want {
			t.Errorf("answer %s, want %s", got, want)
		}
	}
}
