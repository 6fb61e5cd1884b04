package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/invocation"
)

// Limits of what a caller may send.
const (
	maxManifest = 64 << 20
	maxDeploy   = 32 << 20
	maxBlob     = 1 << 30
	maxMessage  = 2 << 10
)

// Server serves the control API at one door.
type Server struct {
	backend      Backend
	authenticate func(r *http.Request) (identity.Principal, error)
	local        bool // reached from this machine only
	log          *slog.Logger
	mux          *http.ServeMux
	intake       *Intake
}

// NewServer returns the handler for callers of this machine: the Node's token opens it, and only a Host of this machine is right.
func NewServer(b Backend, t identity.Token, log *slog.Logger) *Server {
	s := &Server{backend: b, log: log, local: true}
	s.authenticate = func(r *http.Request) (identity.Principal, error) { return byToken(t, r) }
	s.open()
	return s
}

// NewRemote returns the handler for callers from elsewhere, which is served over TLS only: keys open it.
func NewRemote(b Backend, k Keyring, log *slog.Logger) *Server {
	s := &Server{backend: b, log: log}
	s.authenticate = k.Authenticate
	s.open()
	return s
}

func (s *Server) open() {
	s.mux = http.NewServeMux()
	s.intake = NewIntake(MaxAsyncPayload)
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	s.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.backend.Ready(); err != nil {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	for _, r := range s.routes() {
		s.mux.Handle(r.pattern, s.guard(r.operation, r.handle))
	}
	s.mux.Handle("/", s.guard("", notFound))
}

func notFound(_ http.ResponseWriter, r *http.Request) error {
	return errs.New(errs.NotFound, "the control API has no %s %s", r.Method, r.URL.Path)
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if s.local && !localHost(r.Host) || r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		err := errs.New(errs.Forbidden, "this call comes from a browser or names a foreign host")
		s.refused(r, identity.Principal{}, err)
		s.fail(w, r, err)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// localHost says whether a Host header names this machine itself: what a rebound DNS name cannot do.
func localHost(host string) bool {
	h, _, err := net.SplitHostPort(host)
	if err != nil {
		h = strings.Trim(host, "[]")
	}
	if h == "localhost" {
		return true
	}
	ip := net.ParseIP(h)
	return ip != nil && ip.IsLoopback()
}

// guard lets in who may do the operation. Without one anybody may whose token or key is right.
func (s *Server) guard(op identity.Operation, h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := s.authenticate(r)
		if err == nil && op != "" {
			err = p.May(op)
		}
		if err != nil {
			s.refused(r, p, err)
			s.fail(w, r, err)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, p))
		if !s.local && r.Body != nil && r.Body != http.NoBody {
			r.Body = &pacedBody{ReadCloser: r.Body, control: http.NewResponseController(w)}
		}
		answer := &answer{ResponseWriter: w}
		err = h(answer, r)
		switch {
		case err == nil:
		case answer.begun:
			if r.Context().Err() == nil {
				s.log.Error("control API answer broke off", "method", r.Method, "path", r.URL.Path, "error", err)
			}
			panic(http.ErrAbortHandler) // cuts the connection
		default:
			if errs.CodeOf(err) == errs.Forbidden {
				s.refused(r, p, err)
			}
			s.fail(w, r, err)
		}
	})
}

// answer knows whether a part of the answer is out already.
type answer struct {
	http.ResponseWriter
	begun bool
}

func (a *answer) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// FlushError is how a ResponseController flushes.
func (a *answer) FlushError() error {
	a.begun = true
	return http.NewResponseController(a.ResponseWriter).Flush()
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		err = errs.New(errs.TooLarge, "the body is over the limit of %d bytes", tooBig.Limit)
	}
	we := s.wired(r, err)
	status := statusOf[we.Code]
	if status == 0 {
		status = 500
	}
	var advice interface{ RetryAfter() time.Duration }
	if status == http.StatusTooManyRequests && errors.As(err, &advice) {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int((advice.RetryAfter()+time.Second-1)/time.Second))))
	}
	writeJSON(w, status, map[string]wireError{"error": *we})
}

