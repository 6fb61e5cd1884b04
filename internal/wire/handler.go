package wire

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/wire/shape"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// ErrUnknownKey and ErrExpiredToken are what Options.Authenticate refuses a key with.
var (
	ErrUnknownKey   = errors.New("the security token included in the request is invalid")
	ErrExpiredToken = errors.New("the security token included in the request is expired")
)

// Options say what a Handler needs. Services and Authenticate have no default.
type Options struct {
	Services []*Service
	// Authenticate gives the secret of an access key, and who has it. ctx is the request's.
	Authenticate func(ctx context.Context, accessKey, token string) (secret string, who Caller, err error)
	// Anonymous is who sends requests without a signature, to services that take them.
	Anonymous Caller
	// Refused is told of requests for what is not here; may be nil. It may be called concurrently.
	Refused func(ctx context.Context, who Caller, what string)
	// Authorize says whether the caller may do what a request says; may be nil. It is asked after the request was read.
	Authorize func(ctx context.Context, c *Call, about []Subject) error
	// Change is told of an operation that was let in and is about to run, with what it is about; an error keeps it from running. end, where it
	// is not nil, is told of its error before the client is; an error of end is the client's. nil: nobody wants to know.
	Change func(ctx context.Context, c *Call, on string) (end func(error) error, err error)
	// Stranger is told of requests whose signature does not hold; may be nil.
	Stranger func(c *Call, err error)
	// Denied is told of every refusal of a caller who is known; may be nil.
	Denied func(c *Call, e *Error)
	// Answered is told of every answer: operation is empty where it is none of a service that is here; may be nil.
	Answered func(c *Call, service, operation string, status int)
	// BodyBudget is how many bytes of bodies are held at once, over all requests; those that find no room wait for it BodyPatience long, and are
	// refused with 503 then. 0 means 256 MB and 10 s; less than the largest MaxBody means that.
	BodyBudget   int64
	BodyPatience time.Duration
	// Passage takes what functions send to the services that it names; may be nil.
	Passage Passage
	// Passed is told of every request for one of those, refused ones included; may be nil.
	Passed func(c *Call, p Passed)
	Now    func() time.Time // nil means time.Now
	Log    *slog.Logger
}

// Handler answers requests. It may be used concurrently.
type Handler struct {
	o        Options
	services []*Service
	bodies   *budget
}

// New checks the services against their tables.
func New(o Options) (*Handler, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.BodyBudget == 0 {
		o.BodyBudget = bodyBudget
	}
	if o.BodyPatience == 0 {
		o.BodyPatience = bodyPatience
	}
	h := &Handler{o: o, services: o.Services}
	for _, s := range o.Services {
		if err := s.bind(); err != nil {
			return nil, err
		}
		o.BodyBudget = max(o.BodyBudget, s.MaxBody+1)
	}
	h.bodies = newBudget(o.BodyBudget, o.BodyPatience)
	return h, nil
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		own := *r // for the server goes by what kind of body r has: one that the client waits to be asked for is not waited for
		own.Body = idleBody{r.Body, http.NewResponseController(w)}
		r = &own
	}
	c := &Call{
		authorize: h.o.Authorize, change: h.o.Change, RequestID: requestID(), Now: h.o.Now(), Request: r, Path: r.URL.EscapedPath(), Query: r.URL.Query(), Header: http.Header{}, Length: r.ContentLength,
	}
	c.held = &held{ctx: r.Context(), b: h.bodies}
	defer c.held.release()
	if service := h.passing(r); service != "" {
		h.pass(w, c, service)
		return
	}
	answer, err := h.answer(r.Context(), c)
	if err != nil {
		e := h.errorOf(c, err)
		if h.o.Denied != nil && strings.HasPrefix(e.Code, "AccessDenied") && c.Caller.ARN != "" {
			h.o.Denied(c, e)
		}
		answer = render(c, e)
		c.Status = 0
	}
	h.send(w, c, answer)
}

// answer runs the operation that a request is for.
func (h *Handler) answer(ctx context.Context, c *Call) (*shape.Answer, error) {
	r := c.Request
	claim, missing := sign.Parse(r)
	scope := ""
	if claim != nil {
		scope, c.Region = claim.Service, claim.Region
	}
	c.Service, c.Operation = h.find(r, scope)
	c.Protocol = protocolOf(c.Service, r, scope)
	if found := regionIn(r.Host); found != "" && onAWS(r.Host) {
		c.Region = found
	}
	if !regionRE.MatchString(c.Region) {
		c.Region = "us-east-1"
	}
	if a := h.front(c); a != nil {
		return a, nil
	}
	if c.Service != nil && c.Service.Prepare != nil {
		c.Service.Prepare(c)
	}
	if c.Protocol == shape.RESTJSON || c.Protocol == shape.RESTXML {
		h.route(c)
	}
	if err := h.admit(ctx, c, claim, missing); err != nil {
		if h.o.Stranger != nil {
			h.o.Stranger(c, err)
		}
		return nil, err
	}
	if c.Protocol == shape.Query {
		form, err := formOf(c.Query, c.Body)
		if err != nil {
			return nil, Errorf("MalformedQueryString", "The query string could not be read")
		}
		c.Query, c.Operation = form, form.Get("Action")
	}
	return h.run(ctx, c)
}

