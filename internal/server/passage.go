package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/pass"
)

// RealAWS is how the real AWS is reached.
type RealAWS struct {
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	Dial    func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	Roots   *x509.CertPool
}

// openPassage makes what takes functions' requests to the real AWS, where an operator names services for it.
func (w *wires) openPassage() error {
	s := w.s
	if len(s.o.Config.AWSPass) == 0 {
		return nil
	}
	real := s.o.RealAWS
	if real == nil {
		real = &RealAWS{}
	}
	// By wildcards no address of the never-list is reached, whatever a name leads to.
	p, err := egress.NewPolicy(egress.AllowList, []string{"*.amazonaws.com:443", "*.api.aws:443"})
	if err != nil {
		return err
	}
	out := egress.New(egress.Options{Policy: func(string) egress.Policy { return p }, Setting: "--aws-pass", Log: s.o.Log, Resolve: real.Resolve, Dial: real.Dial})
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	credentials, err := pass.Credentials(ctx, s.o.Config.AWSPassAs, s.o.Env)
	if err != nil {
		return err
	}
	if _, err := credentials.Retrieve(ctx); err != nil { // they may be had again later: a login that has ended is no reason not to start
		s.o.Log.Warn("there are no credentials for the real AWS now; each call asks again", "source", s.o.Config.AWSPassAs, "error", err)
	}
	passage, err := pass.New(pass.Options{
		Services: s.o.Config.AWSPass, Credentials: credentials, Roots: real.Roots,
		Dial: func(ctx context.Context, host string, port uint16) (net.Conn, error) {
			return out.Dial(ctx, sandbox.Destination{Owner: "aws-pass", Host: host, Port: port})
		},
	})
	if err != nil {
		return err
	}
	w.passage = passage
	s.closing(passage.Close)
	return nil
}

// passed shows a request that was for the real AWS: in the server's log, in the function's, and in the counts.
func (w *wires) passed(c *wire.Call, p wire.Passed) {
	operation := p.Operation
	if operation == "" {
		operation = c.Request.Method
	}
	w.s.metrics.AWSPassed(p.Service, p.Status, p.Sent, p.Received)
	w.s.o.Log.Info("a request for the real AWS", "service", p.Service, "operation", operation, "function", c.Caller.Function, "status", p.Status, "sent", p.Sent, "received", p.Received)
	if c.Caller.Function != "" {
		w.tell(c.Request.Context(), c.Caller, fmt.Sprintf("%s %s at the real AWS: %d, %d bytes sent, %d received, %d ms", p.Service, operation, p.Status, p.Sent, p.Received, time.Since(c.Now).Milliseconds()))
	}
}