// wired is an error as a caller gets it: what is internal goes to the log alone.
func (s *Server) wired(r *http.Request, err error) *wireError {
	we := &wireError{Code: errs.CodeOf(err), Message: err.Error(), Hint: errs.HintOf(err)}
	if we.Code == errs.Internal {
		s.log.Error("control API call failed", "method", r.Method, "path", r.URL.Path, "error", err)
		we.Message = "an internal fault; the server's log has the details"
	}
	return we
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return errs.New(errs.Invalid, "read body: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errs.New(errs.Invalid, "read body: more follows the JSON document")
	}
	return nil
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) error {
	info := s.backend.Info()
	if p := caller(r); p.Key != "" {
		info.Caller = &Caller{Key: p.Key, Name: p.Name, Role: string(p.Role), App: p.App}
	}
	writeJSON(w, 200, info)
	return nil
}

func (s *Server) missing(w http.ResponseWriter, r *http.Request) error {
	var m artifact.Manifest
	if err := readJSON(w, r, maxManifest, &m); err != nil {
		return err
	}
	list, err := s.backend.Missing(&m)
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string][]string{"missing": list})
	return nil
}

func (s *Server) putBlob(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength < 0 || r.ContentLength > maxBlob {
		return errs.New(errs.TooLarge, "a blob needs a Content-Length of at most %d bytes", maxBlob)
	}
	if err := s.backend.PutBlob(r.PathValue("sha"), r.ContentLength, r.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) putManifest(w http.ResponseWriter, r *http.Request) error {
	var m artifact.Manifest
	if err := readJSON(w, r, maxManifest, &m); err != nil {
		return err
	}
	digest, err := s.backend.PutManifest(&m)
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string]string{"digest": digest})
	return nil
}

func (s *Server) deploy(w http.ResponseWriter, r *http.Request) error {
	var req DeployRequest
	if err := readJSON(w, r, maxDeploy, &req); err != nil {
		return err
	}
	if req.App == nil {
		return errs.New(errs.Invalid, "the call carries no app")
	}
	p := caller(r)
	if err := p.Reaches(req.App.Name); err != nil {
		return err
	}
	if p.Key != "" {
		req.By = p.Name // what a key's holder says of himself is not known to be true
	}
	// The change of the current pointer must not depend on the caller staying connected.
	var d *Deployed
	err := s.recorded(r, "deploy", req.App.Name+"/"+req.App.Stage, req.App.Name, func() (err error) {
		d, err = s.backend.Deploy(context.WithoutCancel(r.Context()), req)
		return err
	})
	if err != nil {
		return err
	}
	writeJSON(w, 200, d)
	return nil
}

func (s *Server) rollback(w http.ResponseWriter, r *http.Request) error {
	if err := caller(r).Reaches(r.PathValue("app")); err != nil {
		return err
	}
	var req struct {
		To string `json:"to"`
	}
	if err := readJSON(w, r, 1<<16, &req); err != nil {
		return err
	}
	d, err := s.backend.Rollback(context.WithoutCancel(r.Context()), r.PathValue("app"), r.PathValue("stage"), req.To)
	if err != nil {
		return err
	}
	writeJSON(w, 200, d)
	return nil
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	if err := caller(r).Reaches(r.PathValue("app")); err != nil {
		return err
	}
	if err := s.backend.Remove(context.WithoutCancel(r.Context()), r.PathValue("app"), r.PathValue("stage")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) stacks(w http.ResponseWriter, r *http.Request) error {
	list, err := s.backend.Stacks(r.Context())
	if err != nil {
		return err
	}
	p := caller(r)
	list = slices.DeleteFunc(list, func(st Stack) bool { return p.Reaches(st.App) != nil })
	writeJSON(w, 200, map[string][]Stack{"stacks": list})
	return nil
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) error {
	if err := caller(r).Reaches(r.PathValue("app")); err != nil {
		return err
	}
	list, err := s.backend.History(r.Context(), r.PathValue("app"), r.PathValue("stage"))
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string][]Deployment{"deployments": list})
	return nil
}

