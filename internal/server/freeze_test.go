package server_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
)

// said is what the guests below answer.
type said struct {
	Self    string // of this process alone
	Ticks   int
	Late    bool    // a timer that fell into the freeze has fired
	Left    float64 // ms of the deadline
	Fetched string
}

const nodeGuest = `
let ticks = 0, late = false;
const self = require('crypto').randomUUID();
setInterval(() => { ticks++ }, 20);
exports.hello = async (event, context) => {
  const was = late; late = false;
  setTimeout(() => { late = true }, 200);
  const r = await fetch(process.env.PEER);
  await new Promise((r) => setTimeout(r, 40));
  return JSON.stringify({Self: self, Ticks: ticks, Late: was, Left: context.getRemainingTimeInMillis(), Fetched: await r.text()});
};`

const pythonGuest = `
import http.client, json, os, threading, time, urllib.parse, uuid
self = str(uuid.uuid4())
peer = urllib.parse.urlparse(os.environ["PEER"])
line = http.client.HTTPConnection(peer.netloc)
ticks, late = 0, False
def tick():
    global ticks
    while True:
        time.sleep(0.02)
        ticks += 1
def fire():
    global late
    late = True
threading.Thread(target=tick, daemon=True).start()
def hello(event, context):
    global late
    was, late = late, False
    threading.Timer(0.2, fire).start()
    line.request("GET", "/")
    fetched = line.getresponse().read().decode()
    time.sleep(0.04)
    return json.dumps({"Self": self, "Ticks": ticks, "Late": was, "Left": context.get_remaining_time_in_millis(), "Fetched": fetched})
`

// Timers, threads and a connection that is kept open, over freezes.
func TestFreeze_RealGuestsGoOn(t *testing.T) {
	t.Parallel()
	var dialled atomic.Int64
	peer := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("peer")) }))
	peer.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			dialled.Add(1)
		}
	}
	peer.Start()
	defer peer.Close()
	n := openWith(t, t.TempDir(), map[string]string{"freeze-after": "60ms", "egress": peer.Listener.Addr().String()})
	for _, c := range []struct{ runtime, program, file, code string }{
		{"nodejs20.x", "node", "handler.js", nodeGuest},
		{"python3.11", "python3", "handler.py", pythonGuest},
	} {
		t.Run(c.program, func(t *testing.T) {
			if _, err := exec.LookPath(c.program); err != nil {
				t.Skip("needs " + c.program)
			}
			dialled.Store(0)
			a, _ := shop(c.program, "dev", "")
			a.Functions[0].Runtime, a.Functions[0].Env["PEER"] = c.runtime, app.Lit(peer.URL)
			a.Functions[0].TimeoutSec = 20
			if _, err := n.deploy(t, a, artifact.FromFiles(artifact.File{Path: c.file, Mode: 0o644, Data: []byte(c.code)})); err != nil {
				t.Fatal(err)
			}
			var before said
			for round := range 4 {
				answer, err := n.client.Invoke(t.Context(), a.Functions[0].Name, []byte("{}"), "")
				if err != nil {
					t.Fatalf("round %d: %v\n%s", round, err, n.log)
				}
				var text string
				var now said
				if json.Unmarshal(answer.Payload, &text) != nil || json.Unmarshal([]byte(text), &now) != nil {
					t.Fatalf("round %d: %s", round, answer.Payload)
				}
				// What is left of 20 s counts from the thaw: half of it is plenty for what the handler does.
				if now.Fetched != "peer" || now.Left < 10_000 || now.Left > 20_000 || round > 0 && (now.Self != before.Self || now.Ticks <= before.Ticks) {
					t.Errorf("round %d: %+v, before %+v", round, now, before)
				}
				before = now
				n.frozen(t, c.program)
			}
			if got := dialled.Load(); got != 1 {
				t.Errorf("the guest's connection was made %d times", got)
			}
		})
	}
}

// frozen waits until the metrics say that the one Instance of an App is frozen.
func (n *node) frozen(t testing.TB, name string) {
	t.Helper()
	want := `ebb_instances{app="` + name + `",function="` + name + `-dev-hello",stage="dev",state="frozen",tenant="default"} 1`
	for end := time.Now().Add(30 * time.Second); !strings.Contains(n.metrics(t), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not frozen; metrics:\n%s", n.metrics(t))
		}
	}
}

// metrics is the page that Prometheus reads.
func (n *node) metrics(t testing.TB) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", n.APIURL()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+string(n.Token()))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}
