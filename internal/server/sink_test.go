package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
)

// publisher is a function that does to the sink what it is told, and answers with what came of it.
const publisher = `
const http = require("http");
const call = (c) => new Promise((done, fail) => {
  const r = http.request(process.env.EBB_EVENTS_URL + (c.path || ""), { method: c.method || "POST", headers: c.headers || {} }, (res) => {
    let text = "";
    res.on("data", (d) => text += d);
    res.on("end", () => done({ status: res.statusCode, body: text }));
  });
  r.on("error", fail);
  r.end(c.fill ? Buffer.alloc(c.fill, " ") : c.body || "");
});
const one = (id, more) => ({ specversion: "1.0", id, source: "/test", type: "t", ...more });
let late = [];
exports.hello = async (e) => {
  if (e.detail) { console.log("TOOK " + e.id); return e.id; }
  if (e.calls) { const out = []; for (const c of e.calls) out.push(await call(c)); return out; }
  if (e.batches) {
    let n = 0;
    for (let b = 0; b < e.batches; b++) {
      const body = JSON.stringify(Array.from({ length: e.each }, (_, i) => one("n" + b + "-" + i, { type: "many", data: { b, i } })));
      let r;
      do r = await call({ headers: { "content-type": "application/cloudevents-batch+json" }, body });
      while (r.status === 429 || r.status === 503); // the machine is busy; the ids are the same
      if (r.status !== 202) throw new Error(r.status + r.body);
      n += JSON.parse(r.body).events;
    }
    return n;
  }
  if (e.later) {
    setTimeout(() => call({ headers: { "content-type": "application/cloudevents+json" }, body: JSON.stringify(one(e.later)) }).then((r) => late.push(r.status)), 1);
    return "soon";
  }
  return late;
};
`