func (h *Handler) route(c *Call) {
	if c.Service == nil {
		return
	}
	if op, labels := c.Service.table.Route(c.Request.Method, c.Path, c.Query, c.Request.Header); op != nil {
		c.Operation, c.Labels = op.Name, labels
	}
	if c.Service.Find != nil {
		if name := c.Service.Find(c); name != "" {
			c.Operation = name
		}
	}
}

// admit finds out who sends the request, and takes its body.
func (h *Handler) admit(ctx context.Context, c *Call, claim *sign.Signature, missing error) error {
	most, stream := int64(1<<20), false
	if c.Service != nil {
		most = c.Service.MaxBody
		stream = c.Service.Operations[c.Operation].stream
	}
	if claim == nil || missing != nil {
		var f *sign.Fault
		unsigned := errors.As(missing, &f) && f.Kind == sign.Missing
		if !unsigned || c.Service == nil || c.Service.Anonymous == nil || !c.Service.Anonymous(c) {
			return missing
		}
		c.Caller = h.o.Anonymous
		if stream {
			c.Stream, c.Trailer = c.Request.Body, func() http.Header { return nil }
			return nil
		}
		var err error
		c.Body, err = sign.ReadBody(c.Request.Body, c.Request.ContentLength, most, c.held.grow)
		return err
	}
	secret, who, err := h.o.Authenticate(ctx, claim.AccessKey, claim.Token)
	if err != nil {
		return err
	}
	body, err := claim.Check(c.Request, secret, sign.Options{Now: c.Now, MaxBody: most, Hold: c.held.grow, Stream: stream, Path: c.Path})
	if err != nil {
		return err
	}
	c.Caller, c.Claim = who, claim
	c.Body, c.Stream, c.Length, c.Trailer = body.Data, body.Reader, body.Length, body.Trailer
	if stream && c.Stream == nil {
		c.Stream = strings.NewReader(string(body.Data))
	}
	return nil
}

// run runs the operation, and tells its end.
func (h *Handler) run(ctx context.Context, c *Call) (*shape.Answer, error) {
	a, err := h.operate(ctx, c)
	if c.end == nil {
		return a, err
	}
	if failed := c.end(err); failed != nil && err == nil {
		return nil, failed
	}
	return a, err
}

func (h *Handler) operate(ctx context.Context, c *Call) (*shape.Answer, error) {
	if c.Service == nil {
		return nil, h.noService(ctx, c)
	}
	op, ok := c.Service.Operations[c.Operation]
	if !ok {
		return nil, h.noOperation(ctx, c)
	}
	if c.Caller.May != nil {
		if err := c.Caller.May(c.Service.Name + ":" + c.Operation); err != nil {
			return nil, err
		}
	}
	if op.raw != nil {
		if err := c.allow(ctx, nil); err != nil {
			return nil, err
		}
		return op.raw(ctx, c)
	}
	out, err := op.run(ctx, c, op.codec, &shape.Request{
		Protocol: c.Protocol, Labels: c.Labels, Query: c.Query, Header: c.Request.Header, Body: c.Body, Stream: c.Stream, Strict: c.Service.Strict,
	})
	if err != nil {
		return nil, err
	}
	return op.codec.Write(c.Protocol, out, c.RequestID)
}

func (h *Handler) refused(ctx context.Context, c *Call, what string) {
	if h.o.Refused != nil {
		h.o.Refused(ctx, c.Caller, what)
	}
}

func (h *Handler) noOperation(ctx context.Context, c *Call) error {
	t := c.Service.table
	name := c.Operation
	if name == "" {
		name = c.Request.Method + " " + c.Path
	}
	text := fmt.Sprintf("The operation %s of %s is not known", clip(name), serviceID(t))
	if t.Operations[c.Operation] != nil {
		text = fmt.Sprintf("ebb does not have the operation %s of %s yet", name, serviceID(t))
	}
	h.refused(ctx, c, text)
	switch c.Protocol {
	case shape.Query:
		return Errorf("InvalidAction", "%s", text)
	case shape.RESTXML:
		return Errorf("NotImplemented", "%s", text).With(http.StatusNotImplemented)
	case shape.RESTJSON:
		return Errorf("UnknownOperationException", "%s", text).With(http.StatusNotFound)
	}
	return Errorf("UnknownOperationException", "%s", text)
}

