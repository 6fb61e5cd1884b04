package lambda

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

func frames(parts ...any) []byte {
	var b []byte
	for i := 0; i < len(parts); i += 3 {
		var at int
		b, at = openFrame(b, byte(parts[i].(int)), 1)
		b[at+5] = byte(parts[i+1].(int))
		b = append(b, parts[i+2].(string)...)
		closeFrame(b, at)
	}
	return b
}

// answerFrames gives the guest's bytes, cut into reads of at most n, to a session.
func answerFrames(data []byte, n int, inv *invocation.Invocation) (*invocation.Buffer, *streamSession, error) {
	s := &streamSession{call: 1}
	sink := &invocation.Buffer{}
	r := frameReader{r: &slowReader{bytes.NewReader(data), n}, buf: make([]byte, 16)}
	err := s.answer(&r, inv, sink)
	return sink, s, err
}

type slowReader struct {
	r io.Reader
	n int
}

func (s *slowReader) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.n)]) }

func TestFrames_AnswersAreReadHoweverTheyAreCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		data []byte
		want string
		err  bool
	}{
		{"result", frames(1, 0, "r", 3, 0, `{"a":1}`), `{"a":1}`, false},
		{"empty", frames(1, 0, "r", 3, 0, ``), ``, false},
		{"in parts", frames(1, 0, "r", 2, 0, `{"a"`, 2, 0, ``, 2, 0, `:`, 3, 0, `1}`), `{"a":1}`, false},
		{"error", frames(1, 0, "e", 3, 0, `{"errorType":"A"}`), `{"errorType":"A"}`, false},
		{"stream", frames(1, 0, "stext/plain", 2, 0, `a`, 2, 0, `b`, 3, 0, ``), `ab`, false},
		{"aborted stream", frames(1, 0, "stext/plain", 2, 0, `a`, 6, 0, `{"errorType":"A"}`), `{"errorType":"A"}`, false},
		{"no end", frames(1, 0, "r", 2, 0, `{"a"`), ``, true},
		{"end inside a header", frames(1, 0, "r", 3, 0, `x`)[:12], ``, true},
		{"body first", frames(2, 0, "r"), ``, true},
		{"two heads", frames(1, 0, "r", 1, 0, "r"), ``, true},
		{"unknown kind", frames(1, 0, "r", 77, 0, "r"), ``, true},
		{"empty head", frames(1, 0, "", 3, 0, "r"), ``, true},
		{"huge head", frames(1, 0, strings.Repeat("r", 2000), 3, 0, "r"), ``, true},
		{"huge frame", []byte{255, 255, 255, 255, 3, 0, 1, 0}, ``, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, n := range []int{1, 3, 8, 1000} {
				sink, _, err := answerFrames(c.data, n, direct(""))
				if (err != nil) != c.err || sink.Body.String() != c.want {
					t.Errorf("cut at %d: %q %v", n, sink.Body.String(), err)
				}
			}
		})
	}
	for _, data := range [][]byte{frames(1, 1, "r", 3, 0, ``), frames(1, 0, "r", 3, 1, ``), frames(1, 0, "s", 2, 0, `a`, 6, 1, `{}`)} {
		if _, s, err := answerFrames(data, 1000, direct("")); err != nil || !s.spent {
			t.Errorf("a guest that said it ends: spent %v, %v", s.spent, err)
		}
	}
	if _, _, err := answerFrames(append(frames(1, 0, "r", 3, 0, ``), 0), 1000, direct("")); err == nil {
		t.Error("bytes after the answer are accepted")
	}
	wrong := frames(1, 0, "r", 3, 0, ``)
	wrong[6] = 9
	if _, _, err := answerFrames(wrong, 1000, direct("")); err == nil {
		t.Error("an answer to another call is accepted")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(frames(1, 0, "r", 3, 0, `{"a":1}`), 3)
	f.Add(frames(1, 1, "stext/plain", 2, 0, `a`, 6, 0, `{"errorType":"A"}`), 1)
	f.Add(frames(1, 0, "s"+httpStream, 2, 0, "{\"statusCode\":201}\x00\x00\x00\x00\x00\x00\x00\x00body", 3, 0, ``), 9)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if n < 1 {
			n = 1
		}
		for _, inv := range []*invocation.Invocation{direct(""), webRequest(true), webRequest(false)} {
			sink, _, err := answerFrames(data, n, inv)
			if err == nil && !sink.Started {
				t.Error("no answer and no error")
			}
		}
	})
}

func webRequest(stream bool) *invocation.Invocation {
	inv := direct("")
	inv.Payload = &invocation.Request{
		Method: "GET", Scheme: "https", Proto: "HTTP/1.1", Host: "x", Path: "/", FullPath: "/", Body: strings.NewReader(""),
		Route: &invocation.Route{APIKind: kindURL, Stage: "$default", Method: "ANY", Pattern: "$default", Format: "2.0", Stream: stream},
	}
	return inv
}

// streamLog keeps what a Sink got in order.
type streamLog struct {
	invocation.Buffer
	steps []string
}

