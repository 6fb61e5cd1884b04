package lambda_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

// tap is a Sink that calls first at its first byte.
type tap struct {
	invocation.Buffer
	first func() error
}

func (s *tap) Write(p []byte) (int, error) {
	if f := s.first; f != nil {
		s.first = nil
		if err := f(); err != nil {
			return 0, err
		}
	}
	return s.Buffer.Write(p)
}

func streamed() *invocation.Invocation { return request("url", "2.0", true, strings.NewReader("")) }

// soon ends after 20 seconds, or with the test.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// fifo is a named pipe: whoever opens it to read waits until somebody opens it to write.
func fifo(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const nodeStream = `const fs = require("fs");
exports.handler = awslambda.streamifyResponse(async (e, s, c) => {
	s = awslambda.HttpResponseStream.from(s, {statusCode: 202, headers: {"Content-Type": "text/event-stream", "X-Query": "1"}, cookies: ["c=1"]});
	s.write("first,");
	switch (process.env.THEN) {
	case "wait": await fs.promises.readFile(process.env.FIFO); break;
	case "deaf": await new Promise((r) => setTimeout(r, 60000)); break;
	case "drain": for (;;) if (!s.write("x".repeat(100000))) await require("events").once(s, "drain");
	case "close": await new Promise((r) => s.on("close", r)); console.log("closed", s.destroyed, s.write("more")); return;
	case "pipe": await require("stream/promises").pipeline(async function* () { for (;;) { yield "x"; await new Promise((r) => setTimeout(r, 1)); } }, s); break;
	case "long": for (let i = 0; i < 20; i++) if (!s.write("x".repeat(100000))) await require("events").once(s, "drain");
	}
	s.end("second");
})`

func streamUnit(t *testing.T, kind, then string, more ...string) *guest.Unit {
	t.Helper()
	var u *guest.Unit
	if kind == "go" {
		u = goUnit(t, "provided.al2023", "gofn")
	} else {
		u = nodeUnit(t, "index.handler", js(nodeStream))
	}
	u.Env = append(append(u.Env, "MODE=url", "THEN="+then), more...)
	return u
}

func TestStream_TheFirstPartComesBeforeTheSecondIsWritten(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"node", "go"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			pipe := fifo(t)
			g := launch(t, streamUnit(t, kind, "wait", "FIFO="+pipe))
			s := &tap{first: func() error {
				f, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the handler, which waits for this
				if err != nil {
					return err
				}
				return f.Close()
			}}
			if err := g.Invoke(soon(t), streamed(), s); err != nil {
				t.Fatal(err)
			}
			if s.Head.Status != 202 || s.Body.String() != "first,second" || s.Head.Length != -1 {
				t.Errorf("%+v %q", s.Head, s.Body.String())
			}
			want := map[string]bool{"content-type: text/event-stream": true, "x-query: 1": kind == "node", "set-cookie: c=1": true}
			got := map[string]bool{}
			for _, f := range s.Head.Header {
				got[strings.ToLower(f.Name)+": "+f.Value] = true
			}
			for line, must := range want {
				if must && !got[line] {
					t.Errorf("no %q in %v", line, got)
				}
			}
		})
	}
}

func TestStream_AGuestWhoseReaderHasGoneTakesTheNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, then, output string }{
		{kind: "node", then: "close", output: `closed true false`},
		{kind: "node", then: "drain"},
		{kind: "node", then: "pipe"},
		{kind: "go", then: "long"},
	} {
		for _, how := range []string{"left", "write fails"} {
			t.Run(c.kind+" "+c.then+" "+how, func(t *testing.T) {
				t.Parallel()
				g := launch(t, streamUnit(t, c.kind, c.then))
				for range 3 {
					ctx, cancel := context.WithCancel(soon(t))
					gone := errors.New("gone")
					s := &tap{first: func() error {
						if how == "left" {
							cancel()
							return nil
						}
						return gone
					}}
					err := g.Invoke(ctx, streamed(), s)
					cancel()
					var cut *guest.CutError
					whole := err == nil && strings.HasSuffix(s.Body.String(), "second") // it was quicker
					if !whole && (!errors.As(err, &cut) || cut.Failure != nil) || how != "left" && !errors.Is(err, gone) {
						t.Fatalf("%v; output:\n%s", err, g.Output())
					}
				}
				if out := g.Output(); regexp.MustCompile(`Invoke Error|ECONNRESET|NodeJsExit`).MatchString(out) {
					t.Errorf("the log has errors that the handler did not make:\n%s", out)
				}
				if out, ok := g.OutputLike(c.output); !ok {
					t.Errorf("output:\n%s", out)
				}
				if !g.Running() {
					t.Error("the guest has ended")
				}
			})
		}
	}
}

func TestStream_AGuestThatDoesNotEndIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{{"node", "deaf"}, {"go", "forever"}} {
		t.Run(c[0], func(t *testing.T) {
			t.Parallel()
			g := launch(t, streamUnit(t, c[0], c[1]))
			ctx, cancel := context.WithCancel(soon(t))
			defer cancel()
			var since time.Time
			s := &tap{first: func() error { since = time.Now(); cancel(); return nil }}
			err := g.Invoke(ctx, streamed(), s)
			var cut *guest.CutError
			if !errors.Is(err, context.Canceled) || errors.As(err, &cut) {
				t.Errorf("%v", err)
			}
			if took := time.Since(since); took < guest.Farewell {
				t.Errorf("it had %v", took)
			}
			if err := g.Invoke(soon(t), streamed(), &tap{}); !errors.Is(err, guest.ErrUnseen) {
				t.Errorf("the next gets %v", err)
			}
		})
	}
}

func TestStream_AFailureAfterTheFirstByteCutsTheAnswerOnly(t *testing.T) {
	t.Parallel()
	goRespond := goUnit(t, "provided.al2023", "gofn")
	goRespond.Env = []string{"MODE=respond"}
	for name, c := range map[string]struct {
		unit          *guest.Unit
		kind, message string
	}{
		"node": {nodeUnit(t, "index.handler", js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.setContentType("text/plain"); s.write("half"); await new Promise(setImmediate); throw new RangeError("it broke") })`)),
			"RangeError", "it broke"},
		"go": {goRespond, "broken", "it broke"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := launch(t, c.unit)
			for range 3 {
				b, err := g.Do(t, streamed())
				var cut *guest.CutError
				if !errors.As(err, &cut) || cut.Failure == nil || cut.Failure.Type != c.kind || cut.Failure.Message != c.message || b.Body.String() != "half" {
					t.Fatalf("%v %+v, head %+v %+v, body %q", err, cut, b.Head, b.Head.Error, b.Body.String())
				}
			}
			b, err := g.Do(t, request("url", "2.0", false, strings.NewReader("")))
			if err != nil || b.Head.Status != 502 || b.Head.Error == nil || b.Head.Error.Type != c.kind {
				t.Errorf("buffered: %v %+v", err, b.Head)
			}
		})
	}
}

func TestStream_ABadHeadIsAWholeAnswer(t *testing.T) {
	t.Parallel()
	g := launch(t, nodeUnit(t, "index.handler", js(`exports.handler = awslambda.streamifyResponse(async (e, s) => {
		s = awslambda.HttpResponseStream.from(s, {statusCode: "x"});
		for (let i = 0; i < 20; i++) if (!s.write("x".repeat(100000))) await require("events").once(s, "drain");
		s.end();
	})`)))
	for range 2 {
		b, err := g.Do(t, streamed())
		if err != nil || b.Head.Status != 502 || b.Head.Error == nil || b.Head.Error.Cause != invocation.CauseResponse {
			t.Errorf("%v %+v", err, b.Head)
		}
	}
}

func TestStream_AReaderThatTakesNothingStopsTheHandler(t *testing.T) {
	t.Parallel()
	g := launch(t, nodeUnit(t, "index.handler", js(`exports.handler = awslambda.streamifyResponse(async (e, s) => {
		for (let i = 1; i <= 3; i++) {
			const more = s.write("x".repeat(4 << 20)); // more than the line holds
			console.log("wrote", i, more);
			if (!more) await require("events").once(s, "drain");
		}
		s.end();
	})`)))
	before := ""
	s := &tap{}
	s.first = func() error {
		if _, ok := g.OutputLike(`wrote 1 false`); !ok {
			t.Error("no first write")
		}
		before = g.Output()
		return nil
	}
	if err := g.Invoke(soon(t), streamed(), s); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(before, "wrote 2") {
		t.Error("the handler went on writing while nobody read")
	}
	if _, ok := g.OutputLike(`wrote 3`); !ok || s.Body.Len() != 12<<20 {
		t.Errorf("%d bytes, output %s", s.Body.Len(), g.Output())
	}
}
