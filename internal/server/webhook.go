package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

const (
	// postWait bounds one POST: SNS developer guide, "HTTP/S delivery": an endpoint has 15 seconds.
	postWait = 15 * time.Second
	// maxAnswer is how much of an endpoint's answer is read, so that its connection can be used again.
	maxAnswer = 64 << 10
)

// webhooks are the clients of endpoints, one for each Stack: a connection serves nobody but whom it was allowed to.
type webhooks struct {
	mu struct {
		sync.Mutex
		clients map[string]*http.Client // by owner
	}
}

// client gives an owner's, which connects by the rules of egress and follows no redirect.
func (w *webhooks) client(s *Server, owner string) *http.Client {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.mu.clients[owner]; c != nil {
		return c
	}
	c := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			MaxIdleConns: 32, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: postWait, ForceAttemptHTTP2: true,
			MaxResponseHeaderBytes: maxAnswer,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				host, port, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				n, err := strconv.ParseUint(port, 10, 16)
				if err != nil {
					return nil, err
				}
				return s.egress.Dial(ctx, sandbox.Destination{Owner: owner, Host: host, Port: uint16(n)})
			},
		},
	}
	if w.mu.clients == nil {
		w.mu.clients = map[string]*http.Client{}
	}
	w.mu.clients[owner] = c
	return c
}

// forget closes an owner's.
func (w *webhooks) forget(owner string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.mu.clients[owner]; c != nil {
		c.CloseIdleConnections()
		delete(w.mu.clients, owner)
	}
}

// close closes all.
func (w *webhooks) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.mu.clients {
		c.CloseIdleConnections()
	}
	w.mu.clients = nil
	return nil
}

// endpointURL reads the URL of an endpoint of a protocol.
func endpointURL(protocol, text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errs.New(errs.Invalid, "its endpoint is no URL")
	case u.Scheme != protocol || u.Host == "" || u.Hostname() == "":
		return errs.New(errs.Invalid, "its endpoint %s is no %s:// URL with a host", u.Redacted(), protocol)
	}
	return nil
}

// redacted is a URL without its password.
func redacted(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "an endpoint"
	}
	return u.Redacted()
}

// post posts a publication to an endpoint. What the endpoint does not take at all, a status from 300 to 499 but 429, is refused and not tried again;
// anything else that is no success counts as an attempt.
func (d deliverer) post(ctx context.Context, t *target, v *bus.Delivery) error {
	body, err := d.s.text(t, v)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, postWait, errs.New(errs.Failed, "no answer within %v", postWait))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.Endpoint, bytes.NewReader(body))
	if err != nil {
		return errs.New(errs.Invalid, "its endpoint is no URL")
	}
	t.head(req.Header, v)
	if t.Via == invocation.ViaTopic {
		b, err := t.batch(v)
		if err != nil {
			return err
		}
		for name, value := range d.s.protocol.NoticeHeader(t.unit(), b, t.Bare) {
			req.Header.Set(name, value)
		}
	}
	if t.ContentType != "" {
		req.Header.Set("Content-Type", t.ContentType)
	}
	resp, err := d.s.webhooks.client(d.s, t.Owner).Do(req)
	if err != nil {
		return notPosted(ctx, err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // the status is the answer
	switch c := resp.StatusCode; {
	case c >= 200 && c < 300:
		return nil
	case c == http.StatusTooManyRequests || c < 300 || c >= 500:
		return errs.New(errs.Failed, "%s answered %s", redacted(t.Endpoint), resp.Status)
	}
	return errs.New(errs.Invalid, "%s answered %s", redacted(t.Endpoint), resp.Status)
}

// notPosted gives the error of a POST without an answer: what egress forbids stays forbidden, anything else counts as an attempt.
func notPosted(ctx context.Context, err error) error {
	if errs.CodeOf(err) == errs.Forbidden {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = cause
	}
	return errs.New(errs.Failed, "%w", err)
}
