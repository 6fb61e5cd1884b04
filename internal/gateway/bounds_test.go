package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// holds waits until bodies of that many bytes are held.
func holds(t *testing.T, s *server, n int64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); s.bodies.Load() != n; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are held, want %d", s.bodies.Load(), n)
		}
	}
}

// noLength hides what a body is, so that it is sent in chunks.
type noLength struct{ io.Reader }

func TestGateway_HoldsNoMoreBodiesThanItsBudget(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		app  *app.App
		want string
	}{
		"rest": {shop(app.REST, "dev", "ANY /x"), `503 {"message":"Service Unavailable"} ServiceUnavailableException`},
		"http": {shop(app.HTTP, "$default", "ANY /x"), `503 {"message":"Service Unavailable"} `},
		"url":  {withURL(app.URL{Auth: "none"}), `503 {"Message":"Service Unavailable"} `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			goOn := make(chan struct{})
			inv := invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
				<-goOn
				return text(s, "done")
			})
			s := start(t, Options{Invoker: inv, MaxBody: 1 << 20, BodyBudget: 2 << 20}, Mount{App: row.app})
			answers := make(chan int, 2)
			for range 2 {
				go func() {
					status, _, _ := send(t, s, "POST", "/x", bytes.NewReader(make([]byte, 1_000_000)))
					answers <- status
				}()
			}
			holds(t, s, 2_000_000)
			for kind, body := range map[string]io.Reader{
				"known": bytes.NewReader(make([]byte, 100_000)), "chunked": noLength{bytes.NewReader(make([]byte, 100_000))},
			} {
				status, text, h := send(t, s, "POST", "/x", body)
				if got := fmt.Sprint(status, " ", text, " ", h.Get("X-Amzn-Errortype")); got != row.want || h.Get("Retry-After") != "1" {
					t.Errorf("%s: %s, Retry-After %q", kind, got, h.Get("Retry-After"))
				}
			}
			holds(t, s, 2_000_000)
			close(goOn)
			for range 2 {
				if status := within(t, answers, "the answer"); status != 200 {
					t.Errorf("status %d of a body within the budget", status)
				}
			}
			holds(t, s, 0)
			if status, _, _ := send(t, s, "POST", "/x", bytes.NewReader(make([]byte, 1_000_000))); status != 200 {
				t.Errorf("status %d afterwards", status)
			}
		})
	}
}

func TestGateway_AnswersWhatHasNoRoomWhenItIsSentWhole(t *testing.T) {
	t.Parallel()
	s := start(t, Options{}, Mount{App: shop(app.HTTP, "$default", "ANY /x")})
	s.bodies.Store(s.budget)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(c)
	for range 2 { // and the connection goes on
		const size = 8 << 20
		if _, err := fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || resp.Close {
			t.Errorf("status %d, Retry-After %q, close %v", resp.StatusCode, resp.Header.Get("Retry-After"), resp.Close)
		}
	}
}

func TestGateway_GivesNoMemoryForWhatIsOnlyAnnounced(t *testing.T) {
	t.Parallel()
	s := start(t, Options{MaxBody: 1 << 20, BodyBudget: 2 << 20}, Mount{App: shop(app.HTTP, "$default", "ANY /x")})
	const silent = 10
	var conns []net.Conn
	for range silent {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if _, err := io.WriteString(c, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nhalf"); err != nil {
			t.Fatal(err)
		}
	}
	holds(t, s, silent*smallBody)
	if status, body, _ := send(t, s, "POST", "/x", bytes.NewReader(make([]byte, 1_000_000))); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	for _, c := range conns {
		c.Close()
	}
	holds(t, s, 0)
}

func TestGateway_TakesBodiesOfEachSizeWhole(t *testing.T) {
	t.Parallel()
	inv := invokerFunc(func(_ context.Context, inv *invocation.Invocation, s invocation.Sink) error {
		b, err := io.ReadAll(inv.Payload.(*invocation.Request).Body)
		if err != nil {
			return err
		}
		if i := bytes.IndexFunc(b, func(r rune) bool { return r != 'x' }); i >= 0 {
			return text(s, fmt.Sprintf("%d differs", i))
		}
		return text(s, fmt.Sprint(len(b)))
	})
	s := start(t, Options{Invoker: inv, MaxBody: 1 << 20}, Mount{App: shop(app.HTTP, "$default", "ANY /x")})
	for _, n := range []int{1, firstGuess, firstGuess + 1, smallBody - 1, smallBody, smallBody + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1} {
		want := fmt.Sprint("200 ", n)
		if n > 1<<20 {
			want = `413 {"message":"Request Entity Too Large"}`
		}
		for kind, body := range map[string]io.Reader{"known": strings.NewReader(strings.Repeat("x", n)), "chunked": noLength{strings.NewReader(strings.Repeat("x", n))}} {
			status, text, _ := send(t, s, "POST", "/x", body)
			if got := fmt.Sprint(status, " ", text); got != want {
				t.Errorf("%s %d: %s", kind, n, got)
			}
		}
	}
	holds(t, s, 0)
}

