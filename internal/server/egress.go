package server

import (
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/telemetry"
)

// openEgress makes what connects functions to the world, by the setting: a mode, destinations, or "anything" and destinations.
func (s *Server) openEgress() (*egress.Egress, error) {
	mode, allow := egress.AllowList, []string{}
	for i, word := range strings.FieldsFunc(s.o.Config.Egress, func(r rune) bool { return r == ',' || r == ' ' }) {
		m, err := egress.ParseMode(word)
		switch {
		case err != nil:
			allow = append(allow, word)
		case i > 0:
			return nil, errs.New(errs.Invalid, "setting egress: %q comes first or not at all", word).
				WithHint("Write --egress anything,localhost:5432, or a list alone, or closed.")
		default:
			mode = m
		}
	}
	if mode == egress.Closed && len(allow) > 0 {
		return nil, errs.New(errs.Invalid, "setting egress: closed, but %s is named", allow[0]).WithHint("Leave closed out: a list alone allows what it names.")
	}
	p, err := egress.NewPolicy(mode, allow)
	if err != nil {
		return nil, errs.New(errs.Invalid, "setting egress: %w", err)
	}
	return egress.New(egress.Options{Policy: func(string) egress.Policy { return p }, Setting: "--egress", Log: s.o.Log, Refused: s.egressRefused}), nil
}

// egressCounts sums what Functions that are deployed have used of the network.
func (s *Server) egressCounts() []telemetry.EgressCount {
	var all []telemetry.EgressCount
	for _, u := range s.egress.Usage() { // ordered by owner
		part := strings.SplitN(u.Owner, "/", 4) // a Unit's ID
		if len(part) != 4 {
			continue
		}
		k := state.StackKey{Tenant: part[0], App: part[1], Stage: part[2]}
		now := s.stacks.get(k)
		if now == nil {
			continue
		}
		i := slices.IndexFunc(now.functions, func(f api.FunctionInfo) bool { return f.Key == part[3] })
		if i < 0 {
			continue
		}
		c := telemetry.EgressCount{Tenant: k.Tenant, App: k.App, Stage: k.Stage, Function: now.functions[i].Name}
		if n := len(all); n == 0 || all[n-1].Function != c.Function {
			all = append(all, c)
		}
		sum := &all[len(all)-1]
		sum.Made, sum.Failed, sum.Refused = sum.Made+u.Connections, sum.Failed+u.Failures, sum.Refused+u.Refusals
		sum.Sent, sum.Received = sum.Sent+u.Sent, sum.Received+u.Received
	}
	return all
}
