package wire

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/wire/shape"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// Passage sends the requests of functions to the real AWS in place of what is here.
type Passage interface {
	// Passes says whether requests for a service go there: the first label of its endpoints' names, as "bedrock-runtime".
	Passes(service string) bool
	// Send sends a request whose signature held, signed anew, and answers it. The body is read as it comes; when reading it fails, so must the request,
	// and nothing of it may count. An error means that nothing was answered. It sets Status, Sent and Received of done, also where it panics because the
	// answer breaks off, as net/http wants it.
	Send(w http.ResponseWriter, r *http.Request, out Passing, done *Passed) error
}

// Passing is what is to be sent, beside the request's own method, address and headers.
type Passing struct {
	Region, Service string      // that the signature is for
	Data            []byte      // the body, where it is whole
	Stream          io.Reader   // else; without the framing of its chunks
	Length          int64       // of Stream; -1 when not known
	Trailer         http.Header // behind Stream; filled once that is read
}

// Passed is what became of a request that was sent on.
type Passed struct {
	Service, Operation string // Operation is empty where it is not known
	Status             int    // of the real AWS's answer; of ebb's, where none came
	Sent, Received     int64  // bytes of the bodies
}

// maxPassed bounds a body that has to be whole before its signature can be checked. Bedrock takes 25 MB: "Quotas for Amazon Bedrock".
const maxPassed = 32 << 20

// passing is the service that a request goes to the real AWS for, or "". The name that was signed decides, nothing else that the request says.
func (h *Handler) passing(r *http.Request) string {
	if h.o.Passage == nil || !onAWS(r.Host) {
		return ""
	}
	if name := hostService(r.Host); h.o.Passage.Passes(name) {
		return name
	}
	return ""
}

// pass sends a request on, if it is signed and allowed, and tells of it once.
func (h *Handler) pass(w http.ResponseWriter, c *Call, service string) {
	out, err := h.mayPass(c, service)
	done := Passed{}
	defer func() {
		done.Service, done.Operation = service, c.Operation
		if h.o.Passed != nil {
			h.o.Passed(c, done)
		}
	}()
	if err == nil {
		if err = h.o.Passage.Send(w, c.Request, *out, &done); err == nil {
			return
		}
		var broken *sign.Fault
		if !errors.As(err, &broken) {
			h.o.Log.Warn("a request could not be sent to AWS", "service", service, "error", err)
			err = Errorf("ServiceUnavailable", "ebb could not reach %s of AWS", clip(service)).With(http.StatusServiceUnavailable)
		}
	}
	answer := render(c, h.errorOf(c, err))
	done.Status = answer.Status
	h.send(w, c, answer)
}

// mayPass checks who sends a request and whether they may.
func (h *Handler) mayPass(c *Call, service string) (*Passing, error) {
	r := c.Request
	claim, missing := sign.Parse(r)
	c.Service = h.named(service)
	scope := ""
	if claim != nil {
		c.Region, scope = claim.Region, claim.Service
	}
	c.Protocol = protocolOf(c.Service, r, scope)
	if s := c.Service; s != nil && (s.table.Metadata.Protocol == shape.RESTJSON || s.table.Metadata.Protocol == shape.RESTXML) {
		c.Protocol = s.table.Metadata.Protocol // whatever headers of other protocols the request has, which AWS ignores
	}
	if missing != nil {
		return nil, missing
	}
	secret, who, err := h.o.Authenticate(r.Context(), claim.AccessKey, claim.Token)
	if err != nil {
		return nil, err
	}
	c.Caller, c.Claim = who, claim
	if who.Function == "" {
		return nil, Errorf("AccessDeniedException", "only functions reach the real AWS through ebb").With(http.StatusForbidden)
	}
	if c.Service != nil && c.Service.Prepare != nil {
		c.Service.Prepare(c)
	}
	if c.Protocol == shape.RESTJSON || c.Protocol == shape.RESTXML {
		h.route(c)
	}
	stream := false
	if c.Service != nil && c.Service.Name == "s3" {
		op, ok := c.Service.Operations[c.Operation]
		stream = op.stream || !ok
	}
	body, err := claim.Check(r, secret, sign.Options{Now: c.Now, MaxBody: maxPassed, Stream: stream, Path: c.Path})
	if err != nil {
		return nil, err
	}
	c.Body = body.Data
	about, err := c.passes(service)
	if err != nil {
		return nil, err
	}
	if err := c.Allow(r.Context(), about...); err != nil {
		return nil, err
	}
	return &Passing{Region: claim.Region, Service: claim.Service, Data: body.Data, Stream: body.Reader, Length: body.Length, Trailer: body.Trailer()}, nil
}