func TestGateway_LetsGoOfAClientThatReadsNoSmallAnswers(t *testing.T) {
	t.Parallel()
	inv := invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
		return text(s, strings.Repeat("x", small))
	})
	hasty := func(g *Gateway) { g.idle = 100 * time.Millisecond }
	s := startWith(t, Options{Invoker: inv}, hasty, Mount{App: shop(app.HTTP, "$default", "GET /x")})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	requests := []byte(strings.Repeat("GET /x HTTP/1.1\r\nHost: x\r\n\r\n", 1000))
	for err == nil {
		_, err = c.Write(requests)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection was held")
	}
}

func TestGateway_LetsGoOfAnHTTP2StreamThatTakesNothing(t *testing.T) {
	t.Parallel()
	hasty := func(g *Gateway) { g.idle = 100 * time.Millisecond }
	s := startWith(t, Options{Invoker: fail(errs.New(errs.Unavailable, "no"))}, hasty, Mount{App: shop(app.HTTP, "$default", "GET /x")},
		Mount{App: func() *app.App { a := shop(app.HTTP, "$default", "GET /x"); a.Name = "other"; return a }()})
	for name, head := range map[string]string{
		// RFC 7541: :method GET, :scheme http, :path /x, :authority
		"refused by the invoker": "\x82\x86\x04\x02/x\x41\x12shop.dev.localhost",
		"no such host":           "\x82\x86\x04\x02/x\x41\x01x",
	} {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		frame := func(kind, flags byte, stream uint32, payload string) string {
			h := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))[1:]
			return string(binary.BigEndian.AppendUint32(append(h, kind, flags), stream)) + payload
		}
		// SETTINGS_INITIAL_WINDOW_SIZE 0, then a request that ends its stream and its header.
		if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+frame(4, 0, 0, "\x00\x04\x00\x00\x00\x00")+frame(1, 5, 1, head)); err != nil {
			t.Fatal(err)
		}
		for {
			var h [9]byte
			if _, err := io.ReadFull(c, h[:]); err != nil {
				t.Errorf("%s: the stream was held: %v", name, err)
				break
			}
			if _, err := io.CopyN(io.Discard, c, int64(h[0])<<16|int64(h[1])<<8|int64(h[2])); err != nil {
				t.Fatal(err)
			}
			if h[3] == 3 { // RST_STREAM
				break
			}
		}
	}
}

func TestGateway_GivesAHostThatTwoAppsShareToNobody(t *testing.T) {
	t.Parallel()
	mount := func(name, stage, f string) Mount {
		a := shop(app.HTTP, "$default", "GET /x="+f)
		a.Name, a.Stage, a.Functions[0].URL = name, stage, &app.URL{Auth: "NONE"}
		return Mount{App: a}
	}
	s := start(t, Options{}, mount("shop", "eu-prod", "f"), mount("shop-eu", "prod", "g"), mount("a.b", "c", "f"), mount("a", "b-c", "g"))
	const nobody = `404 {"message":"No app is served at this host.","hosts":["a.b-c.localhost","a.b.c.localhost",` +
		`"shop-eu.prod.localhost","shop.eu-prod.localhost"]}`
	for name, row := range map[string]struct{ host, want string }{
		"first dotted":            {"shop.eu-prod.localhost", "200 shop-dev-f /x /x[]"},
		"second dotted":           {"shop-eu.prod.localhost", "200 shop-dev-g /x /x[]"},
		"shared":                  {"shop-eu-prod.localhost", nobody},
		"function of shared":      {"f.url.shop-eu-prod.localhost", nobody},
		"short is another's name": {"a.b-c.localhost", "200 shop-dev-g /x /x[]"},
		"short of one alone":      {"a-b-c.localhost", "200 shop-dev-g /x /x[]"},
	} {
		status, body, _ := ask(t, s, "GET", "/x", "Host", row.host)
		if got := fmt.Sprint(status, " ", body); got != row.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	s.Unmount("default", "shop-eu", "prod")
	if status, body, _ := ask(t, s, "GET", "/x", "Host", "shop-eu-prod.localhost"); status != 200 || body != "shop-dev-f /x /x[]" {
		t.Errorf("the other one is gone: %d %s", status, body)
	}
}

// advice says when to try again.
type advice time.Duration

func (a advice) Error() string             { return "later" }
func (a advice) RetryAfter() time.Duration { return time.Duration(a) }

func TestGateway_PassesOnWhenToTryAgain(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"throttled":   {errs.New(errs.Throttled, "full: %w", advice(7*time.Second)), "429 7"},
		"wrapped":     {fmt.Errorf("invoke f: %w", errs.New(errs.Throttled, "full: %w", advice(7*time.Second))), "429 7"},
		"rounded up":  {errs.New(errs.Throttled, "full: %w", advice(1500*time.Millisecond)), "429 2"},
		"at least 1":  {errs.New(errs.Throttled, "full: %w", advice(0)), "429 1"},
		"none":        {errs.New(errs.Throttled, "full"), "429 1"},
		"unavailable": {errs.New(errs.Unavailable, "full: %w", advice(9*time.Second)), "503 9"},
	} {
		s := start(t, Options{Invoker: fail(row.err)}, Mount{App: shop(app.HTTP, "$default", "GET /x")})
		status, _, h := ask(t, s, "GET", "/x")
		if got := fmt.Sprint(status, " ", h.Get("Retry-After")); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}