func (l *streamLog) Start(h invocation.Head) error {
	l.steps = append(l.steps, fmt.Sprint("head ", h.Status))
	return l.Buffer.Start(h)
}

func (l *streamLog) Write(p []byte) (int, error) {
	l.steps = append(l.steps, string(p))
	return l.Buffer.Write(p)
}

func TestReply_StreamsWhereTheRouteAllows(t *testing.T) {
	t.Parallel()
	prelude := "{\"statusCode\":201,\"headers\":{\"X-A\":\"b\",\"X-N\":3},\"cookies\":[\"c=1\"]}" + strings.Repeat("\x00", 8)
	for _, c := range []struct {
		name   string
		stream bool
		media  string
		parts  []string
		steps  string
		status int
		fields int
	}{
		{"live with a head", true, httpStream, []string{prelude[:10], prelude[10:] + "a", "b"}, "head 201|a|b", 201, 3},
		{"live with a head alone", true, httpStream, []string{prelude}, "head 201", 201, 3},
		{"live without a head", true, "text/plain", []string{"a", "b"}, "head 200|a|b", 200, 1},
		{"live and empty", true, "text/plain", nil, "head 200|", 200, 1},
		{"buffered with a head", false, httpStream, []string{prelude[:10], prelude[10:] + "a", "b"}, "head 201|ab", 201, 3},
		{"buffered result", false, "application/json", []string{`{"statusCode":`, `404}`}, "head 404", 404, 1},
		{"cut head", true, httpStream, []string{prelude[:10]}, "head 502|Internal Server Error", 502, 1},
		{"cut head, buffered", false, httpStream, []string{prelude[:10]}, "head 502|Internal Server Error", 502, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sink := &streamLog{}
			rep := reply{inv: webRequest(c.stream), sink: sink}
			rep.open(replyStream, c.media)
			for _, p := range c.parts {
				if err := rep.write([]byte(p)); err != nil {
					t.Fatal(err)
				}
			}
			if err := rep.close(nil); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(sink.steps, "|"); got != c.steps {
				t.Errorf("steps %q, want %q", got, c.steps)
			}
			if sink.Head.Status != c.status || len(sink.Head.Header) != c.fields {
				t.Errorf("head %+v", sink.Head)
			}
		})
	}
}

func TestReadPrelude_RefusesNonsense(t *testing.T) {
	t.Parallel()
	end := strings.Repeat("\x00", 8)
	for name, in := range map[string]string{
		"no JSON": "x" + end, "a list": "[]" + end, "a status": `{"statusCode":99}` + end, "a word": `{"statusCode":"x"}` + end,
		"a header object": `{"headers":{"a":{}}}` + end, "a header name": `{"headers":{"a b":"c"}}` + end, "a header value": `{"headers":{"a":"b\r\nc: d"}}` + end,
		"too long": strings.Repeat(" ", maxPrelude+1),
	} {
		if h, _, err := readPrelude([]byte(in)); err == nil {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func TestFrames_ACallerThatLeavesAtTheAnswerSpoilsNothing(t *testing.T) {
	t.Parallel()
	host, far := net.Pipe()
	defer far.Close()
	s := &streamSession{line: lineReader{Conn: host}, unit: &guest.Unit{}, pool: newPool()}
	go func() {
		for i := byte(1); ; i++ {
			r := frameReader{r: far, buf: make([]byte, 16)}
			for kind := byte(0); kind != frameEnd; {
				f, err := r.next()
				if err != nil {
					return
				}
				kind = f.kind
				_, _ = r.payload(f.length)
			}
			b := frames(1, 0, "r", 3, 0, "x")
			b[6], b[15] = i, i
			_, _ = far.Write(b)
		}
	}()
	for i := range 100 {
		ctx, cancel := context.WithCancel(context.Background())
		sink := &cancelSink{cancel: cancel}
		if err := s.Invoke(ctx, direct(`{}`), sink); err != nil || sink.Body.String() != "x" {
			t.Fatalf("invocation %d: %v %q", i, err, sink.Body.String())
		}
	}
}

// cancelSink ends the context as soon as the answer begins.
type cancelSink struct {
	invocation.Buffer
	cancel context.CancelFunc
}

func (s *cancelSink) Start(h invocation.Head) error {
	s.cancel()
	return s.Buffer.Start(h)
}

func TestFrames_WhatWasSentBeforeTheEndIsRead(t *testing.T) {
	t.Parallel()
	for range 50 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		far, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		host, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		var doc []byte
		doc, at := openFrame(doc, frameFailed, 0)
		doc = append(doc, `{"errorType":"A","errorMessage":"`+strings.Repeat("x", 2000)+`"}`...)
		closeFrame(doc, at)
		_, _ = far.Write(doc)
		far.Close()
		// The guest's end ends the context before its last words are read.
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		var e *guest.InitError
		if _, err := openStream(ctx, host, &guest.Unit{}, newPool()); !errors.As(err, &e) || e.Type != "A" {
			t.Fatalf("%v", err)
		}
		host.Close()
		ln.Close()
	}
}
