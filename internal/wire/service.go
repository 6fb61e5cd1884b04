package wire

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"time"

	"github.com/ebb-run/ebb/internal/wire/shape"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// Service is one API. It is not changed after it was given to New.
type Service struct {
	Name       string // of its table: "sqs"
	Operations map[string]Operation

	// Signing are the names that its requests are signed for beside the table's, Hosts the first labels of its host names beside those.
	Signing, Hosts []string
	// TypePrefix stands before the error codes of the JSON protocol: "com.amazonaws.dynamodb.v20120810#".
	TypePrefix string
	// QueryCodes are the error codes of the query protocol, where they are others than those of JSON; JSON answers name both.
	QueryCodes map[string]string
	// MaxBody is the most bytes of a body that is buffered; 0 means 16 MiB.
	MaxBody int64
	// Strict checks the table's enums and bounds, beside what is required.
	Strict bool
	// Fault turns what is wrong with a request's form into an error; nil, or an answer of nil: AWS's common one.
	Fault func(c *Call, f *shape.Fault) *Error
	// Translate turns other errors of operations into one for clients; nil, or an answer of nil: the service's internal error.
	Translate func(c *Call, err error) *Error
	// Find finds the operation of a request that the table cannot: "" if it cannot either. It may change c.Labels.
	Find func(c *Call) string
	// Prepare runs before the signature is checked; it may change where c.Path leads, as for the bucket in a host name.
	Prepare func(c *Call)
	// Anonymous says whether an operation may run without a signature. nil: none.
	Anonymous func(c *Call) bool
	// Subjects says what a request is to be allowed to do; nil, or an answer of none: nothing that is asked for.
	Subjects func(c *Call, in any) []Subject
	// Render writes an error in the service's own form; nil: that of its protocol.
	Render func(c *Call, e *Error) *shape.Answer

	table *shape.Table
}

// Operation is what an operation does, made by Op or Raw.
type Operation struct {
	in, out reflect.Type
	run     func(ctx context.Context, c *Call, codec *shape.Codec, r *shape.Request) (any, error)
	raw     func(ctx context.Context, c *Call) (*shape.Answer, error)
	stream  bool
	codec   *shape.Codec
}

// Op is an operation whose request is read into an In and whose answer is written from an Out.
func Op[In, Out any](f func(ctx context.Context, c *Call, in *In) (*Out, error)) Operation {
	return Operation{
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		run: func(ctx context.Context, c *Call, codec *shape.Codec, r *shape.Request) (any, error) {
			in := new(In)
			if err := codec.Read(r, in); err != nil {
				return nil, err
			}
			if err := c.allow(ctx, in); err != nil {
				return nil, err
			}
			out, err := f(ctx, c, in)
			if err != nil {
				return nil, err
			}
			if out == nil {
				out = new(Out)
			}
			return out, nil
		},
	}
}

// Raw is an operation that reads the body and writes the answer itself. With stream it gets Call.Stream, else Call.Body.
// Its name need not be in the table.
func Raw(stream bool, f func(ctx context.Context, c *Call) (*shape.Answer, error)) Operation {
	return Operation{raw: f, stream: stream}
}

// Call is one request. An operation may set Status and Header of the answer.
type Call struct {
	Service   *Service
	Operation string
	Protocol  shape.Protocol
	Caller    Caller
	Region    string // that the client means; "us-east-1" where it does not say
	RequestID string
	Now       time.Time

	Request *http.Request     // its Body is taken
	Path    string            // escaped; where the operation is looked for
	Labels  map[string]string // of a rest path
	Query   url.Values        // in the query protocol with the body's
	Body    []byte            // unless it streams
	Stream  io.Reader
	Length  int64              // of Stream; -1 when not known
	Trailer func() http.Header // behind Stream, once it is read
	Claim   *sign.Signature    // nil for anonymous requests
	Status  int                // of the answer; 0 means the operation's
	Header  http.Header        // further headers of the answer

	authorize func(ctx context.Context, c *Call, about []Subject) error
	held      *held // the memory of Body
	change    func(ctx context.Context, c *Call, on string) (func(error) error, error)
	end       func(error) error // of a change that was told of
	about     string
}

// Caller is who sends a request.
type Caller struct {
	Tenant  string
	Account string // 12 digits, as its ARNs show
	Key     string // the access key's ID
	ARN     string // as GetCallerIdentity tells it
	UserID  string

	App, Stage, Function string // of a Function: full name
	KeyID                string // of a key made by `ebb keys`
	May                  func(operation string) error
	Cause                Cause
}

// Cause is the Invocation that sends the request, as far as it is known.
type Cause struct {
	Invocation, Trace, Publisher string
	Hops                         int
}

// BaseURL is where the client reaches the service: of URLs in answers.
func (c *Call) BaseURL() string {
	host := c.Request.Host
	if onAWS(host) {
		return "https://" + c.Service.table.Metadata.EndpointPrefix + "." + c.Region + ".amazonaws.com"
	}
	if c.Request.TLS != nil {
		return "https://" + host
	}
	return "http://" + host
}

// Table is the service's.
func (s *Service) Table() *shape.Table { return s.table }

// bind reads the table and checks every operation against it.
func (s *Service) bind() error {
	var err error
	if s.table, err = shape.Load(s.Name); err != nil {
		return err
	}
	bound := make(map[string]Operation, len(s.Operations))
	for name, o := range s.Operations {
		if o.raw == nil {
			if o.codec, err = s.table.Bind(name, o.in, o.out); err != nil {
				return fmt.Errorf("service %s: %w", s.Name, err)
			}
			o.stream = o.codec.Streams()
		}
		bound[name] = o
	}
	s.Operations = bound
	if s.MaxBody == 0 {
		s.MaxBody = 16 << 20
	}
	return nil
}
