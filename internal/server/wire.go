package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/certs"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/dynamodb"
	eventbridge "github.com/ebb-run/ebb/internal/wire/events"
	"github.com/ebb-run/ebb/internal/wire/kinesis"
	"github.com/ebb-run/ebb/internal/wire/s3"
	"github.com/ebb-run/ebb/internal/wire/scheduler"
	"github.com/ebb-run/ebb/internal/wire/sns"
	"github.com/ebb-run/ebb/internal/wire/sqs"
	"github.com/ebb-run/ebb/internal/wire/sts"
)

// capturedDomains are those of AWS's API endpoints.
var capturedDomains = []string{"amazonaws.com", "api.aws"}

const (
	// credentialRest is how much longer a Function's credentials hold than its Instance takes Invocations: for the last of them, which may have begun at
	// the end, and what it signs for others. 15 minutes is the longest: Lambda quotas, "Function timeout".
	credentialRest = time.Hour
	wirePort       = 443
	wirePlainPort  = 80
)

// wires answer AWS's clients: those of functions, whose connections to AWS end here, and those of others, at a port.
type wires struct {
	s       *Server
	keys    *identity.AWSKeys
	certs   *certs.Source
	handler *wire.Handler
	passage wire.Passage // nil where nothing goes to the real AWS
	http    *http.Server
	line    *line // from within sandboxes; TLS where the guest speaks it
	plain   *line
	door    net.Listener // from outside
	wait    sync.WaitGroup
}

// wireServices lists what is answered. A new service is one line.
func (s *Server) wireServices() []*wire.Service {
	return append([]*wire.Service{
		sts.New(),
		sqs.New(s.events.bus),
		sns.New(s.events.bus, s.topicHooks()),
		kinesis.New(s.events.bus),
		s3.New(s3.Options{Objects: s.sharedObjects(), Authenticate: s.wires.authenticate, Changed: s.bucketChanged}),
		eventbridge.New(wireEvents{s.state, s}),
		scheduler.New(wireEvents{s.state, s}),
		dynamodb.New(s.sharedTables()),
		dynamodb.NewStreams(s.tableStore),
	}, s.callServices()...)
}

// openWires makes what answers; it is served once the bus is open.
func (s *Server) openWires() (err error) {
	w := &s.wires
	w.s, w.line, w.plain = s, newLine(), newLine()
	w.keys = identity.NewAWSKeys(s.key)
	if w.certs, err = certs.OpenCaptured(filepath.Join(s.o.Config.Data, "aws"), capturedDomains, s.seal.Box("aws")); err != nil {
		return err
	}
	s.closing(w.close)
	if err = w.openPassage(); err != nil {
		return err
	}
	if w.door, err = s.listenAWS(); err != nil {
		return err
	}
	return nil
}

// listenAWS listens for clients from outside. The usual port may be another ebb's: then the next free one is taken, unless it was asked for.
func (s *Server) listenAWS() (net.Listener, error) {
	addr, asked := s.o.Config.AWSListen, true
	if addr == "" {
		addr, asked = "127.0.0.1:4566", false
		if _, port, err := net.SplitHostPort(s.o.Config.Listen); err == nil && port == "0" {
			addr = "127.0.0.1:0"
		}
	}
	if beyond(addr) {
		return nil, errs.New(errs.Invalid, "the AWS endpoint is served on this machine only, not on %q", addr).WithHint("Give --aws-listen 127.0.0.1:4566.")
	}
	l, err := listen(addr, "--aws-listen")
	if err == nil || asked {
		return l, err
	}
	for port := 4567; port < 4600; port++ {
		if l, again := listen(fmt.Sprintf("127.0.0.1:%d", port), "--aws-listen"); again == nil {
			s.o.Log.Warn("port 4566 is in use by another program: the AWS endpoint is at the next free one", "address", l.Addr())
			return l, nil
		}
	}
	return nil, err
}

