package cloudformation

import (
	"regexp"

	"github.com/ebb-run/ebb/internal/app"
)

// resourceName finds the name in an Application Auto Scaling "function:NAME:ALIAS".
var resourceName = regexp.MustCompile(`^function:([A-Za-z0-9_-]+)`)

// scaling reads the Application Auto Scaling of provisioned concurrency: its least capacity, and that of its scheduled actions. A
// target of anything else stays as it is, as does the policy that scales by use.
func (l *loader) scaling(r *resource) {
	o := l.object(r.props)
	if o.str("ScalableDimension") != "lambda:function:ProvisionedConcurrency" {
		return
	}
	f := l.scaled(o.val("ResourceId"))
	if f == nil {
		l.diags.Warnf(o.pos("ResourceId"), "not-here", "", "%s %q is about a function outside this template: %s", shortType(r.typ), r.id, o.val("ResourceId"))
		return
	}
	f.Provisioned = max(f.Provisioned, o.num("MinCapacity", 0))
	for _, a := range o.objs("ScheduledActions") {
		to := a.obj("ScalableTargetAction")
		if !to.has("MinCapacity") {
			continue // only the most changes
		}
		for _, key := range []string{"StartTime", "EndTime"} {
			if a.has(key) {
				l.diags.Warnf(a.pos(key), "no-effect", "", "%s of a scheduled action is not kept: the action is always in force", key)
			}
		}
		f.Schedule = append(f.Schedule, app.Scaling{When: a.str("Schedule"), TimeZone: a.str("Timezone"), Provisioned: to.num("MinCapacity", 0)})
	}
}

// scaled is the Function that a ResourceId names, or nil.
func (l *loader) scaled(v app.Value) *app.Function {
	key := l.named(v)
	if m := resourceName.FindStringSubmatch(v.String()); key == "" && m != nil {
		for i := range l.app.Functions {
			if l.app.Functions[i].Name == m[1] {
				return &l.app.Functions[i]
			}
		}
	}
	if key == "" {
		return nil
	}
	return l.app.Function(key)
}
