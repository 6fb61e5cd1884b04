package cli_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/cli"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %v\ngot\n%s\nwant\n%s", name, err, got, want)
	}
}

// drawn is a graph of every kind of node and edge, with names that languages have to be kept from.
func drawn() *api.GraphInfo {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	return &api.GraphInfo{
		Nodes: []api.GraphNode{
			{ID: "bus:default", Kind: "bus", Name: "default"},
			{ID: "bus:orders", Kind: "bus", Name: "orders", App: "shop", Stage: "dev"},
			{ID: "function:shop-dev-bill", Kind: "function", Name: "shop-dev-bill", App: "shop", Stage: "dev"},
			{ID: "function:shop-dev-alone", Kind: "function", Name: "shop-dev-alone", App: "shop", Stage: "dev"},
			{ID: "function:mail-prod-send", Kind: "function", Name: "mail-prod-send", App: "mail", Stage: "prod"},
			{ID: "outside:", Kind: "outside", Name: "outside"},
			{ID: "queue:jobs", Kind: "queue", Name: "jobs", App: "shop", Stage: "dev"},
			{ID: "queue:dead", Kind: "queue", Name: "dead", App: "shop", Stage: "dev"},
			{ID: "schedule:shop/dev/Night", Kind: "schedule", Name: "shop/dev/Night", App: "shop", Stage: "dev"},
			{ID: "topic:new", Kind: "topic", Name: "a kind of tomorrow"},
		},
		Edges: []api.GraphEdge{
			{From: "bus:default", To: "function:mail-prod-send", Kind: "rule", Label: `in"voice; <b>]|#\` + "\n", Declared: true, N: 3, Last: at},
			{From: "function:shop-dev-bill", To: "bus:default", Kind: "publishes", Label: "invoice.sent", N: 3, Last: at},
			{From: "function:shop-dev-bill", To: "function:mail-prod-send", Kind: "onFailure", Declared: true},
			{From: "outside:", To: "bus:orders", Kind: "publishes", Label: "größe", N: 1, Last: at},
			{From: "queue:jobs", To: "function:shop-dev-bill", Kind: "mapping", Declared: true, N: 2, Last: at},
			{From: "queue:jobs", To: "queue:dead", Kind: "deadLetters", Declared: true},
			{From: "schedule:shop/dev/Night", To: "function:shop-dev-bill", Kind: "schedule", Label: "rate(1 day)", Declared: true},
			{From: "topic:new", To: "function:shop-dev-bill", Kind: "something"},
		},
	}
}

func TestGraph_IsWrittenInEveryFormat(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "dot", "mermaid"} {
		var out bytes.Buffer
		cli.WriteGraph(&out, format, drawn())
		golden(t, "graph/"+format+".txt", out.Bytes())
		if format != "dot" {
			continue
		}
		dot, err := exec.LookPath("dot")
		if err != nil {
			t.Log("Graphviz is not installed: its language is compared only")
			continue
		}
		cmd := exec.CommandContext(t.Context(), dot, "-Tcanon")
		cmd.Stdin = &out
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("dot: %v\n%s", err, said)
		}
	}
}

// drawnTrace is a tree of every kind of node.
func drawnTrace() *api.TraceInfo {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	after := func(ms int) time.Time { return at.Add(time.Duration(ms) * time.Millisecond) }
	long := "Error: " + strings.Repeat("it went wrong and ", 8) + "\nso on"
	deep := api.TraceNode{Kind: api.TraceInvocation, ID: "10000000-0000-8000-8000-000000000099", At: after(999), Function: "shop-dev-echo", State: "dead", Cause: "loop", Mode: "event"}
	for i := range 12 {
		deep = api.TraceNode{Kind: api.TraceEvent, ID: "again", At: after(900 - i), Type: "again", Source: "/me", Bus: "default", Children: []api.TraceNode{deep}}
	}
	return &api.TraceInfo{
		Trace: "4bf92f3577b34da6a3ce929d0e0e4736", Open: 2, Dead: 2, More: true,
		Roots: []api.TraceNode{
			{Kind: api.TraceInvocation, ID: "10000000-0000-4000-8000-000000000001", At: at, Function: "shop-dev-place", Mode: "request", State: "succeeded", DurationMS: 12.34, Tries: 1, Children: []api.TraceNode{
				{Kind: api.TraceEvent, ID: "order-1", At: after(3), Type: "order.placed", Source: "/shop", Bus: "orders", PublishedBy: "shop-dev-place", Children: []api.TraceNode{
					{Kind: api.TraceInvocation, ID: "10000000-0000-8000-8000-000000000002", At: after(3), Function: "shop-dev-bill", Mode: "event", State: "retrying", DurationMS: 1500, Tries: 12, Redriven: 1,
						Due: after(60_000), Error: long, Attempts: []api.InvocationAttempt{{DurationMS: 700, Counts: true, Code: "failed", Error: "first"}, {DurationMS: 800, Counts: true, Code: "failed", Error: long}}},
					{Kind: api.TraceInvocation, ID: "10000000-0000-8000-8000-000000000003", At: after(3), Function: "shop-dev-mail", Mode: "event", State: "dead", Cause: "exhausted", DurationMS: 130_000, Tries: 1, Replay: "replay-1",
						Attempts: []api.InvocationAttempt{{DurationMS: 130_000, Counts: true, Error: "no stamps"}}, Children: []api.TraceNode{
							{Kind: api.TraceInvocation, ID: "10000000-0000-4000-8000-000000000004", At: after(200), Function: "shop-dev-sorry", Mode: "destination", State: "pending"},
						}},
					deep,
				}},
				{Kind: api.TraceMessage, ID: "m1", At: after(4), Queue: "jobs", State: "done", Children: []api.TraceNode{
					{Kind: api.TraceInvocation, ID: "10000000-0000-4000-8000-000000000005", At: after(9), Function: "shop-dev-work", Mode: "queue", State: "failed in part", DurationMS: 3, Tries: 1, Together: 3, Error: "partly"},
				}},
				{Kind: api.TraceMessage, ID: "m2", At: after(4), Queue: "jobs", In: "dead", DeadFrom: "jobs", State: "dead", Children: []api.TraceNode{
					{Kind: api.TraceInvocation, ID: "10000000-0000-4000-8000-000000000005", At: after(9), Function: "shop-dev-work", Mode: "queue", State: "failed in part", DurationMS: 3, Tries: 1, Together: 3, Elsewhere: true},
				}},
				{Kind: api.TraceMessage, ID: "m3", At: after(4), Queue: "jobs", In: "jobs", Receives: 2, State: "waiting"},
			}},
			{Kind: api.TraceInvocation, ID: "10000000-0000-4000-8000-000000000006"},
		},
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestTrace_IsATreeThatFitsATerminal(t *testing.T) {
	t.Parallel()
	var file, terminal bytes.Buffer
	cli.WriteTrace(&file, false, drawnTrace())
	golden(t, "trace/tree.txt", file.Bytes())
	if strings.Contains(file.String(), "\x1b") {
		t.Error("a file gets colours")
	}
	cli.WriteTrace(&terminal, true, drawnTrace())
	if !strings.Contains(terminal.String(), "\x1b[31m") {
		t.Error("a terminal gets no colours")
	}
	for line := range strings.Lines(escapes.ReplaceAllString(terminal.String(), "")) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}
