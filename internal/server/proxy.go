package server

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// proxy is the way to the world for functions that share this machine's network, so far as their programs honour the variables that name it: an
// HTTP proxy (RFC 9110, section 9.3.6, and RFC 9112, section 3.2.2) on loopback whose connections are made as those of Sandboxes are.
type proxy struct {
	o      proxyOptions
	roots  *x509.CertPool
	l      net.Listener
	http   *http.Server
	ctx    context.Context // ends with the proxy
	cancel context.CancelFunc
	wait   sync.WaitGroup // for what serves and for tunnels
}

type proxyOptions struct {
	Out     sandbox.Egress
	Known   func(instance, token string) *origin // whose request it is; nil of nobody's
	Roots   []byte                               // PEM, what answers to https:// requests in clear is known by; see serve
	Refused func(*origin, error)
	Log     *slog.Logger
}

// openProxy listens on loopback and serves. The caller closes it.
func openProxy(o proxyOptions) (*proxy, error) {
	p := &proxy{o: o, roots: x509.NewCertPool()}
	p.roots.AppendCertsFromPEM(o.Roots)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	var err error
	if p.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		p.cancel()
		return nil, errs.New(errs.Unavailable, "listen for functions' connections: %w", err)
	}
	p.http = &http.Server{
		Handler: p, ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 64 << 10,
		IdleTimeout: -1, // as at the sink: a guest may have been frozen
		ErrorLog:    slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	p.wait.Go(func() {
		if err := p.http.Serve(p.l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("functions cannot reach the network by ebb's proxy", "error", err)
		}
	})
	return p, nil
}

// Close ends all connections.
func (p *proxy) Close() error {
	p.cancel()
	err := p.http.Close()
	p.wait.Wait()
	return err
}

// URL is what the Instance names the proxy by.
func (p *proxy) URL(instance, token string) string {
	return (&url.URL{Scheme: "http", User: url.UserPassword(instance, token), Host: p.l.Addr().String()}).String()
}

// ServeHTTP tunnels or forwards one request.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	instance, token, ok := proxyAuth(r)
	from := p.o.Known(instance, token)
	switch {
	case !ok || from == nil:
		w.Header().Set("Proxy-Authenticate", `Basic realm="ebb"`)
		http.Error(w, "ebb: this proxy is for functions; its address with their credentials is in HTTPS_PROXY", http.StatusProxyAuthRequired)
	case r.Method == http.MethodConnect:
		p.tunnel(w, r, instance, from)
	case r.URL.IsAbs() && (r.URL.Scheme == "http" || r.URL.Scheme == "https") && r.URL.Host != "":
		p.forward(w, r, instance, from)
	default:
		http.Error(w, "ebb: this is a proxy: it takes CONNECT, and requests with a whole http:// or https:// address", http.StatusBadRequest)
	}
}

// proxyAuth reads credentials of RFC 7617.
func proxyAuth(r *http.Request) (user, password string, ok bool) {
	scheme, value, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(plain), ":")
}

func sameText(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }

// dial connects as a Sandbox's guest would be connected.
func (p *proxy) dial(ctx context.Context, hostPort, instance string, from *origin) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostPort)
	n, numErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numErr != nil || host == "" {
		return nil, errs.New(errs.Invalid, "%q is no host with a port", hostPort)
	}
	return p.o.Out.Dial(ctx, sandbox.Destination{Owner: from.unit, Sandbox: instance, Host: strings.TrimSuffix(host, "."), Port: uint16(n)})
}

// fail answers that there is no connection, and shows a refusal to the function's owner.
func (p *proxy) fail(w http.ResponseWriter, from *origin, err error) {
	status := http.StatusBadGateway
	switch errs.CodeOf(err) {
	case errs.Forbidden:
		status = http.StatusForbidden
		p.o.Refused(from, err)
	case errs.Invalid:
		status = http.StatusBadRequest
	case errs.Throttled:
		status = http.StatusServiceUnavailable
	}
	http.Error(w, "ebb: "+err.Error(), status)
}

// unheard is how long the far end of a tunnel may go on after the near one has said all.
const unheard = 5 * time.Minute

// tunnel connects and copies both ways until both have ended.
func (p *proxy) tunnel(w http.ResponseWriter, r *http.Request, instance string, from *origin) {
	there, err := p.dial(r.Context(), r.Host, instance, from)
	if err != nil {
		p.fail(w, from, err)
		return
	}
	here, early, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = there.Close()
		http.Error(w, "ebb: "+err.Error(), http.StatusInternalServerError)
		return
	}
	_ = here.SetDeadline(time.Time{})
	end := context.AfterFunc(p.ctx, func() { _, _ = here.Close(), there.Close() })
	p.wait.Go(func() {
		defer end()
		defer func() { _, _ = here.Close(), there.Close() }()
		if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			return
		}
		var up sync.WaitGroup
		up.Go(func() {
			pipe(there, early) // what was read with the request's head, then the rest
			// A guest that has ended looks the same from here as one that has only said all.
			_ = there.SetReadDeadline(time.Now().Add(unheard))
		})
		pipe(here, there)
		up.Wait()
	})
}

// pipe copies to the end and tells it on. Where it cannot be told, or nothing is taken any more, the connection ends.
func pipe(to net.Conn, from io.Reader) {
	_, err := io.Copy(to, from)
	half, ok := to.(interface{ CloseWrite() error })
	if err == nil && ok && half.CloseWrite() == nil {
		return
	}
	_ = to.Close()
	if c, ok := from.(net.Conn); ok {
		_ = c.Close()
	}
}

// forward makes one request. An https:// address in clear is what some clients send to a proxy: the proxy speaks TLS for them.
func (p *proxy) forward(w http.ResponseWriter, r *http.Request, instance string, from *origin) {
	t := &http.Transport{ // for this request alone: connections are made for one Instance
		DialContext:     func(ctx context.Context, _, addr string) (net.Conn, error) { return p.dial(ctx, addr, instance, from) },
		TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true, DisableCompression: true,
	}
	defer t.CloseIdleConnections()
	(&httputil.ReverseProxy{
		Transport: t, FlushInterval: -1, ErrorLog: p.http.ErrorLog,
		Rewrite: func(pr *httputil.ProxyRequest) {
			to := *pr.In.URL
			pr.Out.URL, pr.Out.Host = &to, pr.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { p.fail(w, from, err) },
	}).ServeHTTP(w, r)
}