type sinkCall struct {
	Method  string            `json:"method,omitempty"`
	Path    string            `json:"path,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	Fill    int               `json:"fill,omitempty"`
}

type sinkAnswer struct {
	Status int
	Body   string
}

// publishing deploys an App whose function publishes, with what else it declares.
func (n *node) publishing(t *testing.T, name string, more func(*app.App)) {
	t.Helper()
	a, tree := shop(name, "dev", publisher)
	a.Functions[0].TimeoutSec = 600
	if more != nil {
		more(a)
	}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatalf("deploy: %v\n%s", err, n.log)
	}
}

func (n *node) invoke(t *testing.T, function string, payload, into any) {
	t.Helper()
	data, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := n.client.Invoke(t.Context(), function, data, "")
	if err != nil || answer.Cause != "" {
		t.Fatalf("%v %s\n%s", err, answer.Payload, n.log)
	}
	if err := json.Unmarshal(answer.Payload, into); err != nil {
		t.Fatalf("%v: %s", err, answer.Payload)
	}
}

func (n *node) calls(t *testing.T, function string, calls ...sinkCall) []sinkAnswer {
	t.Helper()
	var out []sinkAnswer
	n.invoke(t, function, map[string]any{"calls": calls}, &out)
	return out
}

var structured = map[string]string{"content-type": "application/cloudevents+json"}

func declaresBus(name string) func(*app.App) {
	return func(a *app.App) {
		a.Resources = append(a.Resources, app.Resource{ID: "Own", Kind: app.EventBus, Type: "AWS::Events::EventBus", Name: app.Lit(name)})
	}
}

func modes(t *testing.T, flags map[string]string) {
	n := openWith(t, t.TempDir(), flags)
	n.publishing(t, "owner", declaresBus("private"))
	n.publishing(t, "shop", declaresBus("own"))
	const good = `{"specversion":"1.0","id":"%s","source":"/s","type":"t"}`
	binary := map[string]string{"ce-specversion": "1.0", "ce-id": "b", "ce-source": "/s", "ce-type": "t", "content-type": "text/plain"}
	rows := []struct {
		name   string
		call   sinkCall
		status int
		says   string
	}{
		{"binary", sinkCall{Headers: binary, Body: "text"}, 202, `{"bus":"default","events":1}`},
		{"structured", sinkCall{Headers: structured, Body: fmt.Sprintf(good, "s")}, 202, `"events":1`},
		{"batch", sinkCall{Headers: map[string]string{"content-type": "application/cloudevents-batch+json"}, Body: "[" + fmt.Sprintf(good, "1") + "," + fmt.Sprintf(good, "2") + "]"}, 202, `"events":2`},
		{"slash", sinkCall{Path: "/", Headers: structured, Body: fmt.Sprintf(good, "sl")}, 202, `"default"`},
		{"its own bus", sinkCall{Path: "/buses/own", Headers: structured, Body: fmt.Sprintf(good, "o")}, 202, `"bus":"own"`},
		{"nobody's bus", sinkCall{Path: "/buses/some/where", Headers: structured, Body: fmt.Sprintf(good, "f")}, 202, `"bus":"some/where"`},
		{"another app's bus", sinkCall{Path: "/buses/private", Headers: structured, Body: fmt.Sprintf(good, "p")}, 403, "belongs to app owner, stage dev"},
		{"no bus's name", sinkCall{Path: "/buses/a%20b", Headers: structured, Body: fmt.Sprintf(good, "x")}, 400, "no name of an event bus"},
		{"no CloudEvent", sinkCall{Body: "{}"}, 400, "not a CloudEvent"},
		{"cut off", sinkCall{Headers: structured, Body: `{"specversion":"1.0"`}, 400, `"code":"invalid"`},
		{"no source", sinkCall{Headers: structured, Body: `{"specversion":"1.0","id":"1","type":"t"}`}, 400, "source"},
		{"a cause of its own", sinkCall{Headers: structured, Body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","ebbparent":"x"}`}, 400, "ebb's own"},
		{"hops of its own", sinkCall{Headers: structured, Body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","ebbhops":-9}`}, 400, "ebb's own"},
		{"another format", sinkCall{Headers: map[string]string{"content-type": "application/cloudevents+avro"}, Body: "x"}, 415, "not known"},
		{"too large", sinkCall{Headers: binary, Fill: api.MaxAsyncPayload + 1}, 413, "Put large data into a bucket"},
		{"much too large", sinkCall{Headers: structured, Fill: 12 << 20}, 413, "too_large"},
		{"GET", sinkCall{Method: "GET"}, 405, "by POST"},
		{"elsewhere", sinkCall{Path: "/v1/keys", Headers: structured, Body: fmt.Sprintf(good, "e")}, 404, "POST CloudEvents"},
		{"no bus", sinkCall{Path: "/buses/", Headers: structured, Body: fmt.Sprintf(good, "n")}, 404, "POST CloudEvents"},
		{"a browser", sinkCall{Headers: map[string]string{"content-type": "application/cloudevents+json", "origin": "http://x"}, Body: fmt.Sprintf(good, "br")}, 403, "browser"},
	}
	var calls []sinkCall
	for _, r := range rows {
		calls = append(calls, r.call)
	}
	for i, got := range n.calls(t, "shop-dev-hello", calls...) {
		if r := rows[i]; got.Status != r.status || !strings.Contains(got.Body, r.says) {
			t.Errorf("%s: %d %s, want %d with %s", r.name, got.Status, got.Body, r.status, r.says)
		}
	}
	if got := n.calls(t, "owner-dev-hello", sinkCall{Path: "/buses/private", Headers: structured, Body: fmt.Sprintf(good, "p")}); got[0].Status != 202 {
		t.Errorf("its owner publishes on it: %+v", got)
	}
	var events []string
	err := n.client.Events(t.Context(), api.EventQuery{}, nil, func(e api.RecordedEvent) error {
		events = append(events, e.Bus+" "+e.Event.ID+" "+e.Event.Extension("ebbpublisher")+" "+e.Event.Extension("ebbhops"))
		if e.Event.Extension("ebbparent") == "" || e.Event.Extension("traceparent") == "" {
			t.Errorf("%s does not say where it comes from: %v", e.Event.ID, e.Event.Extensions)
		}
		return nil
	})
	slices.Sort(events)
	want := []string{"default 1 shop-dev-hello 1", "default 2 shop-dev-hello 1", "default b shop-dev-hello 1", "default s shop-dev-hello 1", "default sl shop-dev-hello 1",
		"own o shop-dev-hello 1", "private p owner-dev-hello 1", "some/where f shop-dev-hello 1"}
	if err != nil || !slices.Equal(events, want) {
		t.Errorf("published %q, %v\nwant %q", events, err, want)
	}
}

