package server_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/server"
)

// pythonShop is shop with a Python function of so many bytes, which connects to an address at its Init and answers whether it could.
func pythonShop(at string, size int) (*app.App, *artifact.Tree) {
	a, _ := shop("shop", "dev", "")
	a.Functions[0].Runtime = "python3.13"
	host, port, _ := net.SplitHostPort(at)
	code := fmt.Sprintf(`
import lib, socket
try:
    socket.create_connection((%q, %s), 2).recv(1)
    reached = "reached"
except OSError:
    reached = "offline"
def hello(event, context): return reached
`, host, port)
	return a, artifact.FromFiles(
		artifact.File{Path: "handler.py", Mode: 0o644, Data: []byte(code)},
		artifact.File{Path: "lib.py", Mode: 0o644, Data: []byte(strings.Repeat("# filler\n", size/9))})
}

func TestRehearsal_CompilesWithoutANetworkBeforeTheFirstCall(t *testing.T) {
	t.Parallel()
	var accepted atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			_, _ = c.Write([]byte("x"))
			_ = c.Close()
		}
	}()
	data := filepath.Join(t.TempDir(), "data")
	n := openWith(t, data, map[string]string{"egress": l.Addr().String()})
	if !n.Mounts() {
		t.Skip("this machine isolates no functions, so nothing is rehearsed")
	}
	a, tree := pythonShop(l.Addr().String(), 100_000)
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	var files []string // of handler.py and lib.py, which are written one after the other
	for end := time.Now().Add(time.Minute); len(files) < 2; time.Sleep(5 * time.Millisecond) {
		if files, err = filepath.Glob(filepath.Join(data, "compiled", "*", "*", "*", "*.pyc")); err != nil || time.Now().After(end) {
			t.Fatalf("nothing is compiled: %v\n%s", err, n.log)
		}
	}
	if got := accepted.Load(); len(files) != 2 || got != 0 {
		t.Errorf("%v, %d connections", files, got)
	}
	if logs := n.log.String(); strings.Contains(logs, "START") {
		t.Errorf("something was called:\n%s", logs)
	}
	n.answers(t, "reached")
	if got := accepted.Load(); got != 1 {
		t.Errorf("%d connections", got)
	}
}

func TestRehearsal_IsOfFunctionsThatAreWorthIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ahead string
		size  int
		want  int
	}{{"on", 100, 0}, {"on", 100_000, 1}, {"off", 100_000, 0}} {
		n := openWith(t, filepath.Join(t.TempDir(), "data"), map[string]string{"compile-ahead": c.ahead})
		if !n.Mounts() {
			t.Skip("this machine isolates no functions, so nothing is rehearsed")
		}
		a, tree := pythonShop("127.0.0.1:1", c.size)
		if _, err := n.deploy(t, a, tree); err != nil {
			t.Fatal(err)
		}
		if got := server.Rehearsals(n.Server); got != c.want {
			t.Errorf("%s, %d bytes: %d to be rehearsed, want %d", c.ahead, c.size, got, c.want)
		}
		for end := time.Now().Add(time.Minute); server.Rehearsals(n.Server) > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("rehearsals have no end")
			}
		}
		files, err := filepath.Glob(filepath.Join(n.dir, "compiled", "*", "*", "*", "*.pyc"))
		if err != nil || (len(files) > 0) != (c.want > 0) || strings.Contains(n.log.String(), "rehearsed") != (c.want > 0) {
			t.Errorf("%s, %d bytes: %v\n%s", c.ahead, c.size, files, n.log)
		}
	}
}
