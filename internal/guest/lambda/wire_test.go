package lambda

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

const testID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"

func direct(payload string) *invocation.Invocation {
	return &invocation.Invocation{
		ID: testID, Received: time.Unix(1700000000, 0), Deadline: time.UnixMilli(1700000003000), Payload: invocation.Raw(payload),
		Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
}

func newPool() *sync.Pool {
	return &sync.Pool{New: func() any { return &scratch{out: make([]byte, 0, 64), in: make([]byte, 64)} }}
}

// apiClient is a guest that speaks the Runtime API by hand.
type apiClient struct {
	t    testing.TB
	addr string
	conn net.Conn
	br   *bufio.Reader
}

func dialAPI(t testing.TB, addr string) *apiClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &apiClient{t: t, addr: addr, conn: c, br: bufio.NewReader(c)}
}

func (c *apiClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// read gives status line, header lines and body of one answer.
func (c *apiClient) read() (status string, header []string, body string) {
	c.t.Helper()
	length := 0
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			c.t.Fatalf("read an answer: %v", err)
		}
		line = strings.TrimSuffix(line, "\r\n")
		switch {
		case line == "" && status == "HTTP/1.1 100 Continue":
			status = ""
			continue
		case line == "":
			b := make([]byte, length)
			if _, err := io.ReadFull(c.br, b); err != nil {
				c.t.Fatal(err)
			}
			return strings.TrimPrefix(status, "HTTP/1.1 "), header, string(b)
		case status == "":
			status = line
		default:
			header = append(header, line)
			if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
				length, _ = strconv.Atoi(v)
			}
		}
	}
}

func (c *apiClient) do(method, path, body string, header ...string) (string, string) {
	c.t.Helper()
	text := method + " /2018-06-01/" + path + " HTTP/1.1\r\nHost: x\r\n"
	if body != "" {
		text += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	for _, h := range header {
		text += h + "\r\n"
	}
	c.send(text + "\r\n" + body)
	st, _, b := c.read()
	return st, b
}

const getNext = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"

// apiGuest opens a session whose guest is the returned client; its first GET next is sent.
func apiGuest(t testing.TB) (guest.Session, *apiClient) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := dialAPI(t, ln.Addr().String())
	c.send(getNext)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	u := &guest.Unit{ARN: "arn:aws:lambda:us-east-1:1:function:f", Timeout: 3 * time.Second}
	s, err := openAPI(ctx, ln, u, newPool())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, c
}

type result struct {
	invocation.Buffer
	err error
}

// start invokes in the background.
func start(t testing.TB, s guest.Session, inv *invocation.Invocation) <-chan *result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	done := make(chan *result, 1)
	go func() {
		r := &result{}
		r.err = s.Invoke(ctx, inv, r)
		done <- r
	}()
	return done
}

func TestAPI_NextHasWhatRuntimesRead(t *testing.T) {
	t.Parallel()
	s, c := apiGuest(t)
	inv := direct(`{"a":1}`)
	inv.ClientContext = "eyJhIjoxfQ=="
	inv.Qualifier = "live"
	done := start(t, s, inv)
	st, header, body := c.read()
	want := []string{
		"Content-Type: application/json",
		"Lambda-Runtime-Aws-Request-Id: " + testID,
		"Lambda-Runtime-Deadline-Ms: 1700000003000",
		"Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:1:function:f:live",
		"Lambda-Runtime-Trace-Id: Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1",
		`Lambda-Runtime-Client-Context: {"a":1}`,
		"Content-Length: 7",
	}
	if st != "200 OK" || body != `{"a":1}` || strings.Join(header, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\n%s\n\n%s", st, strings.Join(header, "\n"), body)
	}
	// Response and the next GET in one write, as a pipelining client does.
	answer := "POST /2018-06-01/runtime/invocation/" + testID + "/response HTTP/1.1\r\nContent-Length: 2\r\n\r\nok"
	c.send(answer + getNext)
	if st, _, body := c.read(); st != "202 Accepted" || body != "{\"status\":\"OK\"}\n" {
		t.Errorf("%s %s", st, body)
	}
	if r := <-done; r.err != nil || r.Body.String() != "ok" || r.Head.Error != nil || r.Head.Length != 2 {
		t.Errorf("%+v", r)
	}
}

