package server

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/certs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/all"
)

// openDrivers opens what makes Sandboxes. Strong isolation for everything is refused here where it cannot be given, and that of a Function
// where this is deployed.
func (s *Server) openDrivers(ctx context.Context, out sandbox.Egress) error {
	path, _ := s.o.Env("PATH")
	ca, roots := s.wires.trust()
	store, err := certs.TrustStore(roots)
	if err != nil {
		return err
	}
	set, err := all.Drivers(all.Options{
		Dir: filepath.Join(s.working, "run"), Plain: s.o.Config.Isolation == "none", Egress: out, Log: s.o.Log,
		Ready: s.readyBytes(), Runtime: s.o.Config.OCIRuntime, Path: path, CA: ca, Roots: roots, Store: store,
	})
	if err != nil {
		return err
	}
	s.drivers, s.driver = set, set.Process()
	s.closing(set.Close)
	if err := s.checkProtections(set.Process()); err != nil {
		return err
	}
	if s.o.Config.Isolation != app.Strong {
		return nil
	}
	s.driver = set.Strong()
	return set.Strong().Check(ctx)
}

// driverOf is what runs a Function.
func (s *Server) driverOf(f *app.Function) sandbox.Driver {
	if f.Isolation == app.Strong {
		return s.drivers.Strong()
	}
	return s.driver
}

// checkStrong refuses an App with a Function that asks for an isolation which this machine cannot give.
func (s *Server) checkStrong(ctx context.Context, a *app.App) error {
	for i := range a.Functions {
		if f := &a.Functions[i]; f.Isolation == app.Strong {
			if err := s.drivers.Strong().Check(ctx); err != nil {
				return fmt.Errorf("function %s: %w", f.Key, err)
			}
		}
	}
	return nil
}
