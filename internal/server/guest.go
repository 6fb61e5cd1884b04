package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/telemetry"
)

// guest makes everything an Instance needs: the code on disk, and the environment unsealed.
func (s *Server) guest(ctx context.Context, d *state.Deployment, key string) (*guest.Unit, error) {
	i := slices.IndexFunc(d.Units, func(u state.Unit) bool { return u.Key == key })
	f := d.App.Function(key)
	if i < 0 || f == nil {
		return nil, errs.New(errs.NotFound, "deployment %s has no function %s", d.ID, key)
	}
	u := d.Units[i]
	found, err := s.runtimes.Resolve(ctx, u.Runtime)
	if err != nil {
		return nil, err
	}
	account := s.o.Config.Account
	g := &guest.Unit{
		Function: f.Name, Version: "$LATEST", ARN: arn.Function(region(d.App), account, f.Name).String(), Runtime: u.Runtime, Handler: u.Handler,
		Interpreter: found.Command, MemoryMB: f.MemoryMB, Timeout: time.Duration(f.TimeoutSec) * time.Second,
		Region: region(d.App), Account: account, LogGroup: "/aws/lambda/" + f.Name,
		LogStream: time.Now().UTC().Format("2006/01/02") + "/[$LATEST]", Note: found.Note,
		Mounts: s.driverOf(f).Traits().Mounts,
	}
	if g.Root, err = s.artifacts.Materialise(ctx, u.Code); err != nil {
		return nil, err
	}
	opt, err := s.opt(u)
	if err != nil {
		return nil, err
	}
	if opt != "" {
		if g.Layers, err = s.artifacts.Materialise(ctx, opt); err != nil {
			return nil, err
		}
	}
	if u.Supplied != "" {
		if g.Supplied, err = s.artifacts.Materialise(ctx, u.Supplied); err != nil {
			return nil, err
		}
	}
	g.Compiled = s.compiled(u.Code, found.Version, g, opt, u.Supplied)
	g.Credentials, g.Trust = s.wires.credentials(d.Stack, f.Name, ""), g.Mounts
	g.Capture = s.unitCapture(s.driverOf(f))
	g.Env, _ = s.resolver(d).env(f)
	return g, nil
}

func region(a *app.App) string {
	if a.Region == "" {
		return "us-east-1"
	}
	return a.Region
}

// Info describes the Node.
func (s *Server) Info() api.Info {
	return api.Info{Version: s.o.Version, PID: os.Getpid(), Started: s.started, Gateway: s.GatewayURL(), Data: s.o.Config.Data, Sealed: s.seal != nil, Tables: s.tablesIn, Drivers: s.checks}
}

// Ready says whether calls will succeed: it serves, and what Instances are started from can be read.
func (s *Server) Ready() error {
	if !s.ready.Load() {
		return errs.New(errs.Unavailable, "starting or stopping")
	}
	return s.nats.Healthy()
}

// Metrics serves the Prometheus page.
func (s *Server) Metrics() http.Handler { return s.metrics.Handler() }

// Missing lists the blobs of the manifest that are not here.
func (s *Server) Missing(m *artifact.Manifest) ([]string, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	missing := s.artifacts.Missing(m)
	if missing == nil {
		missing = []string{}
	}
	return missing, nil
}

// Invoke runs a Function directly.
func (s *Server) Invoke(ctx context.Context, function string, inv *invocation.Invocation, sink invocation.Sink) error {
	full, err := s.resolveFunction(function)
	if err != nil {
		return err
	}
	inv.ID, inv.Tenant, inv.Function = newID(), tenant, full
	return invoker{s}.Invoke(ctx, inv, sink)
}

// resolveFunction gives the full name of a Function that is named by key, name or ARN.
func (s *Server) resolveFunction(function string) (string, error) {
	name, qualifier, err := arn.FunctionName(function)
	if err != nil {
		return "", errs.New(errs.Invalid, "%w", err)
	}
	if qualifier != "" && qualifier != "$LATEST" {
		return "", errs.New(errs.NotFound, "function %s has no version or alias %s", name, qualifier)
	}
	return s.find(name)
}

func nearestFunction(name string, all []string) error {
	e := errs.New(errs.NotFound, "no function %s is deployed", name)
	if near := diag.Nearest(name, all); near != "" {
		return e.WithHint("Did you mean %s?", near)
	}
	if len(all) == 0 {
		return e.WithHint("Nothing is deployed yet; `ebb deploy` does it.")
	}
	return e.WithHint("`ebb ls` shows what is deployed.")
}

// PutBlob stores an uploaded file.
func (s *Server) PutBlob(sha string, size int64, r io.Reader) error {
	return s.artifacts.PutBlob(sha, size, r)
}

// PutManifest stores an uploaded manifest.
func (s *Server) PutManifest(m *artifact.Manifest) (string, error) { return s.artifacts.PutManifest(m) }

// Logs reads kept output.
func (s *Server) Logs(ctx context.Context, q api.LogQuery, begun func(), each func(api.LogRecord) error) error {
	function := ""
	if q.Function != "" {
		var err error
		if function, err = s.find(q.Function); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if q.Follow {
		defer context.AfterFunc(s.following, cancel)()
	}
	begun()
	return s.logs.Read(ctx, telemetry.Query{
		App: q.App, Stage: q.Stage, Function: function, Invocation: q.Invocation, Since: q.Since, Tail: q.Tail, Follow: q.Follow,
	}, func(r telemetry.Record) error {
		return each(api.LogRecord{
			Time: r.Time, App: r.App, Stage: r.Stage, Function: r.Function, Instance: r.Instance, Invocation: r.Invocation, Kind: r.Kind, Text: r.Text,
		})
	})
}

// newID returns a random UUID, version 4.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
