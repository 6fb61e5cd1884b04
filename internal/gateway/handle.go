package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// maxTarget is the longest request target in bytes. AWS counts it with the header, 10,240 bytes together, and its front
// refuses more than this: CloudFront quotas, "Maximum length of a URL".
const maxTarget = 8192

// visit is one request on its way.
type visit struct {
	g      *Gateway
	w      http.ResponseWriter
	r      *http.Request
	came   time.Time
	id     string
	path   string // raw
	query  string
	head   string // as the client wrote it, or empty
	m      match
	site   *site
	status int
	bytes  int64
	values [4]string // of the answer's header

	// In one piece with the visit, for fewer allocations; the Invocation may outlive the visit.
	inv   invocation.Invocation
	req   invocation.Request
	route invocation.Route // with this request's Params
	sink  sink
	leash leash
	held  held // by the body, until the Invocation ends
}

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{g: g, w: w, r: r, came: time.Now(), id: g.newID(), head: takeHead(r)}
	if g.draining.Load() {
		w.Header()["Connection"] = []string{"close"}
	}
	if g.access != nil {
		defer v.report()
	}
	v.path, v.query = target(r)
	hosts := g.hosts.Load()
	site, url := hosts.find(r.Host)
	if site == nil {
		v.noSite(hosts)
		return
	}
	v.site = site
	if url != nil {
		v.m = url.own(v.path)
	} else {
		v.m = site.match(r.Method, v.path)
	}
	kind := app.HTTP
	if v.m.front != nil {
		kind = v.m.front.kind
	}
	identify(w.Header(), kind, v.id, &v.values)
	if len(r.RequestURI) > maxTarget {
		v.refuse(message(http.StatusRequestURITooLong, "URI Too Long"))
		return
	}
	if isPreflight(r) && v.preflight(url) {
		return
	}
	v.serve(kind)
}

// limitWrites gives an answer that is written in one piece its time where the connection does not do so itself: under TLS,
// and in HTTP/2, where a client can refuse the bytes of one stream.
func (v *visit) limitWrites() {
	if _, ok := v.r.Context().Value(connKey{}).(*headConn); ok && v.r.ProtoMajor == 1 {
		return
	}
	_ = http.NewResponseController(v.w).SetWriteDeadline(time.Now().Add(v.g.idle)) // not every ResponseWriter has deadlines
}

func (v *visit) report() {
	a := Access{Time: v.came, Method: v.r.Method, Path: v.path, Status: v.status, Bytes: v.bytes, Duration: time.Since(v.came), RequestID: v.id}
	if v.site != nil {
		a.Tenant, a.App, a.Stage = v.site.tenant, v.site.app, v.site.stage
	}
	if v.m.route != nil {
		a.Function, a.Route = v.m.route.function, v.m.route.label
	}
	v.g.access(a)
}