func TestAPI_AnswersStateErrorsAsLambdaDoes(t *testing.T) {
	t.Parallel()
	s, c := apiGuest(t)
	done := start(t, s, direct(`{}`))
	c.read()
	inv := "runtime/invocation/"
	for _, step := range []struct {
		name, method, path, body string
		status, answer           string
	}{
		{"unknown path", "GET", "runtime/nope", "", "404 Not Found", "404 page not found\n"},
		{"unknown path with a body", "POST", "extension/register", "{}", "404 Not Found", "404 page not found\n"},
		{"wrong method", "POST", "runtime/invocation/next", "", "405 Method Not Allowed", ""},
		{"wrong method on an id", "GET", inv + testID + "/response", "", "405 Method Not Allowed", ""},
		{"ping", "GET", "ping", "", "200 OK", "pong"},
		{"wrong id", "POST", inv + "other/response", "{}", "400 Bad Request", "{\"errorMessage\":\"Invalid request ID\",\"errorType\":\"InvalidRequestID\"}\n"},
		{"next while running", "GET", "runtime/invocation/next", "", "403 Forbidden", "{\"errorMessage\":\"State transition from Running to Ready failed for runtime. Error: State transition is not allowed\",\"errorType\":\"InvalidStateTransition\"}\n"},
		{"init error after init", "POST", "runtime/init/error", "{}", "403 Forbidden", "{\"errorMessage\":\"State transition from Ready to InitError failed for runtime. Error: State transition is not allowed\",\"errorType\":\"InvalidStateTransition\"}\n"},
		{"error", "POST", inv + testID + "/error", `{"errorType":"A","errorMessage":"b"}`, "202 Accepted", "{\"status\":\"OK\"}\n"},
		{"response after error", "POST", inv + testID + "/response", "{}", "403 Forbidden", "{\"errorMessage\":\"State transition from InvocationErrorResponse to InvocationResponse failed for runtime. Error: State transition is not allowed\",\"errorType\":\"InvalidStateTransition\"}\n"},
	} {
		if st, body := c.do(step.method, step.path, step.body); st != step.status || body != step.answer {
			t.Errorf("%s: %s %s", step.name, st, body)
		}
	}
	c.send(getNext)
	r := <-done
	if r.err != nil || r.Body.String() != `{"errorType":"A","errorMessage":"b"}` || *r.Head.Error != (invocation.FunctionError{Cause: invocation.CauseHandler, Type: "A", Message: "b"}) {
		t.Errorf("%+v %+v", r, r.Head.Error)
	}
}