func TestSink_TakesCloudEventsAndSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	modes(t, nil)
}

func TestSink_NeedsNoIsolationNorAnywayOut(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string]map[string]string{"plain": {"isolation": "none"}, "closed": {"egress": "closed"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modes(t, flags)
		})
	}
}

func TestSink_WantsTheTokenOfTheInstanceOnASharedNetwork(t *testing.T) {
	t.Parallel()
	n := openWith(t, t.TempDir(), map[string]string{"isolation": "none"})
	a, tree := shop("shop", "dev", `exports.hello = async () => process.env.K_SINK;`)
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	var at string
	n.invoke(t, "shop-dev-hello", nil, &at)
	post := func(url, host string) int {
		req, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(`{"specversion":"1.0","id":"1","source":"/s","type":"t"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/cloudevents+json")
		req.Host = host
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	part := strings.Split(at, "/") // http: "" host i instance token
	if len(part) != 6 || post(at, "") != 202 {
		t.Fatalf("the address %s does not work", at)
	}
	for name, url := range map[string]string{
		"no token": "http://" + part[2], "another token": strings.Join(part[:5], "/") + "/" + strings.Repeat("A", len(part[5])), "its beginning": at[:len(at)-1],
		"another Instance": strings.Join(part[:4], "/") + "/0123456789abcdef/" + part[5], "empty": strings.Join(part[:4], "/") + "//",
	} {
		if got := post(url, ""); got != 403 {
			t.Errorf("%s: %d", name, got)
		}
	}
	if got := post(at, "events.example.com"); got != 403 {
		t.Errorf("a foreign Host: %d", got)
	}
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); post(at, "") != 403; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the address outlives the Instance")
		}
	}
}

func TestSink_WhatIsPublishedAfterTheAnswerIsCausedByTheLastInvocation(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir())
	n.publishing(t, "shop", nil)
	answer, err := n.client.Invoke(t.Context(), "shop-dev-hello", []byte(`{"later":"afterwards"}`), "")
	if err != nil || string(answer.Payload) != `"soon"` {
		t.Fatalf("%v %s", err, answer.Payload)
	}
	parent := ""
	for end := time.Now().Add(time.Minute); parent == ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was published")
		}
		if err := n.client.Events(t.Context(), api.EventQuery{}, nil, func(e api.RecordedEvent) error {
			parent = e.Event.Extension("ebbparent")
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if parent != answer.ID {
		t.Errorf("caused by %q, want %q", parent, answer.ID)
	}
	// How it went is written when it is known that it published.
	var tr *api.TraceInfo
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if tr, err = n.client.Trace(t.Context(), answer.ID); err != nil {
			t.Fatal(err)
		}
		if len(tr.Roots) == 1 && tr.Roots[0].State == "succeeded" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", tr)
		}
	}
	if r := tr.Roots[0]; r.Function != "shop-dev-hello" || r.ID != answer.ID || len(r.Children) != 1 || r.Children[0].ID != "afterwards" {
		t.Errorf("%+v", r)
	}
}

// It is not parallel: the memory of other tests would count.
func TestSink_TakesTenThousandEventsInBoundedMemory(t *testing.T) {
	n := open(t, t.TempDir())
	n.publishing(t, "shop", nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	total := 0
	n.invoke(t, "shop-dev-hello", map[string]int{"batches": 20, "each": 500}, &total)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if total != 10_000 {
		t.Errorf("%d were accepted", total)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 128<<20 {
		t.Errorf("%d MB are held afterwards", grown>>20)
	}
	seen := map[string]bool{}
	if err := n.client.Events(t.Context(), api.EventQuery{}, nil, func(e api.RecordedEvent) error { seen[e.Event.ID] = true; return nil }); err != nil || len(seen) != 10_000 {
		t.Errorf("%d are in the log, %v", len(seen), err)
	}
	g, err := n.client.Graph(t.Context(), "shop")
	if err != nil || len(g.Edges) != 1 || g.Edges[0].N != 10_000 || g.Edges[0].Label != "many" {
		t.Errorf("%+v, %v", g, err)
	}
	tr, err := n.client.Trace(t.Context(), "n3-77")
	if err != nil || !tr.More || len(tr.Roots) != 1 || len(tr.Roots[0].Children) < 1000 {
		t.Errorf("%v", err)
	}
}
