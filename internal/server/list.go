package server

import (
	"context"
	"net"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
)

// Stacks lists what is deployed.
func (s *Server) Stacks(context.Context) ([]api.Stack, error) {
	instances := map[string]int{}
	kept := s.kept()
	for _, u := range s.engine.Stats() {
		instances[u.Stack] += u.Starting + u.Idle + u.Busy + u.Draining
	}
	list := []api.Stack{}
	for k, v := range s.stacks.all() {
		list = append(list, api.Stack{
			App: k.App, Stage: k.Stage, Deployment: v.deployment, Changed: v.changed, Gateway: s.stackURL(k), Functions: s.functions(k, v, kept),
			Routes: s.routes(k), Instances: instances[stackID(k)], Error: v.broken,
		})
	}
	slices.SortFunc(list, func(a, b api.Stack) int {
		return strings.Compare(a.App+"/"+a.Stage, b.App+"/"+b.Stage)
	})
	return list, nil
}

// History lists a Stack's Deployments, newest first.
func (s *Server) History(ctx context.Context, appName, stage string) ([]api.Deployment, error) {
	list, err := s.state.History(ctx, state.StackKey{Tenant: tenant, App: appName, Stage: stage})
	if err != nil {
		return nil, noStack(err, appName, stage)
	}
	out := make([]api.Deployment, 0, len(list))
	for _, h := range list {
		out = append(out, api.Deployment{ID: h.ID, Created: h.Created, By: h.By, Message: h.Message, Functions: h.Functions, Current: h.Current})
	}
	if len(out) == 0 {
		return nil, noStack(errs.New(errs.NotFound, "empty"), appName, stage)
	}
	return out, nil
}

// stackURL is where a Stack answers: every host leads to the only one, and each of several has a host of its own.
func (s *Server) stackURL(k state.StackKey) string {
	if len(s.stacks.all()) < 2 {
		return s.GatewayURL()
	}
	_, port, _ := net.SplitHostPort(s.doors.gateway.Addr().String()) // an address that a listener gave
	scheme, _, _ := strings.Cut(s.GatewayURL(), ":")
	return scheme + "://" + strings.ToLower(k.App+"."+k.Stage) + ".localhost:" + port
}

// kept lists the Units that keep Instances, by their ID.
func (s *Server) kept() map[string]engine.UnitStats {
	kept := map[string]engine.UnitStats{}
	for _, u := range s.engine.Stats() {
		if u.Provisioned > 0 {
			kept[u.ID] = u
		}
	}
	return kept
}

// functions gives the Functions with the whole URL of those that have one, and the Instances of those that keep some.
func (s *Server) functions(k state.StackKey, v *serving, kept map[string]engine.UnitStats) []api.FunctionInfo {
	list := slices.Clone(v.functions)
	for i := range list {
		u := kept[stackID(k)+"/"+list[i].Key]
		list[i].Provisioned, list[i].ProvisionedReady = u.Provisioned, u.ProvisionedReady
		if list[i].URL != "" {
			list[i].URL = s.stackURL(k) + list[i].URL
		}
	}
	return list
}

func (s *Server) routes(k state.StackKey) []api.RouteInfo {
	list := []api.RouteInfo{}
	for _, r := range s.gateway.Routes(k.Tenant, k.App, k.Stage) {
		list = append(list, api.RouteInfo{Method: r.Method, Path: r.Path, Function: r.Function, Key: r.Key, URL: r.URL, Inactive: r.Inactive})
	}
	return list
}

// find returns the full name of the Function with the name or key.
func (s *Server) find(name string) (string, error) {
	var keys, names []string
	var all []string
	for _, v := range s.stacks.all() {
		for _, f := range v.functions {
			all = append(all, f.Key, f.Name)
			if f.Name == name {
				names = append(names, f.Name)
			} else if f.Key == name {
				keys = append(keys, f.Name)
			}
		}
	}
	switch {
	case len(names) > 0:
		return names[0], nil
	case len(keys) == 1:
		return keys[0], nil
	case len(keys) > 1:
		slices.Sort(keys)
		return "", errs.New(errs.Conflict, "several functions have the key %s", name).WithHint("Give the full name: %s.", strings.Join(keys, " or "))
	}
	return "", nearestFunction(name, all)
}
