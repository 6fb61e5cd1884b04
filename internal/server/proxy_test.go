package server

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// dialer is an Egress that connects to one address, whatever is asked for, and notes that.
type dialer struct {
	to string
	mu struct {
		sync.Mutex
		asked   []sandbox.Destination
		refused []error
	}
}

func (d *dialer) Dial(ctx context.Context, to sandbox.Destination) (net.Conn, error) {
	d.mu.Lock()
	d.mu.asked = append(d.mu.asked, to)
	d.mu.Unlock()
	switch to.Host {
	case "closed.example":
		return nil, errs.New(errs.Forbidden, "connection to closed.example is not allowed")
	case "missing.example":
		return nil, errs.New(errs.NotFound, "no such name")
	case "busy.example":
		return nil, errs.New(errs.Throttled, "64 are open")
	}
	var n net.Dialer
	return n.DialContext(ctx, "tcp", d.to)
}
func (d *dialer) Resolves(sandbox.Destination) bool                 { return true }
func (d *dialer) Missing(context.Context, sandbox.Destination) bool { return false }
func (d *dialer) Declared(string) []sandbox.Destination             { return nil }

func testProxy(t *testing.T, d *dialer, roots []byte) (*proxy, *url.URL) {
	t.Helper()
	from := &origin{unit: "default/app/dev/f", function: "f"}
	p, err := openProxy(proxyOptions{Out: d, Roots: roots, Log: slog.New(slog.DiscardHandler),
		Known: func(instance, token string) *origin {
			if instance == "one" && token == "secret" {
				return from
			}
			return nil
		},
		Refused: func(_ *origin, err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.mu.refused = append(d.mu.refused, err)
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	at, err := url.Parse(p.URL("one", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	return p, at
}

// connect asks for a tunnel, and gives it with what the proxy said.
func connect(t *testing.T, at *url.URL, to, early string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	c, err := net.Dial("tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	r := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to}, Host: to, Header: http.Header{}}
	basic := &http.Request{Header: http.Header{}}
	password, _ := at.User.Password()
	basic.SetBasicAuth(at.User.Username(), password)
	r.Header.Set("Proxy-Authorization", basic.Header.Get("Authorization"))
	var head strings.Builder
	if err := r.Write(&head); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, head.String()+early); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, r)
	if err != nil {
		t.Fatal(err)
	}
	return c, in, resp
}

func TestProxy_TunnelsBothWaysToTheirEnds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				all, _ := io.ReadAll(c) // to the end that the other side says
				fmt.Fprintf(c, "%d:%s", len(all), all[:min(len(all), 20)])
				_ = c.Close()
			}()
		}
	}()
	d := &dialer{to: l.Addr().String()}
	p, at := testProxy(t, d, nil)
	c, in, resp := connect(t, at, "Peer.example.:9000", "early ")
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	if _, err := io.WriteString(c, "late"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(in); err != nil || string(got) != "10:early late" {
		t.Errorf("%q, %v", got, err)
	}
	if want := (sandbox.Destination{Owner: "default/app/dev/f", Sandbox: "one", Host: "Peer.example", Port: 9000}); len(d.mu.asked) != 1 || d.mu.asked[0] != want {
		t.Errorf("asked for %+v", d.mu.asked)
	}
	// One that is open ends with the proxy.
	_, in, _ = connect(t, at, "peer.example:1", "")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("a tunnel outlives the proxy")
	}
}

func TestProxy_SaysWhyThereIsNoConnection(t *testing.T) {
	t.Parallel()
	d := &dialer{}
	_, at := testProxy(t, d, nil)
	for to, want := range map[string]int{"closed.example:443": 403, "missing.example:443": 502, "busy.example:443": 503, "nothing": 400, "host:99999": 400, ":443": 400} {
		if _, _, resp := connect(t, at, to, ""); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", to, resp.Status, want)
		}
	}
	if len(d.mu.refused) != 1 || !strings.Contains(d.mu.refused[0].Error(), "closed.example") {
		t.Errorf("told of %v", d.mu.refused)
	}
	other := *at
	other.User = url.UserPassword("one", "wrong")
	if _, _, resp := connect(t, &other, "peer.example:443", ""); resp.StatusCode != 407 || resp.Header.Get("Proxy-Authenticate") == "" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	resp, err := http.Get("http://" + at.Host + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 407 {
		t.Errorf("a request that is for no proxy: %s", resp.Status)
	}
}

// Some clients send requests with https:// addresses to a proxy in clear.
func TestProxy_ForwardsRequestsAsTheyAre(t *testing.T) {
	t.Parallel()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s %s %s auth=%q %v", r.Method, r.Host, r.URL.RequestURI(), body, r.Header.Get("Proxy-Authorization"), r.TLS != nil)
	})
	for scheme, start := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		s := start(answer)
		t.Cleanup(s.Close)
		var roots []byte
		if c := s.Certificate(); c != nil {
			roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		}
		_, at := testProxy(t, &dialer{to: s.Listener.Addr().String()}, roots)
		c, err := net.Dial("tcp", at.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		for range 2 { // the connection goes on
			if _, err := io.WriteString(c, "POST "+scheme+"://example.com/a%2Fb?q=1;2 HTTP/1.1\r\nHost: example.com\r\nProxy-Authorization: Basic b25lOnNlY3JldA==\r\nContent-Length: 4\r\n\r\nbody"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if want := fmt.Sprintf(`POST example.com /a%%2Fb?q=1;2 body auth="" %v`, scheme == "https"); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v, want %q", scheme, got, err, want)
			}
		}
	}
}

func TestProxy_CloseIsIdempotent(t *testing.T) {
	t.Parallel()
	p, _ := testProxy(t, &dialer{}, nil)
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
}
