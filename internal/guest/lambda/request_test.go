package lambda_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/guesttest"
	"github.com/ebb-run/ebb/internal/invocation"
)

func request(kind, format string, stream bool, body io.Reader) *invocation.Invocation {
	inv := guesttest.Direct("")
	inv.Received = time.Unix(1700000000, 0)
	inv.Payload = &invocation.Request{
		Method: "POST", Scheme: "https", Proto: "HTTP/1.1", Host: "api.example.com", Path: "/hello/ann", FullPath: "/hello/ann", Query: "q=1",
		Header: []invocation.Field{{Name: "Content-Type", Value: "text/plain"}}, Body: body, ContentLength: -1, RemoteIP: "192.0.2.1",
		Route: &invocation.Route{APIKind: kind, APIID: "abcdefghij", Domain: "api.example.com", Account: "000000000000", Stage: "$default", Method: "POST",
			Pattern: "/hello/{name}", Format: format, Stream: stream, Params: []invocation.Param{{Name: "name", Value: "ann"}}},
	}
	return inv
}

func TestRequest_BecomesEventAndAnswer(t *testing.T) {
	t.Parallel()
	const handler = `exports.handler = async (e) => {
		if (e.body === "throw") throw new Error("x");
		if (e.body === "none") return 5n;
		return {statusCode: 201, headers: {"X-Name": e.pathParameters?.name ?? "", "Content-Type": "text/plain"}, body: e.version + " " + e.body};
	}`
	g := launch(t, nodeUnit(t, "index.handler", js(handler)))
	for _, c := range []struct {
		kind, format, in string
		status           int
		body             string
		fails            string
	}{
		{"rest", "1.0", "hi", 201, "undefined hi", ""},
		{"http", "2.0", "hi", 201, "2.0 hi", ""},
		{"url", "2.0", "hi", 201, "2.0 hi", ""},
		{"rest", "1.0", "throw", 502, `{"message": "Internal server error"}`, "Error"},
		{"http", "2.0", "throw", 500, `{"message":"Internal Server Error"}`, "Error"},
		{"http", "2.0", "none", 500, `{"message":"Internal Server Error"}`, "Runtime.MarshalError"},
	} {
		b, err := g.Do(t, request(c.kind, c.format, false, strings.NewReader(c.in)))
		if err != nil {
			t.Fatal(err)
		}
		if b.Head.Status != c.status || !strings.HasSuffix(b.Body.String(), strings.TrimPrefix(c.body, "undefined")) {
			t.Errorf("%s %s: %d %s", c.kind, c.in, b.Head.Status, b.Body.String())
		}
		if (b.Head.Error != nil) != (c.fails != "") || b.Head.Error != nil && b.Head.Error.Type != c.fails {
			t.Errorf("%s %s: Head.Error %+v", c.kind, c.in, b.Head.Error)
		}
	}
}

type brokenBody struct{ err error }

func (b brokenBody) Read([]byte) (int, error) { return 0, b.err }