// target splits what the client asked for, as it wrote it.
func target(r *http.Request) (path, query string) {
	uri := r.RequestURI
	if !strings.HasPrefix(uri, "/") { // "*", an absolute form, or a request that came by no connection
		uri = r.URL.EscapedPath()
		if r.URL.RawQuery != "" {
			uri += "?" + r.URL.RawQuery
		}
		if !strings.HasPrefix(uri, "/") {
			uri = "/" + strings.TrimPrefix(uri, "*")
		}
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, query
}

func (v *visit) refuse(f refusal) {
	kind := app.HTTP
	if v.m.front != nil {
		kind = v.m.front.kind
	}
	if v.m.front != nil && v.m.front.cors != nil {
		v.m.front.cors.decorate(v.w.Header(), v.r.Header.Get("Origin"))
	}
	v.limitWrites()
	v.status, v.bytes = f.status, f.write(v.w, kind)
}

// noSite answers for a Host that is nobody's with the Hosts that are somebody's.
func (v *visit) noSite(h *hosts) {
	names := h.printed()
	text := "No app is served at this host."
	if len(names) == 0 {
		text = "No app is deployed."
	}
	b, err := json.Marshal(struct {
		Message string   `json:"message"`
		Hosts   []string `json:"hosts"`
	}{text, names})
	if err != nil {
		b = []byte(`{}`)
	}
	v.refuse(refusal{status: http.StatusNotFound, body: string(b)})
}

// preflight answers for the front that would serve the real request, if it has CORS.
func (v *visit) preflight(url *front) bool {
	m := v.m
	if url == nil {
		if real := v.site.match(v.r.Header.Get("Access-Control-Request-Method"), v.path); real.route != nil {
			m = real
		}
	}
	if m.route == nil {
		for _, f := range v.site.fronts {
			if f.cors != nil {
				m.front = f
				break
			}
		}
	}
	if m.front == nil || m.front.cors == nil || v.m.route != nil && v.m.front != m.front {
		return false
	}
	v.limitWrites()
	m.front.cors.preflight(v.w.Header(), v.r.Header.Get("Origin"))
	v.w.WriteHeader(http.StatusNoContent)
	v.m, v.status = match{front: m.front}, http.StatusNoContent
	return true
}

// serve answers a request whose match is known.
func (v *visit) serve(kind app.APIKind) {
	r := v.m.route
	switch {
	case r == nil:
		v.refuse(notFound(kind))
	case r.inactive != "":
		v.refuse(message(http.StatusNotImplemented, r.inactive))
	case r.preflit != nil:
		v.limitWrites()
		restPreflight(v.w.Header(), r.preflit, v.r.Header.Get("Origin"))
		v.w.Header()["Content-Length"] = []string{"0"}
		v.w.WriteHeader(http.StatusOK)
		v.status = http.StatusOK
	case r.mock != nil:
		v.mock(r.mock)
	default:
		body, err := v.readBody()
		if err != nil {
			v.refuseBody(kind, err)
			return
		}
		v.invoke(kind, body)
	}
}

func (v *visit) mock(m *app.Mock) {
	v.limitWrites()
	h := v.w.Header()
	h["Content-Type"] = []string{"application/json"}
	for name, value := range m.Header {
		h.Set(name, value)
	}
	v.status = m.Status
	if v.status < 200 || v.status > 599 {
		v.status = http.StatusOK
	}
	v.w.WriteHeader(v.status)
	if v.status != http.StatusNoContent && v.status != http.StatusNotModified {
		n, _ := io.WriteString(v.w, m.Body) // the client may be gone, which changes nothing here
		v.bytes = int64(n)
	}
}

// invoke runs the function and answers with what it gives.
func (v *visit) invoke(kind app.APIKind, body *bytes.Buffer) {
	g, rt := v.g, v.m.route
	inv, s := &v.inv, &v.sink
	*inv = invocation.Invocation{ID: v.id, Tenant: v.site.tenant, Function: rt.function, Mode: invocation.ModeRequest, Attempt: 1,
		Received: v.came, Trace: trace(v.r.Header)}
	if rt.custom {
		raw, f := passthrough(body)
		if raw == nil {
			v.held.release()
			v.refuse(f)
			return
		}
		inv.Payload = raw
	} else {
		inv.Payload = v.request(body)
	}
	s.w, s.cors, s.head, s.stream, s.idle, s.signal = v.w, v.m.front.cors, v.r.Method == http.MethodHead, rt.stream, g.idle, make(chan struct{}, 1)
	if s.cors != nil {
		s.origin = v.r.Header.Get("Origin")
	}
	g.leashes.add(&v.leash)
	g.running.Add(1)
	go func() {
		defer g.running.Done()
		deepen(0)
		err := g.run(&v.leash, inv, s)
		v.held.release()
		v.leash.release()
		s.end(err)
	}()
	v.await(kind)
}

// deepen grows the stack of a new goroutine at once to what an Invocation takes, while there is nothing on it. Left to itself it
// doubles three times, each time copied with all that is on it.
//
//go:noinline
func deepen(i int) byte {
	var room [10 << 10]byte
	return room[i]
}

// run invokes. A panic ends the Invocation, as net/http lets one end a request, and not the process.
func (g *Gateway) run(ctx context.Context, inv *invocation.Invocation, s *sink) (err error) {
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("panic in an invocation", "request", inv.ID, "function", inv.Function, "panic", p, "stack", string(debug.Stack()))
			err = errs.New(errs.Internal, "the invocation panicked")
		}
	}()
	return g.invoker.Invoke(ctx, inv, s)
}