func TestAPI_TakesEveryKindOfBody(t *testing.T) {
	t.Parallel()
	post := "POST /2018-06-01/runtime/invocation/" + testID + "/response HTTP/1.1\r\nHost: x\r\n"
	big := strings.Repeat("x", maxResult+1)
	const tooLarge = "{\"errorMessage\":\"Exceeded maximum allowed payload size (6291556 bytes).\",\"errorType\":\"RequestEntityTooLarge\"}\n"
	const sizeError = `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}`
	for _, c := range []struct {
		name, request, status, answer, body string
	}{
		{"none", post + "\r\n", "202 Accepted", "", ""},
		{"length", post + "content-length: 3\r\n\r\nabc", "202 Accepted", "", "abc"},
		{"chunked", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n", "202 Accepted", "", "abcde"},
		{"expect", post + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", "202 Accepted", "", "abc"},
		{"streaming", post + "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "202 Accepted", "", "abc"},
		{"streaming with an error", post + "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nLambda-Runtime-Function-Error-Type: Late\r\nLambda-Runtime-Function-Error-Body: eyJlcnJvclR5cGUiOiJMYXRlIn0=\r\n\r\n", "202 Accepted", "", `{"errorType":"Late"}`},
		{"a long field", post + "Lambda-Runtime-Function-XRay-Error-Cause: " + strings.Repeat("y", 100_000) + "\r\nContent-Length: 1\r\n\r\nz", "202 Accepted", "", "z"},
		{"over the limit", post + "Content-Length: " + strconv.Itoa(len(big)) + "\r\n\r\n" + big, "413 Request Entity Too Large", tooLarge, sizeError},
		{"over the limit, chunked", post + "Transfer-Encoding: chunked\r\n\r\n" + strconv.FormatInt(int64(len(big)), 16) + "\r\n" + big + "\r\n0\r\n\r\n", "413 Request Entity Too Large", tooLarge, sizeError},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, cl := apiGuest(t)
			done := start(t, s, direct(`{}`))
			cl.read()
			cl.send(c.request)
			st, _, answer := cl.read()
			if st != c.status || c.answer != "" && answer != c.answer {
				t.Errorf("%s %s", st, answer)
			}
			cl.send(getNext)
			if r := <-done; r.err != nil || r.Body.String() != c.body {
				t.Errorf("%v: %s", r.err, r.Body.String())
			}
		})
	}
}

func TestAPI_RefusesBrokenHTTP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ request, status string }{
		"no version":            {"GET /x\r\n\r\n", "400 Bad Request"},
		"not HTTP":              {"\x16\x03\x01\x02\r\n", "400 Bad Request"},
		"two lengths":           {"POST /2018-06-01/x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400 Bad Request"},
		"negative length":       {"POST /2018-06-01/x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400 Bad Request"},
		"signed length":         {"POST /2018-06-01/x HTTP/1.1\r\nContent-Length: +1\r\n\r\n", "400 Bad Request"},
		"empty length":          {"POST /2018-06-01/x HTTP/1.1\r\nContent-Length:\r\n\r\n", "400 Bad Request"},
		"length and chunked":    {"POST /2018-06-01/x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 Bad Request"},
		"unknown coding":        {"POST /2018-06-01/x HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "400 Bad Request"},
		"folded line":           {"GET /2018-06-01/x HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "400 Bad Request"},
		"a header without end":  {"GET /2018-06-01/x HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 50_000), "431 Request Header Fields Too Large"},
		"a line without an end": {"GET /" + strings.Repeat("x", maxHeader), "431 Request Header Fields Too Large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, c0 := apiGuest(t)
			cl := dialAPI(t, c0.addr)
			go func() { _, _ = io.WriteString(cl.conn, c.request) }()
			line, err := cl.br.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+c.status) {
				t.Errorf("%q %v", line, err)
			}
		})
	}
}

func TestAPI_ClosesWhereTheClientAsks(t *testing.T) {
	t.Parallel()
	s, c := apiGuest(t)
	done := start(t, s, direct(`{}`))
	c.read()
	c2 := dialAPI(t, c.addr)
	if st, _ := c2.do("POST", "runtime/invocation/"+testID+"/response", "1", "Connection: close"); st != "202 Accepted" {
		t.Error(st)
	}
	if _, err := c2.br.ReadByte(); err != io.EOF {
		t.Errorf("the connection stays open: %v", err)
	}
	c3 := dialAPI(t, c.addr)
	c3.send("GET /2018-06-01/runtime/invocation/next HTTP/1.0\r\n\r\n")
	if r := <-done; r.err != nil {
		t.Fatal(r.err)
	}
	done = start(t, s, direct(`{}`))
	c3.read()
	if _, err := c3.br.ReadByte(); err != io.EOF {
		t.Errorf("the connection stays open: %v", err)
	}
	if st, _ := c.do("POST", "runtime/invocation/"+testID+"/response", "1"); st != "202 Accepted" {
		t.Error(st)
	}
	c.send(getNext)
	if r := <-done; r.err != nil {
		t.Fatal(r.err)
	}
}

func TestAPI_AGuestThatAsksAgainElsewhereIsServedThere(t *testing.T) {
	t.Parallel()
	s, c := apiGuest(t)
	c.conn.Close()
	c2 := dialAPI(t, c.addr)
	done := start(t, s, direct(`{}`)) // must not go to the connection that is no more
	c2.send(getNext)
	if st, _, _ := c2.read(); st != "200 OK" {
		t.Fatal(st)
	}
	if st, _ := c2.do("POST", "runtime/invocation/"+testID+"/response", "1"); st != "202 Accepted" {
		t.Error(st)
	}
	c2.send(getNext)
	if r := <-done; r.err != nil {
		t.Error(r.err)
	}
}