func TestRequest_AFaultOfItsBodyLeavesTheGuestAsItWas(t *testing.T) {
	t.Parallel()
	units := map[string]*guest.Unit{
		"node": nodeUnit(t, "index.handler", js(`exports.handler = async () => ({statusCode: 200, body: "ok"})`)),
		"go":   goUnit(t, "provided.al2023", "gofn"),
	}
	for name, u := range units {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := launch(t, u)
			for _, c := range []struct {
				body io.Reader
				code errs.Code
			}{
				{brokenBody{errs.New(errs.TooLarge, "cut")}, errs.TooLarge},
				{brokenBody{errs.New(errs.Canceled, "gone")}, errs.Canceled},
				{io.LimitReader(zeros{}, 7<<20), errs.TooLarge},
			} {
				b, err := g.Do(t, request("http", "2.0", false, c.body))
				if !errors.Is(err, guest.ErrPayload) || errs.CodeOf(err) != c.code || b.Started {
					t.Errorf("%v (%s), answer started: %v", err, errs.CodeOf(err), b.Started)
				}
			}
			if _, err := g.Call(t, strings.Repeat(" ", 7<<20)); !errors.Is(err, guest.ErrPayload) || errs.CodeOf(err) != errs.TooLarge {
				t.Errorf("a raw payload over the limit: %v", err)
			}
			if b, err := g.Do(t, request("http", "2.0", false, strings.NewReader(""))); err != nil || b.Head.Status != 200 {
				t.Errorf("after that: %+v %v", b, err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestRequest_StreamsThroughHttpResponseStream(t *testing.T) {
	t.Parallel()
	const handler = `exports.handler = awslambda.streamifyResponse(async (e, s, c) => {
		s = awslambda.HttpResponseStream.from(s, {statusCode: 206, headers: {"Content-Type": "text/html", "X-A": "b"}, cookies: ["c=1"]});
		for (let i = 0; i < 200; i++) if (!s.write("x".repeat(10000))) await new Promise((r) => s.once("drain", r));
		s.end("end");
	})`
	g := launch(t, nodeUnit(t, "index.handler", js(handler)))
	for _, stream := range []bool{true, false, true} {
		b, err := g.Do(t, request("url", "2.0", stream, strings.NewReader("")))
		if err != nil {
			t.Fatal(err)
		}
		body := b.Body.String()
		if b.Head.Status != 206 || len(body) != 2_000_003 || !strings.HasSuffix(body, "xend") || len(b.Head.Header) != 3 {
			t.Errorf("stream %v: %+v, %d bytes", stream, b.Head, len(body))
		}
		if want := int64(len(body)); stream && b.Head.Length != -1 || !stream && b.Head.Length != want {
			t.Errorf("stream %v: length %d", stream, b.Head.Length)
		}
	}
}

func TestRequest_AStreamThatFailsLateIsCut(t *testing.T) {
	t.Parallel()
	g := launch(t, nodeUnit(t, "index.handler", js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.write("a"); await new Promise((r) => setTimeout(r, 5)); throw new Error("late") })`)))
	b, err := g.Do(t, request("url", "2.0", true, strings.NewReader("")))
	if errs.CodeOf(err) != errs.Failed || !strings.Contains(err.Error(), "late") || b.Body.String() != "a" {
		t.Errorf("%v, body %q", err, b.Body.String())
	}
}

func TestNode_AStreamsInvocationLastsUntilItsHandlerHasSettled(t *testing.T) {
	t.Parallel()
	g := launch(t, nodeUnit(t, "index.handler", js(`let working = 0; exports.handler = awslambda.streamifyResponse(async (e, s) => {
		s.end(String(working++)); // of earlier Invocations
		await new Promise((r) => setTimeout(r, 30));
		working--;
	})`)))
	for _, stream := range []bool{true, false, true, false} {
		b, err := g.Do(t, request("url", "2.0", stream, strings.NewReader("")))
		if err != nil {
			t.Fatal(err)
		}
		if b.Body.String() != "0" {
			t.Errorf("stream %v: %s handlers were at work already", stream, b.Body.String())
		}
	}
}

func TestNode_AStreamThatHasFailedSpoilsNoLaterAnswer(t *testing.T) {
	t.Parallel()
	g := launch(t, nodeUnit(t, "index.handler", js(`let first; exports.handler = awslambda.streamifyResponse(async (e, s) => {
		if (!first) {
			first = s;
			throw new Error("early");
		}
		first.write("of the first");
		first.end();
		await new Promise((r) => setTimeout(r, 5));
		s.end("of the second");
	})`)))
	if b, err := g.Call(t, `{}`); err != nil || b.Head.Error == nil {
		t.Fatalf("%v %+v", err, b.Head)
	}
	if b, err := g.Call(t, `{}`); err != nil || b.Body.String() != "of the second" {
		t.Errorf("%v, body %q", err, b.Body.String())
	}
}
