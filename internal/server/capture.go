package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// capture is what functions that share this machine's network and files have in the place of a Sandbox's: addresses on loopback at which AWS's
// names are answered, a proxy for the rest, and files. Where all functions have Sandboxes of their own it is empty.
type capture struct {
	files guest.Capture // but for the Instance's own
	tls   net.Listener
	proxy *proxy
}

// openCapture makes it, where there are such functions.
func (s *Server) openCapture(out sandbox.Egress) (err error) {
	if s.driver.Traits().Mounts {
		return nil
	}
	c, w := &s.capture, &s.wires
	dir, err := filepath.Abs(filepath.Join(s.o.Config.Data, "capture"))
	if err != nil {
		return fmt.Errorf("find the folder of certificates: %w", err)
	}
	ca, roots := w.trust()
	c.files = guest.Capture{Domains: capturedDomains, CA: filepath.Join(dir, "ca.pem"), Empty: filepath.Join(dir, "empty")}
	files := map[string][]byte{c.files.CA: ca, c.files.Empty: nil}
	if len(roots) > len(ca) {
		c.files.Roots = filepath.Join(dir, "roots.pem")
		files[c.files.Roots] = roots
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of certificates: %w", err)
	}
	for name, data := range files {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return fmt.Errorf("write certificates for functions: %w", err)
		}
	}
	if c.tls, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return errs.New(errs.Unavailable, "listen for functions' calls of AWS's services: %w", err)
	}
	s.closing(func() error { return ignoreClosed(c.tls.Close()) }) // also where it is never served
	if c.proxy, err = openProxy(proxyOptions{Out: out, Known: s.proxied, Roots: roots, Refused: s.tellRefused, Log: s.o.Log}); err != nil {
		return err
	}
	s.closing(c.proxy.Close)
	c.files.URL, c.files.Clear, c.files.TLS = s.AWSURL(), w.door.Addr().String(), c.tls.Addr().String()
	return nil
}

// unitCapture is that of a Unit which a driver runs.
func (s *Server) unitCapture(d sandbox.Driver) *guest.Capture {
	if d.Traits().Mounts || s.capture.proxy == nil {
		return nil
	}
	files := s.capture.files
	return &files
}

// withheld warns of variables of Functions that would lead past it, and which they do not get as they are set.
func (s *Server) withheld(d *state.Deployment) []string {
	var lists, warnings []string
	having := map[string][]string{} // list of names → keys of Functions
	r := s.resolver(d)
	for i := range d.App.Functions {
		f := &d.App.Functions[i]
		if s.unitCapture(s.driverOf(f)) == nil {
			continue
		}
		env, _ := r.env(f)
		list := strings.Join(lambda.Withheld(env, capturedDomains), ", ")
		if list != "" && having[list] == nil {
			lists = append(lists, list)
		}
		having[list] = append(having[list], f.Key)
	}
	for _, list := range lists {
		warnings = append(warnings, fmt.Sprintf("%s of %s would lead past ebb to the real AWS or to this machine's credentials, and has no effect where functions "+
			"share this machine's network", list, strings.Join(having[list], ", ")))
	}
	return warnings
}

// own gives a Unit that shares this machine's network what tells its Instance apart there: credentials, and the way out.
func (s *Server) own(instance string, g *guest.Unit) {
	from := s.sink.origin(instance)
	if g.Capture == nil || from == nil {
		return
	}
	g.Credentials = s.wires.credentials(from.stack, from.function, instance)
	c := *g.Capture
	c.Proxy = s.capture.proxy.URL(instance, s.sink.token("proxy "+instance))
	g.Capture = &c
}

// proxied finds whose a request to the proxy is.
func (s *Server) proxied(instance, token string) *origin {
	if !sameText(token, s.sink.token("proxy "+instance)) {
		return nil
	}
	return s.sink.origin(instance)
}

// tellRefused shows in a function's log what it was not let connect to.
func (s *Server) tellRefused(o *origin, err error) {
	text := "ebb: " + err.Error()
	if hint := errs.HintOf(err); hint != "" {
		text += " (" + hint + ")"
	}
	s.logs.Write(telemetry.Record{
		Time: time.Now(), Tenant: o.stack.Tenant, App: o.stack.App, Stage: o.stack.Stage, Function: o.function, Kind: telemetry.KindLine, Text: text,
		Invocation: o.current().id,
	})
}

// known finds out which Instance a request came from that came in over the machine's network: by its credentials. They are only read here; who does
// not have them has signed with others, and is told so.
func (w *wires) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if originOf(r.Context()) == nil {
			if o := w.signer(r); o != nil {
				r = r.WithContext(context.WithValue(r.Context(), originKey{}, o))
			}
		}
		next.ServeHTTP(rw, r)
	})
}

func (w *wires) signer(r *http.Request) *origin {
	claim, err := sign.Parse(r)
	if err != nil || claim.Token == "" || claim.Presigned { // an address that was signed is for others
		return nil
	}
	b, _, ok, err := w.keys.Bearer(claim.AccessKey, claim.Token, time.Now())
	if !ok || err != nil || b.Instance == "" {
		return nil
	}
	return w.s.sink.origin(b.Instance)
}