// named is the service that is here under the name of an endpoint, or nil.
func (h *Handler) named(name string) *Service {
	i := slices.IndexFunc(h.services, func(s *Service) bool {
		m := s.table.Metadata
		return m.EndpointPrefix == name || m.SigningName == name || slices.Contains(s.Hosts, name)
	})
	if i < 0 {
		return nil
	}
	return h.services[i]
}

// passes finds the operation, and says what the request is about. A service that is not here says little of itself: then the Subjects are vague.
func (c *Call) passes(service string) ([]Subject, error) {
	r := c.Request
	target := r.Header.Get("X-Amz-Target")
	action := ""
	if c.Protocol == shape.Query || isForm(r) {
		form, err := formOf(c.Query, c.Body)
		if err != nil {
			return nil, Errorf("MalformedQueryString", "The query string could not be read")
		}
		action = form.Get("Action")
		if c.Protocol == shape.Query {
			c.Query = form
		}
	}
	root := r.Method == http.MethodPost && c.Path == "/"
	if target != "" && (action != "" || c.Query.Has("Action")) {
		return nil, Errorf("InvalidAction", "The request names two operations") // which of them AWS would run is not known
	}
	if c.Service == nil {
		return []Subject{c.vague(service, root, target, action)}, nil
	}
	m := c.Service.table.Metadata
	switch prefix, name, _ := strings.Cut(target, "."); {
	case c.Protocol == shape.JSON && m.TargetPrefix != "" && prefix == m.TargetPrefix:
		c.Operation = name
	case c.Protocol == shape.JSON:
		c.Operation = ""
	case c.Protocol == shape.Query:
		c.Operation = action
	}
	op, ok := c.Service.Operations[c.Operation]
	if !ok || c.Service.Subjects == nil {
		name := m.SigningName
		if name == "" {
			name = m.EndpointPrefix
		}
		return []Subject{{Action: name + ":" + c.known(), Resource: "*", Vague: true}}, nil
	}
	if op.raw != nil {
		return c.Service.Subjects(c, nil), nil
	}
	in := reflect.New(op.in).Interface()
	if err := op.codec.Read(&shape.Request{Protocol: c.Protocol, Labels: c.Labels, Query: c.Query, Header: r.Header, Body: c.Body}, in); err != nil {
		return nil, err
	}
	return c.Service.Subjects(c, in), nil
}

// known is the operation, or "*" for one that only a statement about all of the service's allows.
func (c *Call) known() string {
	if c.Operation == "" {
		return "*"
	}
	return c.Operation
}

// actionPrefix are the names in actions of services whose signing names are others: Service Authorization Reference.
var actionPrefix = map[string]string{"monitoring": "cloudwatch", "tagging": "tag"} // never written

// vague is what a request for a service that is not here is about.
func (c *Call) vague(service string, root bool, target, action string) Subject {
	if service == "bedrock-runtime" {
		return c.bedrock()
	}
	_, name, _ := strings.Cut(target, ".")
	switch {
	case root && name != "":
		c.Operation = name
	case root && action != "":
		c.Operation = action
	default:
		c.Operation = ""
	}
	prefix := c.Claim.Service
	if other := actionPrefix[prefix]; other != "" {
		prefix = other
	}
	return Subject{Action: prefix + ":" + c.known(), Resource: "*", Vague: true}
}

// bedrockActions are those of Bedrock's operations on models by the last part of their paths: Amazon Bedrock API Reference, "Converse", "InvokeModel".
var bedrockActions = map[string][2]string{ // operation and action; never written
	"invoke": {"InvokeModel", "InvokeModel"}, "converse": {"Converse", "InvokeModel"},
	"invoke-with-response-stream": {"InvokeModelWithResponseStream", "InvokeModelWithResponseStream"}, "converse-stream": {"ConverseStream", "InvokeModelWithResponseStream"},
}

func (c *Call) bedrock() Subject {
	c.Operation = ""
	vague := Subject{Action: "bedrock:*", Resource: "*", Vague: true}
	rest, ok := strings.CutPrefix(c.Path, "/model/")
	model, last, two := strings.Cut(rest, "/")
	found, known := bedrockActions[last]
	if !ok || !two || !known || c.Request.Method != http.MethodPost {
		return vague
	}
	id, err := url.PathUnescape(model)
	if err != nil || id == "" {
		return vague
	}
	c.Operation = found[0]
	s := Subject{Action: "bedrock:" + found[1], Resource: id}
	if !strings.HasPrefix(id, "arn:") {
		s.Resource = "arn:aws:bedrock:" + c.Region + "::foundation-model/" + id
		s.Also = c.ARN("bedrock", "inference-profile/"+id)
	}
	return s
}