func TestAPI_AnAnswerFromElsewhereLeavesAHalfRequestWhole(t *testing.T) {
	t.Parallel()
	s, c := apiGuest(t)
	done := start(t, s, direct(`{}`))
	c.read()
	c.send("POST /2018-06-01/runtime/invocation/" + testID + "/response HTTP/1.1\r\nContent-")
	c2 := dialAPI(t, c.addr)
	if st, _ := c2.do("POST", "runtime/invocation/"+testID+"/response", "1"); st != "202 Accepted" {
		t.Error(st)
	}
	c.send("Length: 1\r\n\r\n2")
	if st, _, _ := c.read(); st != "403 Forbidden" {
		t.Errorf("a second answer: %s", st)
	}
	c.send(getNext)
	if r := <-done; r.err != nil || r.Body.String() != "1" {
		t.Errorf("%q, %v", r.Body.String(), r.err)
	}
	done = start(t, s, direct(`{}`))
	c.read()
	if st, _ := c.do("POST", "runtime/invocation/"+testID+"/response", "3"); st != "202 Accepted" {
		t.Error(st)
	}
	c.send(getNext)
	if r := <-done; r.err != nil || r.Body.String() != "3" {
		t.Errorf("%q, %v", r.Body.String(), r.err)
	}
}

func TestAPI_ALongAnswerStreamsOverTheLentConnection(t *testing.T) {
	t.Parallel()
	s, c := apiGuest(t)
	for range 2 { // the connection is as good afterwards
		done := start(t, s, direct(`{}`))
		c.read()
		c.send("POST /2018-06-01/runtime/invocation/" + testID + "/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" +
			"Lambda-Runtime-Function-Response-Mode: streaming\r\n\r\n3\r\nabc\r\n")
		c.send("3\r\ndef\r\n0\r\n\r\n")
		if st, _, _ := c.read(); st != "202 Accepted" {
			t.Error(st)
		}
		c.send(getNext)
		if r := <-done; r.err != nil || r.Body.String() != "abcdef" {
			t.Fatalf("%q, %v", r.Body.String(), r.err)
		}
	}
}

func TestSession_CloseEndsItsGoroutines(t *testing.T) {
	t.Parallel()
	s, c := apiGuest(t)
	dialAPI(t, c.addr)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.br.ReadByte(); err == nil {
		t.Error("the guest's connection stays open")
	}
	if err := s.Invoke(context.Background(), direct(`{}`), &invocation.Buffer{}); !errors.Is(err, guest.ErrUnseen) {
		t.Errorf("Invoke after Close: %v", err)
	}
}

func FuzzAPI(f *testing.F) {
	f.Add([]byte(getNext))
	f.Add([]byte("POST /2018-06-01/runtime/invocation/" + testID + "/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + getNext))
	f.Add([]byte("POST /2018-06-01/runtime/invocation/" + testID + "/response HTTP/1.1\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n"))
	f.Add([]byte("POST /2018-06-01/runtime/invocation/" + testID + "/error HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"))
	f.Add([]byte("POST /2020-01-01/extension/register HTTP/1.1\r\nLambda-Extension-Name: a\r\nContent-Length: 21\r\n\r\n{\"events\":[\"INVOKE\"]}GET /2020-01-01/extension/event/next HTTP/1.1\r\nLambda-Extension-Identifier: a\r\n\r\n"))
	f.Add([]byte("POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, c := apiGuest(t)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- s.Invoke(ctx, direct(`{}`), &invocation.Buffer{}) }()
		c.read()
		_, _ = c.conn.Write(data)
		_ = c.conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c.br)
		cancel()
		if err := <-done; errors.Is(err, context.DeadlineExceeded) {
			t.Error("Invoke did not end")
		}
		s.Close()
	})
}

func TestAPI_ACallerThatLeavesAfterTheAnswerSpoilsNothing(t *testing.T) {
	t.Parallel()
	s, c := apiGuest(t)
	for range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		sink := &invocation.Buffer{}
		go func() { done <- s.Invoke(ctx, direct(`{}`), sink) }()
		c.read()
		if st, _ := c.do("POST", "runtime/invocation/"+testID+"/response", "1"); st != "202 Accepted" {
			t.Fatal(st)
		}
		cancel()
		if err := <-done; err != nil || sink.Body.String() != "1" {
			t.Fatalf("%v %q", err, sink.Body.String())
		}
		c.send(getNext)
	}
}
