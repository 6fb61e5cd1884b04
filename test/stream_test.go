package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

const streamYAML = `service: flow
provider: {name: aws, runtime: nodejs20.x, timeout: 20}
functions:
  sse: {handler: h.sse, url: {invokeMode: RESPONSE_STREAM}}
  flat: {handler: h.whole, url: true}
  live: {handler: h.whole, url: {invokeMode: RESPONSE_STREAM}}
  plain: {handler: h.plain, url: {invokeMode: RESPONSE_STREAM}}
  early: {handler: h.early, url: {invokeMode: RESPONSE_STREAM}}
  late: {handler: h.late, url: {invokeMode: RESPONSE_STREAM}}
  slow: {handler: h.slow, timeout: 1, url: {invokeMode: RESPONSE_STREAM}}
  big: {handler: h.big, url: true}
  rest:
    handler: h.whole
    events:
      - http: {path: /rest, method: get, response: {transferMode: stream}}
      - http: {path: /kept, method: get}
`

const streamCode = `const { pipeline } = require('stream/promises');
const { Readable } = require('stream');
const stream = awslambda.streamifyResponse;
const from = awslambda.HttpResponseStream.from;
let calls = 0;
exports.sse = stream(async (e, s) => {
  s = from(s, { statusCode: 200, headers: { 'Content-Type': 'text/event-stream' }, cookies: ['a=b', 'c=d'] });
  s.write('data: ' + process.pid + ' ' + ++calls + '\n\n');
  await new Promise((r) => s.once('close', r));
  console.log('the client has left');
});
exports.whole = stream(async (e, s) => {
  s = from(s, { statusCode: 201, headers: { 'Content-Type': 'text/plain', 'X-A': '1' } });
  await pipeline(Readable.from(['a', 'b', 'c']), s);
  return 'ignored';
});
exports.plain = async () => ({ statusCode: 418, headers: { 'x-b': '2' }, body: 'tea' });
exports.early = stream(async () => { throw new Error('early'); });
exports.late = stream(async (e, s) => { s.setContentType('text/plain'); s.write('half'); await new Promise(setImmediate); throw new RangeError('late'); });
exports.slow = stream(async (e, s) => { s.write('half'); await new Promise((r) => setTimeout(r, 30000)); });
exports.big = stream(async (e, s) => { s.end(Buffer.alloc(7 << 20)); });
`

func streamServer(t *testing.T) *harness.Server {
	t.Helper()
	dir := project(t, map[string]string{"serverless.yml": streamYAML, "h.js": streamCode})
	data := filepath.Join(t.TempDir(), "data")
	s := ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
	if r := ebb.Run(t, dir, "deploy", "--data", data); r.Code != 0 {
		t.Fatalf("deploy: %+v", r)
	}
	return s
}

func logged(t *testing.T, s *harness.Server, what string) {
	t.Helper()
	var all string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		r := ebb.Run(t, s.Dir, "logs", "--data", s.Data)
		if all = r.Stdout + r.Stderr; strings.Contains(all, what) {
			return
		}
	}
	t.Errorf("the logs have no %q:\n%s", what, all)
}

func TestStream_AnswersAsOnAWS(t *testing.T) {
	t.Parallel()
	s := streamServer(t)
	for _, c := range []struct {
		path   string
		status int
		length int64 // -1 where the answer is streamed
		body   string
		header string
		cut    bool
	}{
		{path: "/_url/live/", status: 201, length: -1, body: "abc", header: "X-A"},
		{path: "/_url/flat/", status: 201, length: 3, body: "abc", header: "X-A"},
		{path: "/_url/plain/", status: 418, length: -1, body: "tea", header: "X-B"},
		{path: "/_url/early/", status: 502, length: -1, body: "Internal Server Error"},
		{path: "/_url/late/", status: 200, length: -1, body: "half", cut: true},
		{path: "/_url/slow/", status: 200, length: -1, body: "half", cut: true},
		{path: "/_url/big/", status: 502, length: 21, body: "Internal Server Error"},
		{path: "/dev/rest", status: 201, length: -1, body: "abc", header: "X-A"},
		{path: "/dev/kept", status: 201, length: 3, body: "abc", header: "X-A"},
	} {
		t.Run(c.path, func(t *testing.T) {
			t.Parallel()
			req, err := http.NewRequestWithContext(t.Context(), "GET", s.Ready.Gateway+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept-Encoding", "gzip, br")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || resp.ContentLength != c.length || string(b) != c.body || resp.Header.Get("Content-Encoding") != "" {
				t.Errorf("%d, length %d, %q, %v", resp.StatusCode, resp.ContentLength, b, resp.Header)
			}
			if c.header != "" && resp.Header.Get(c.header) == "" {
				t.Errorf("no %s in %v", c.header, resp.Header)
			}
			if errors.Is(err, io.ErrUnexpectedEOF) != c.cut {
				t.Errorf("the answer ends with %v", err)
			}
		})
	}
	t.Cleanup(func() {
		logged(t, s, "Task timed out after 1.00 seconds")
		logged(t, s, "Streaming handlers ignore return values.")
	})
}

// open asks for an endless answer and gives its first part.
func openStream(t *testing.T, s *harness.Server) (first string, leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", s.Ready.Gateway+"/_url/sse/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Content-Type") != "text/event-stream" || len(resp.Header["Set-Cookie"]) != 2 {
		t.Errorf("%v", resp.Header)
	}
	b := make([]byte, 64)
	n, err := resp.Body.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), func() { cancel(); resp.Body.Close() }
}

func TestStream_TheFirstPartArrivesWhileTheHandlerWaits(t *testing.T) {
	t.Parallel()
	s := streamServer(t)
	// The handler ends when its client leaves, and the client leaves when it has the first part.
	first, leave := openStream(t, s)
	leave()
	if !strings.HasPrefix(first, "data: ") {
		t.Errorf("%q", first)
	}
	logged(t, s, "the client has left")
}

func TestStream_ClientsThatLeaveLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	s := streamServer(t)
	open := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID()))
		if err != nil {
			t.Skipf("descriptors cannot be counted here: %v", err)
		}
		return len(list)
	}
	guests := map[string]bool{}
	visit := func(n int) {
		for range n {
			first, leave := openStream(t, s)
			leave()
			pid, _, _ := strings.Cut(strings.TrimPrefix(first, "data: "), " ")
			guests[pid] = true
		}
	}
	visit(20)
	before := open()
	visit(300)
	now := 0
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if now = open(); now < before+100 {
			break
		}
	}
	if now >= before+100 {
		t.Errorf("%d descriptors before, %d after", before, now)
	}
	if len(guests) > 20 {
		t.Errorf("%d instances for 320 clients: those that were told are not used again", len(guests))
	}
}