// await waits for the first of: the answer, the end of the Invocation, the client's leaving, the integration timeout.
func (v *visit) await(kind app.APIKind) {
	s := &v.sink
	var late <-chan time.Time
	if d := v.m.route.timeout; d > 0 {
		timer, ok := v.g.timers.Get().(*time.Timer)
		if ok {
			timer.Reset(d)
		} else {
			timer = time.NewTimer(d)
		}
		defer func() {
			timer.Stop()
			v.g.timers.Put(timer)
		}()
		late = timer.C
	}
	gone := v.r.Context().Done()
	for {
		select {
		case <-s.signal:
			if whole, over, err := s.state(); whole {
				v.limitWrites()
				v.status, v.bytes = s.send()
				return
			} else if over {
				v.ended(kind, err)
				return
			}
		case <-gone:
			v.leash.End(context.Canceled)
			s.leave()
			if s.detach() {
				v.status = statusGone
				return
			}
			gone = nil // the answer is under way: its writes will fail
		case <-late:
			late = nil
			if s.detach() {
				v.refuse(timedOut(kind))
				return
			}
		}
	}
}

// ended answers when the Invocation is over without a whole answer.
func (v *visit) ended(kind app.APIKind, err error) {
	s := &v.sink
	if err == nil {
		err = errs.New(errs.Internal, "the invocation ended without a whole answer")
	}
	s.release()
	log := v.g.log.With("request", v.id, "function", v.m.route.function)
	if s.stream && s.mu.started {
		log.Warn("answer broken off", "error", err)
		v.status, v.bytes = s.mu.head.Status, s.mu.sent
		panic(http.ErrAbortHandler) // the only way to end a connection whose answer has begun
	}
	if v.r.Context().Err() != nil {
		v.status = statusGone
		return
	}
	f := refuse(kind, err)
	if f.status == http.StatusInternalServerError {
		log.Error("invoke", "error", err)
	} else {
		log.Debug("invoke", "error", err)
	}
	v.refuse(f)
}

// request is what the function gets.
func (v *visit) request(body *bytes.Buffer) *invocation.Request {
	r, rt := v.r, v.m.route
	route := &rt.route
	if len(v.m.params) > 0 {
		v.route = rt.route
		v.route.Params = v.m.params
		route = &v.route
	}
	q := &v.req
	*q = invocation.Request{Method: r.Method, Scheme: "http", Proto: r.Proto, Host: r.Host, Path: v.m.path, FullPath: v.path, Query: v.query,
		Header: header(r, v.head), Body: body, ContentLength: int64(body.Len()), RemoteIP: r.RemoteAddr, Route: route}
	if r.TLS != nil {
		q.Scheme = "https"
	}
	if ip, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		q.RemoteIP = ip
	}
	return q
}

// passthrough is the payload of a non-proxy integration without templates: the body as it is, {} where there is none.
func passthrough(body *bytes.Buffer) (invocation.Raw, refusal) {
	if body.Len() == 0 {
		return invocation.Raw("{}"), refusal{}
	}
	if !json.Valid(body.Bytes()) {
		f := message(http.StatusBadRequest, "Could not parse request body into json")
		f.typ = "BadRequestException"
		return nil, f
	}
	return invocation.Raw(body.Bytes()), refusal{}
}

// trace returns a W3C traceparent of version 00, or "".
func trace(h http.Header) string {
	t := h.Get("Traceparent")
	if len(t) != 55 || t[:3] != "00-" || t[35] != '-' || t[52] != '-' {
		return ""
	}
	for i := range len(t) {
		if c := t[i]; i != 2 && i != 35 && i != 52 && (unhex(c) < 0 || c >= 'A' && c <= 'F') {
			return ""
		}
	}
	if t[3:35] == strings.Repeat("0", 32) || t[36:52] == strings.Repeat("0", 16) {
		return ""
	}
	return t
}