// serveWires begins to answer.
func (s *Server) serveWires() (err error) {
	w := &s.wires
	w.handler, err = wire.New(wire.Options{
		Services: s.wireServices(), Authenticate: w.authenticate, Log: s.o.Log, Refused: w.refused, Authorize: w.authorize,
		Change: w.change, Stranger: w.stranger, Denied: w.denied,
		Answered: func(_ *wire.Call, service, operation string, status int) {
			s.metrics.AWSRequest(service, operation, status)
			if isControl(service, operation) {
				s.whose.changed() // before the client hears of it
			}
		},
		Anonymous: wire.Caller{Tenant: tenant, Account: s.o.Config.Account}, Passage: w.passage, Passed: w.passed,
	})
	if err != nil {
		return err
	}
	w.http = &http.Server{
		Handler: w.known(w.handler), ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 64 << 10,
		IdleTimeout: -1, // a guest that was frozen meanwhile would write to a closed connection; what it may hold open is bounded
		ErrorLog:    slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug), Protocols: new(http.Protocols),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			if v, ok := c.(*call); ok {
				return context.WithValue(ctx, originKey{}, v.from)
			}
			return ctx
		},
	}
	w.http.Protocols.SetHTTP1(true)
	w.http.Protocols.SetHTTP2(true)
	w.http.TLSConfig = w.certs.Config()
	w.serve("functions cannot reach AWS's services", func() error { return w.http.ServeTLS(w.line, "", "") })
	w.serve("functions cannot reach AWS's services", func() error { return w.http.Serve(w.plain) })
	w.serve("AWS's clients cannot reach ebb", func() error { return w.http.Serve(w.door) })
	if l := w.s.capture.tls; l != nil {
		w.serve("functions cannot reach AWS's services", func() error { return w.http.ServeTLS(l, "", "") })
	}
	return nil
}

func (w *wires) serve(failed string, f func() error) {
	w.wait.Go(func() {
		if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			w.s.o.Log.Error(failed, "error", err)
		}
	})
}

func (w *wires) close() error {
	var err error
	if w.http != nil {
		err = w.http.Close()
	}
	_, _ = w.line.Close(), w.plain.Close()
	if w.door != nil {
		err = errors.Join(err, ignoreClosed(w.door.Close()))
	}
	w.wait.Wait()
	return errors.Join(err, w.certs.Close())
}

// AWSURL is where AWS's clients find the Node from outside.
func (s *Server) AWSURL() string { return "http://" + s.wires.door.Addr().String() }

// toAWS says whether a guest means an endpoint of AWS.
func toAWS(d sandbox.Destination) bool { return wire.OnAWS(d.Host) }

// dial connects a guest that means AWS to ebb.
func (w *wires) dial(ctx context.Context, d sandbox.Destination) (net.Conn, error) {
	from := w.s.sink.origin(d.Sandbox)
	switch {
	case from == nil:
		return nil, errs.New(errs.Forbidden, "connection to %s: only functions reach AWS's services here", d.Host)
	case d.Port == wirePort:
		return w.line.dial(ctx, from)
	case d.Port == wirePlainPort:
		return w.plain.dial(ctx, from)
	}
	return nil, errs.New(errs.Forbidden, "connection to %s:%d: AWS's services answer at 443 and 80", d.Host, d.Port)
}

// credentials are those of a Function, or of one of its Instances.
func (w *wires) credentials(k state.StackKey, function, instance string) guest.Credentials {
	c := w.keys.Temporary(identity.Bearing{Tenant: k.Tenant, App: k.App, Stage: k.Stage, Function: function, Instance: instance, Expires: time.Now().Add(w.s.o.Config.MaxAge + credentialRest)})
	return guest.Credentials{AccessKey: c.AccessKey, Secret: c.Secret, Token: c.Token}
}

