package server

import (
	"context"
	"fmt"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
)

// Rollback makes an earlier Deployment current: the one named, or with to empty the one before the current.
func (s *Server) Rollback(ctx context.Context, appName, stage, to string) (*api.Deployed, error) {
	start := time.Now()
	k := state.StackKey{Tenant: tenant, App: appName, Stage: stage}
	s.stacks.deploy.Lock()
	defer s.stacks.deploy.Unlock()
	before, err := s.state.Current(ctx, k)
	if err != nil {
		return nil, noStack(err, appName, stage)
	}
	if to == "" {
		// What the current one replaced, not what was written before it: that may have been rolled back from already.
		now, err := s.state.Deployment(ctx, k, before.Deployment)
		if err != nil {
			return nil, err
		}
		if to = now.Parent; to == "" {
			return nil, errs.New(errs.NotFound, "%s at stage %s has no earlier deployment", appName, stage).
				WithHint("`ebb ls --history` shows what there is.")
		}
	}
	d, err := s.state.Deployment(ctx, k, to)
	if err != nil {
		return nil, err
	}
	if err := s.checkLocal(d.App); err != nil {
		return nil, err
	}
	was := s.stacks.get(k)
	changed := changedUnits(was, d)
	// It has served before, so nothing is probed: a rollback must be quick.
	staged, err := s.engine.Stage(ctx, stackID(k), s.units(stored(d), d), false)
	if err != nil {
		return nil, err
	}
	p, err := s.setCurrent(ctx, k, to, before.Seq)
	if err != nil {
		staged.Abort()
		return nil, err
	}
	if err := s.serve(d, p, staged); err != nil {
		return nil, err
	}
	out := s.deployed(d, before.Deployment, changed, start)
	out.Warnings = append(out.Warnings, s.followed(ctx, d, was)...)
	s.metrics.Deploy("rollback")
	return out, nil
}

func noStack(err error, appName, stage string) error {
	if errs.CodeOf(err) != errs.NotFound {
		return err
	}
	return errs.New(errs.NotFound, "no app %s at stage %s is deployed", appName, stage).WithHint("`ebb ls` shows what is deployed.")
}

// Remove takes a Stack away: its records first, which is what a restart goes by, then the traffic, then the Instances. One
// that broke off in the middle is finished by the next.
func (s *Server) Remove(ctx context.Context, appName, stage string) error {
	k := state.StackKey{Tenant: tenant, App: appName, Stage: stage}
	s.stacks.deploy.Lock()
	defer s.stacks.deploy.Unlock()
	if _, err := s.state.Current(ctx, k); err != nil && (errs.CodeOf(err) != errs.NotFound || s.stacks.get(k) == nil) {
		return noStack(err, appName, stage)
	}
	if err := s.state.Remove(ctx, k); err != nil && errs.CodeOf(err) != errs.NotFound {
		return err
	}
	was := s.stacks.get(k)
	s.unserve(k)
	if err := s.forgetEvents(ctx, k, was); err != nil {
		return fmt.Errorf("%s at stage %s is removed, but not its subscriptions: %w", appName, stage, err)
	}
	s.collectSoon()
	return nil
}

// Only serves one Stack from now on. The others keep their records, and serve again after a restart.
func (s *Server) Only(appName, stage string) {
	s.stacks.deploy.Lock()
	defer s.stacks.deploy.Unlock()
	for k := range s.stacks.all() {
		if k.App != appName || k.Stage != stage {
			s.unserve(k)
		}
	}
}

// unserve takes a Stack out of traffic, then ends its Instances.
func (s *Server) unserve(k state.StackKey) {
	s.gateway.Unmount(k.Tenant, k.App, k.Stage)
	s.pollers.want(s, stackID(k), nil)
	s.engine.Remove(stackID(k))
	if now := s.stacks.get(k); now != nil {
		s.observer.forget(k, now.functions)
		for _, f := range now.functions {
			s.egress.Forget(stackID(k) + "/" + f.Key)
		}
	}
	s.stacks.set(k, nil)
	s.trash.gone(k)
}
