package lambda_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/guesttest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/invocation"
)

// echoes are guests of every transport that give back what they get.
func echoes() map[string]func(testing.TB) *guest.Unit {
	goEcho := func(runtime, binary string) func(testing.TB) *guest.Unit {
		return func(t testing.TB) *guest.Unit {
			u := goUnit(t, runtime, binary)
			u.Env = []string{"MODE=echo"}
			return u
		}
	}
	return map[string]func(testing.TB) *guest.Unit{
		"node": func(t testing.TB) *guest.Unit {
			return nodeUnit(t, "index.handler", js(`exports.handler = async (e) => e`))
		},
		"python":    func(t testing.TB) *guest.Unit { return pythonUnit(t, "app.handler", py("def handler(e, c): return e")) },
		"go":        goEcho("provided.al2023", "gofn"),
		"go by RPC": goEcho("go1.x", "gorpc"),
	}
}

func batched(b *invocation.Batch) *invocation.Invocation {
	inv := guesttest.Direct("")
	inv.Mode, inv.Payload = invocation.ModeStream, b
	return inv
}

func TestSession_HandlersOfEveryTransportGetBatches(t *testing.T) {
	t.Parallel()
	for name, unit := range echoes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := unit(t)
			u.Region, u.Account, u.Function, u.ARN = "eu-central-1", "123456789012", "worker", "arn:aws:lambda:eu-central-1:123456789012:function:worker"
			g := launch(t, u)
			for name, b := range lambda.Batches() {
				file, err := os.ReadFile(filepath.Join("testdata", "batch", name+".json"))
				if err != nil {
					t.Fatal(err)
				}
				got, err := g.Do(t, batched(b))
				if err != nil || got.Head.Error != nil || got.Head.Status != 0 {
					t.Fatalf("%s: %v, %+v", name, err, got.Head)
				}
				sameJSON(t, name, got.Body.Bytes(), file)
				b.Input = []byte(`{"constant":[1,"é"]}`)
				if got, err = g.Do(t, batched(b)); err != nil {
					t.Fatal(err)
				}
				sameJSON(t, name+" with an input", got.Body.Bytes(), b.Input)
			}
			// What is too large for a handler says so, and costs no guest.
			big := &invocation.Batch{Via: invocation.ViaQueue, Source: "q", Items: []invocation.Item{{Event: &event.Event{ID: "1", Data: make([]byte, 2<<20)}}}} // six bytes of JSON each
			if _, err := g.Do(t, batched(big)); errs.CodeOf(err) != errs.TooLarge {
				t.Errorf("an event over the limit: %v", err)
			}
			if got, err := g.Call(t, `"still here"`); err != nil || got.Body.String() != `"still here"` {
				t.Errorf("after an event over the limit: %v, %s", err, got.Body.String())
			}
		})
	}
}

func sameJSON(t *testing.T, name string, got, want []byte) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Errorf("%s: %v in %.300s", name, err, got)
		return
	}
	if err := json.Unmarshal(want, &w); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("%s: %s\nwant %s", name, got, want)
	}
}

func TestProvided_AShellScriptGetsABatch(t *testing.T) {
	t.Parallel()
	u := shellUnit(t, `handler() { echo "$1"; }`)
	u.Region, u.Account = "eu-central-1", "123456789012"
	file, err := os.ReadFile(filepath.Join("testdata", "batch", "sqs-fifo.json"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := launch(t, u).Do(t, batched(lambda.Batches()["sqs-fifo"]))
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, "shell", got.Body.Bytes(), file)
}

// Handlers as they are written, with what they answer read as the source's poller reads it.
func TestVerdict_ReadsWhatHandlersAnswer(t *testing.T) {
	t.Parallel()
	const nodeReport = `exports.handler = async (e) => {
		const batchItemFailures = []
		for (const r of e.Records) if (Buffer.from(r.body || (r.kinesis && Buffer.from(r.kinesis.data, "base64")) || "").toString().includes("bad"))
			batchItemFailures.push({ itemIdentifier: r.messageId || r.kinesis.sequenceNumber })
		return { batchItemFailures }
	}`
	const pythonReport = `
import base64, json
def handler(event, context):
    failures = []
    for r in event["Records"]:
        body = r["body"] if "body" in r else base64.b64decode(r["kinesis"]["data"]).decode()
        if "bad" in body:
            failures.append({"itemIdentifier": r["messageId"] if "messageId" in r else r["kinesis"]["sequenceNumber"]})
    return {"batchItemFailures": failures}
`
	for name, c := range map[string]struct {
		unit          func(testing.TB) *guest.Unit
		queue, stream []int
		err           string
	}{
		"node":   {func(t testing.TB) *guest.Unit { return nodeUnit(t, "index.handler", js(nodeReport)) }, []int{1, 3}, []int{1, 2, 3}, ""},
		"python": {func(t testing.TB) *guest.Unit { return pythonUnit(t, "app.handler", py(pythonReport)) }, []int{1, 3}, []int{1, 2, 3}, ""},
		"node, nothing": {func(t testing.TB) *guest.Unit {
			return nodeUnit(t, "index.handler", js(`exports.handler = async () => {}`))
		}, nil, nil, ""},
		"python, nothing": {func(t testing.TB) *guest.Unit { return pythonUnit(t, "app.handler", py("def handler(e, c): pass")) }, nil, nil, ""},
		"node throws": {func(t testing.TB) *guest.Unit {
			return nodeUnit(t, "index.handler", js(`exports.handler = async () => { throw new TypeError("no") }`))
		}, []int{0, 1, 2, 3}, []int{0, 1, 2, 3}, "TypeError: no"},
		"python raises": {func(t testing.TB) *guest.Unit {
			return pythonUnit(t, "app.handler", py("def handler(e, c): raise KeyError('no')"))
		}, []int{0, 1, 2, 3}, []int{0, 1, 2, 3}, "KeyError: 'no'"},
		"node answers a text": {func(t testing.TB) *guest.Unit {
			return nodeUnit(t, "index.handler", js(`exports.handler = async () => "done"`))
		}, []int{0, 1, 2, 3}, []int{0, 1, 2, 3}, "not an object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := launch(t, c.unit(t))
			for via, want := range map[invocation.Via][]int{invocation.ViaQueue: c.queue, invocation.ViaStream: c.stream} {
				b := &invocation.Batch{Via: via, Source: "s", Shard: "0"}
				for i, text := range []string{"good", "bad", "good", "bad"} {
					n := string(rune('1' + i))
					b.Items = append(b.Items, invocation.Item{Event: &event.Event{ID: "id" + n, Data: []byte(text)}, Sequence: n})
				}
				got, err := g.Do(t, batched(b))
				if err != nil {
					t.Fatal(err)
				}
				v := protocol(t).Verdict(b, true, got.Body.Bytes(), got.Head.Error)
				if !slices.Equal(v.Failed, want) || (v.Err == nil) != (c.err == "") || v.Err != nil && !strings.Contains(v.Err.Error(), c.err) {
					t.Errorf("%s: %v, %v; want %v, %q; answer %s", via, v.Failed, v.Err, want, c.err, got.Body.String())
				}
			}
		})
	}
}