func (s *Server) invoke(w http.ResponseWriter, r *http.Request) error {
	function, err := s.reachable(r, r.PathValue("name"))
	if err != nil {
		return err
	}
	switch mode := r.Header.Get(HeaderMode); mode {
	case "", "request":
	case "async":
		return s.invokeAsync(w, r, function)
	default:
		return errs.New(errs.Invalid, "%s: %q is not known", HeaderMode, mode).WithHint("request, which is the default, or async.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxPayload))
	if err != nil {
		return errs.New(errs.Invalid, "read payload: %w", err)
	}
	inv := &invocation.Invocation{
		Mode: invocation.ModeRequest, Attempt: 1, Received: time.Now(), ClientContext: r.Header.Get(HeaderClientContext),
		Trace: r.Header.Get("Traceparent"), Payload: invocation.Raw(body),
	}
	sink := &rawSink{w: w, inv: inv}
	sink.left.Store(-1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(r.Context(), func() {
		if sink.left.Load() != 0 { // a caller that has its answer may go; the guest may work on
			cancel()
		}
	})()
	if err := s.backend.Invoke(ctx, function, inv, sink); err != nil && sink.left.Load() != 0 {
		return err
	}
	// What goes wrong in the guest's work after a whole answer is no fault of the answer.
	return nil
}

// rawSink answers a direct Invocation: the payload alone as body, what became of it in headers. An answer of known length goes
// out when its last byte is there, as the guest may work on for long after it.
type rawSink struct {
	w    http.ResponseWriter
	inv  *invocation.Invocation
	left atomic.Int64 // bytes still to come; negative where that is not known
}

func (s *rawSink) Start(h invocation.Head) error {
	hd := s.w.Header()
	hd.Set("Content-Type", "application/octet-stream")
	hd.Set(HeaderInvocation, s.inv.ID)
	if h.Error != nil {
		hd.Set(HeaderFunctionError, string(h.Error.Cause))
		message := h.Error.Type + ": " + h.Error.Message
		if len(message) > maxMessage { // a header line; the payload has the whole of it
			message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
		}
		text, _ := json.Marshal(message)
		hd.Set(HeaderErrorMessage, string(text))
	}
	s.left.Store(h.Length)
	if h.Length >= 0 {
		hd.Set("Content-Length", strconv.FormatInt(h.Length, 10))
	}
	s.w.WriteHeader(200)
	return s.flush()
}

func (s *rawSink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil || s.left.Load() < 0 || n == 0 {
		return n, err
	}
	s.left.Add(-int64(n))
	return n, s.flush()
}

// flush sends an answer that is whole.
func (s *rawSink) flush() error {
	if s.left.Load() != 0 {
		return nil
	}
	return http.NewResponseController(s.w).Flush()
}

func (s *rawSink) Upgrade(invocation.Head) (net.Conn, error) {
	return nil, errs.New(errs.Unsupported, "a direct invocation has no connection to upgrade")
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := LogQuery{App: v.Get("app"), Stage: v.Get("stage"), Function: v.Get("function"), Invocation: v.Get("invocation"), Follow: v.Get("follow") == "true"}
	if t := v.Get("since"); t != "" {
		at, err := time.Parse(time.RFC3339Nano, t)
		if err != nil {
			return errs.New(errs.Invalid, "since: %w", err)
		}
		q.Since = at
	}
	if n := v.Get("tail"); n != "" {
		tail, err := strconv.Atoi(n)
		if err != nil || tail < 0 {
			return errs.New(errs.Invalid, "tail: %q is not a whole number", n)
		}
		q.Tail = tail
	}
	if err := s.narrow(r, &q); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	begun := func() {
		if q.Follow {
			_ = flush.Flush() // the caller learns that following has begun
		}
	}
	return s.backend.Logs(r.Context(), q, begun, func(rec LogRecord) error {
		if err := enc.Encode(rec); err != nil {
			return err
		}
		if q.Follow {
			return flush.Flush()
		}
		return nil
	})
}
