package serverless

import (
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// eventKeys warns of unknown settings of an event.
func (c *compiler) eventKeys(e event) {
	if isIntrinsic(e.v) {
		return
	}
	c.keys(e.v, "in a "+e.kind+" event", eventKeys[e.kind])
}

// events compiles every event. A kind that is not known becomes a declared Trigger.
func (c *compiler) events() {
	for _, compile := range []func(){
		c.schedules, c.buckets, c.rest, c.websockets, c.topics, c.streams, c.brokers, c.loadBalancers, c.alexa, c.iot,
		c.cloudwatchEvents, c.logFilters, c.userPools, c.eventBridge, c.queues, c.cloudFront, c.httpAPI,
	} {
		compile()
	}
	for _, fn := range c.fns {
		for _, e := range fn.events {
			if _, known := eventKeys[e.kind]; !known {
				c.unknownEvent(fn, e)
			}
		}
	}
}

func (c *compiler) unknownEvent(fn *function, e event) {
	known := make([]string, 0, len(eventKeys))
	for k := range eventKeys {
		known = append(known, k)
	}
	slices.Sort(known)
	hint := "Nothing invokes the function this way; the event is kept in the app as declared."
	if near := diag.Nearest(e.kind, known); near != "" {
		hint = "Did you mean \"" + near + "\"?"
	}
	c.l.Warnf(e.pos, "inactive-trigger", hint, "the event %q of function %q is declared, not yet active", e.kind, fn.key)
	c.declare(fn, e, app.Value{}, true)
}

// declare adds a Trigger that has no form of its own in a template, with the settings as they stand or, where
// other formats have the same kind, in the form that it has in a template.
func (c *compiler) declare(fn *function, e event, source app.Value, enabled bool, form ...*cfn.Node) {
	kept := e.v
	if len(form) > 0 {
		kept = form[0]
	}
	c.decl = append(c.decl, app.Trigger{Function: fn.key, Kind: e.kind, Source: source, Enabled: enabled, Settings: settings(kept)})
}

// settings keeps an event's settings as plain data; a single value stands under "value".
func settings(n *cfn.Node) map[string]any {
	if n.IsNull() || isTrue(n) || n.Kind == cfn.Map && len(n.Entries) == 0 {
		return nil
	}
	plain := asJSON(n.Plain())
	if m, ok := plain.(map[string]any); ok {
		return m
	}
	return map[string]any{"value": plain}
}

// asJSON gives numbers the type they have after JSON, so that an App is the same before and after.
func asJSON(x any) any {
	switch x := x.(type) {
	case int64:
		return float64(x)
	case []any:
		for i := range x {
			x[i] = asJSON(x[i])
		}
	case map[string]any:
		for k := range x {
			x[k] = asJSON(x[k])
		}
	}
	return x
}

// lastWord is what follows the last of the separators: the resource's name in an ARN.
func lastWord(s, seps string) string { return s[strings.LastIndexAny(s, seps)+1:] }