// authenticate gives the secret of an access key, and who has it.
func (w *wires) authenticate(ctx context.Context, access, token string) (string, wire.Caller, error) {
	account := w.s.o.Config.Account
	caller := wire.Caller{Tenant: tenant, Account: account, Key: access}
	if token == "" {
		id := identity.KeyID(access)
		k, _, ok := w.s.keyring.ring.Get(id)
		if id == "" || !ok || k.Ended(time.Now()) != "" {
			return "", caller, wire.ErrUnknownKey
		}
		caller.KeyID, caller.ARN, caller.UserID = k.ID, "arn:aws:iam::"+account+":user/"+k.Name, access
		caller.May = func(operation string) error { return mayAWS(k, operation) }
		return w.keys.OfKey(id).Secret, caller, nil
	}
	b, secret, ok, err := w.keys.Bearer(access, token, time.Now())
	switch {
	case !ok:
		return "", caller, wire.ErrUnknownKey
	case errors.Is(err, identity.ErrEnded):
		return "", caller, wire.ErrExpiredToken
	}
	now := w.s.stacks.get(state.StackKey{Tenant: b.Tenant, App: b.App, Stage: b.Stage})
	if now == nil {
		return "", caller, wire.ErrUnknownKey // it was removed
	}
	role := b.App + "-" + b.Stage + "-role"
	caller.Tenant, caller.App, caller.Stage, caller.Function = b.Tenant, b.App, b.Stage, b.Function
	caller.ARN, caller.UserID = "arn:aws:sts::"+account+":assumed-role/"+role+"/"+b.Function, access+":"+b.Function
	if o := originOf(ctx); o != nil && o.function == b.Function {
		c := o.current()
		caller.Cause = wire.Cause{Invocation: c.id, Trace: c.trace, Publisher: o.function, Hops: c.hops}
	}
	return secret, caller, nil
}

// mayAWS says whether a key's role lets it call an operation.
func mayAWS(k identity.Key, operation string) error {
	service, name, _ := strings.Cut(operation, ":")
	if service == "sts" {
		return nil
	}
	denied := func() error {
		return wire.Errorf("AccessDeniedException", "User: %s is not authorized to perform: %s", k.Name, operation).With(http.StatusForbidden)
	}
	if k.App != "" {
		return denied() // not before what belongs to an App is told apart here
	}
	begins := func(words ...string) bool {
		for _, p := range words {
			if strings.HasPrefix(name, p) {
				return true
			}
		}
		return false
	}
	switch k.Role {
	case identity.Admin, identity.Deploy:
		return nil
	case identity.Invoke:
		if begins("Send", "Publish", "PutEvents", "Invoke", "PutRecord") {
			return nil
		}
	}
	if service == "secretsmanager" || service == "ssm" && begins("GetParameter") {
		return denied() // who may look at what runs may not read secrets
	}
	if begins("Get", "List", "Describe", "Head", "Query", "Scan", "BatchGet", "TransactGet", "FilterLogEvents") {
		return nil
	}
	return denied()
}

// refused shows a request for what is not here in the function's log.
func (w *wires) refused(ctx context.Context, who wire.Caller, what string) {
	w.s.o.Log.Warn("an AWS client asked for what is not here", "function", who.Function, "what", what)
	if who.Function == "" {
		return
	}
	w.tell(ctx, who, strings.TrimPrefix(what, "ebb "))
}

// addAWS gives a new key what AWS's clients sign with.
func (w *wires) addAWS(k *api.NewKey) {
	c := w.keys.OfKey(k.ID)
	k.AccessKeyID, k.SecretAccessKey = c.AccessKey, c.Secret
}

// systemRoots are where systems have the certificates that programs trust.
var systemRoots = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem"}

// trust gives the certificate that functions trust beside the system's, alone and with those.
func (w *wires) trust() (ca, roots []byte) {
	ca = []byte(certs.PEM(w.certs.CA()))
	for _, path := range systemRoots {
		if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
			return ca, append(append(data, '\n'), ca...)
		}
	}
	return ca, ca
}
