package server_test

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
)

const callerGuest = `
import os, socket
def talk(host, port):
    try:
        with socket.create_connection((host, int(port)), 5) as c:
            c.sendall(b"hello")
            c.shutdown(socket.SHUT_WR)
            return c.makefile("rb").read().decode()
    except OSError:
        return "refused"
def hello(event, context):
    return talk(*os.environ["PEER"].split(":")) + " " + talk("198.51.100.7", 80)
`

func TestEgress_IsCountedByFunction(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	go func() {
		for {
			c, err := peer.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, c)
			_, _ = io.WriteString(c, "world!")
			_ = c.Close()
		}
	}()
	n := openWith(t, t.TempDir(), map[string]string{"egress": peer.Addr().String()})
	if ok, why := isolatedHere(t); !ok {
		t.Skipf("functions have this machine's network: %s", why)
	}
	a, _ := shop("caller", "dev", "")
	a.Functions[0].Runtime, a.Functions[0].Env["PEER"] = "python3.11", app.Lit(peer.Addr().String())
	if _, err := n.deploy(t, a, artifact.FromFiles(artifact.File{Path: "handler.py", Mode: 0o644, Data: []byte(callerGuest)})); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		answer, err := n.client.Invoke(t.Context(), a.Functions[0].Name, []byte("{}"), "")
		if err != nil || string(answer.Payload) != `"world! refused"` {
			t.Fatalf("%v %s\n%s", err, answer.Payload, n.log)
		}
	}
	want := []string{
		`ebb_egress_connections_total{app="caller",function="caller-dev-hello",outcome="made",stage="dev",tenant="default"} 2`,
		`ebb_egress_connections_total{app="caller",function="caller-dev-hello",outcome="failed",stage="dev",tenant="default"} 0`,
		`ebb_egress_connections_total{app="caller",function="caller-dev-hello",outcome="refused",stage="dev",tenant="default"} 2`,
		`ebb_egress_bytes_total{app="caller",direction="sent",function="caller-dev-hello",stage="dev",tenant="default"} 10`,
		`ebb_egress_bytes_total{app="caller",direction="received",function="caller-dev-hello",stage="dev",tenant="default"} 12`,
	}
	page := ""
	all := func() bool {
		page = n.metrics(t)
		for _, w := range want {
			if !strings.Contains(page, w+"\n") {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(20 * time.Second); !all(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("want %s in\n%s", strings.Join(want, "\n"), page)
		}
	}
	if strings.Contains(page, "198.51.100.7") {
		t.Error("a destination, which guests choose, is in a label")
	}
	if err := n.client.Remove(t.Context(), "caller", "dev"); err != nil {
		t.Fatal(err)
	}
	if page := n.metrics(t); strings.Contains(page, `ebb_egress_bytes_total{app="caller"`) {
		t.Errorf("after its removal:\n%s", page)
	}
}

// isolatedHere says whether functions have a network of their own.
func isolatedHere(t *testing.T) (bool, string) {
	t.Helper()
	out, err := exec.Command("unshare", "--user", "--net", "true").CombinedOutput()
	return err == nil, string(out)
}