// errorOf is what a client is told of an error.
func (h *Handler) errorOf(c *Call, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var signed *sign.Fault
	if errors.As(err, &signed) {
		return signError(c, signed)
	}
	if errors.Is(err, ErrUnknownKey) || errors.Is(err, ErrExpiredToken) {
		return keyError(c, err)
	}
	if errors.Is(err, errNoRoom) {
		return noRoom(c)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Errorf("RequestTimeout", "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.")
	}
	var form *shape.Fault
	if errors.As(err, &form) {
		if c.Service.Fault != nil {
			if e := c.Service.Fault(c, form); e != nil {
				return e
			}
		}
		return formError(c, form)
	}
	if c.Service != nil && c.Service.Translate != nil {
		if e := c.Service.Translate(c, err); e != nil {
			return e
		}
	}
	h.o.Log.Error("a request of an AWS client failed", "operation", c.Operation, "request", c.RequestID, "error", err)
	code := "InternalFailure"
	switch {
	case c.Service != nil && c.Service.Name == "s3", c.Service != nil && c.Service.Name == "sns":
		code = "InternalError"
	case c.Protocol == shape.JSON:
		code = "InternalServerError"
	case c.Protocol == shape.RESTJSON:
		code = "ServiceException"
	}
	return Errorf(code, "We encountered an internal error. Please try again.").With(http.StatusInternalServerError)
}

// formError is AWS's common answer to a request that is not as it should be.
func formError(c *Call, f *shape.Fault) *Error {
	switch {
	case c.Protocol == shape.RESTXML && f.Kind != shape.Invalid:
		return Errorf("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
	case c.Protocol == shape.RESTXML:
		return Errorf("InvalidRequest", "%s", f.Error())
	case c.Protocol == shape.Query && f.Kind == shape.Invalid && f.Problems[0].Missing:
		return Errorf("MissingParameter", "The request must contain the parameter %s.", f.Problems[0].Member)
	case c.Protocol == shape.Query && f.Kind == shape.Invalid:
		return Errorf("ValidationError", "%s", f.Error())
	case c.Protocol == shape.Query:
		return Errorf("MalformedInput", "%s", f.Error())
	case f.Kind == shape.Invalid:
		return Errorf("ValidationException", "%s", f.Error())
	}
	return Errorf("SerializationException", "%s", f.Error())
}

// send writes the answer.
func (h *Handler) send(w http.ResponseWriter, c *Call, a *shape.Answer) {
	if closer, ok := a.Stream.(io.Closer); ok {
		defer closer.Close()
	}
	head := w.Header()
	for _, from := range []http.Header{a.Header, c.Header} {
		for k, list := range from {
			head[k] = list
		}
	}
	if c.Service != nil && c.Service.Name == "s3" {
		head.Set("X-Amz-Request-Id", c.RequestID)
		head.Set("X-Amz-Id-2", c.RequestID)
		head.Set("Server", "AmazonS3")
	} else {
		head.Set("X-Amzn-Requestid", c.RequestID)
	}
	status := a.Status
	if c.Status != 0 {
		status = c.Status
	}
	h.answered(c, status)
	if a.Stream == nil && bodyAllowed(status) && !(c.Request.Method == http.MethodHead && head.Get("Content-Length") != "") {
		head.Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	w.WriteHeader(status)
	if c.Request.Method == http.MethodHead || !bodyAllowed(status) {
		return
	}
	if a.Stream == nil {
		_, _ = w.Write(a.Body)
		return
	}
	if _, err := io.Copy(w, a.Stream); err != nil {
		h.o.Log.Debug("an answer was cut", "operation", c.Operation, "error", err)
		panic(http.ErrAbortHandler) // the client must not take it for whole
	}
}

func (h *Handler) answered(c *Call, status int) {
	if h.o.Answered == nil {
		return
	}
	service, operation := "", ""
	if c.Service != nil {
		service = c.Service.Name
		if _, ok := c.Service.Operations[c.Operation]; ok {
			operation = c.Operation
		}
	}
	h.o.Answered(c, service, operation, status)
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

// Param is a parameter of the address, for operations that read it themselves.
func (c *Call) Param(name string) (string, bool) {
	list, ok := url.Values(c.Query)[name]
	if !ok || len(list) == 0 {
		return "", ok
	}
	return list[0], true
}
