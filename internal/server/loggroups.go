package server

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire/logs"
)

// logGroupKind is that of the sealed records of log groups.
const logGroupKind = "loggroup"

// ofFunctions begins the names of the log groups of Functions.
const ofFunctions = "/aws/lambda/"

// openLogs opens what Functions write, and what clients put into log groups: that is told to be durable when it is acknowledged.
func (s *Server) openLogs(output, events string) (err error) {
	most := int64(s.o.Config.LogMaxMB) << 20
	if s.logs, err = telemetry.OpenLogs(output, telemetry.LogOptions{MaxBytes: most, Seal: s.seal.Box("logs")}); err != nil {
		return err
	}
	s.closing(s.logs.Close)
	if s.logEvents, err = telemetry.OpenLogs(events, telemetry.LogOptions{MaxBytes: most, Durable: true, Seal: s.seal.Box("logevents"), Log: s.o.Log}); err != nil {
		return err
	}
	s.closing(s.logEvents.Close)
	return nil
}

// logGroups lists the groups that Apps have: those of their Functions, and what they declare.
func (c *calls) logGroups(ctx context.Context, appName string) (list []logs.Group, err error) {
	err = c.each(ctx, appName, "", func(d *state.Deployment, now *serving) error {
		at := map[string]int{}
		add := func(g logs.Group) {
			if i, ok := at[g.Name]; ok {
				list[i].Days = g.Days
				return
			}
			at[g.Name] = len(list)
			list = append(list, g)
		}
		for i := range d.App.Functions {
			f := &d.App.Functions[i]
			add(logs.Group{App: d.Stack.App, Name: ofFunctions + f.Name, Function: f.Name, Created: now.changed})
		}
		r := c.s.resolver(d)
		for i := range d.App.Resources {
			res := &d.App.Resources[i]
			if res.Type != "AWS::Logs::LogGroup" {
				continue
			}
			name, err := r.physicalName(res)
			if err != nil {
				continue // told at the deploy
			}
			add(logs.Group{App: d.Stack.App, Name: name, Created: now.changed, Days: retentionIn(r, res.Properties["RetentionInDays"])})
		}
		return nil
	})
	return list, err
}

// retentionIn reads RetentionInDays, a number or its text; 0 where there is none.
func retentionIn(r resolver, v any) int {
	plain, err := r.plain(v)
	if err != nil {
		return 0
	}
	text, err := json.Marshal(plain)
	if err != nil {
		return 0
	}
	if s, ok := plain.(string); ok {
		text = []byte(s)
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 {
		return 0
	}
	return n
}
