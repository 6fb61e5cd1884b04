package serverless

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

func state(e event) string {
	if isFalse(e.v.Get("enabled")) {
		return "DISABLED"
	}
	return "ENABLED"
}

// input gives what a rule sends instead of its event: JSON text, from a text or from a map.
func (c *compiler) input(e event) any {
	n := e.v.Get("input")
	if !truthy(n) {
		return nil
	}
	if s, ok := n.Text(); ok {
		return s
	}
	// A body given as JSON text is meant as its content.
	if body, ok := stringOf(n.Get("body")); ok {
		if parsed, l := cfn.ParseDoc(n.Pos.File, []byte(body)); parsed != nil && !l.HasErrors() && parsed.Kind != cfn.Scalar {
			n = n.With("body", parsed)
		}
	}
	return jsonOf(n)
}

func (c *compiler) transformer(n *cfn.Node) *cfn.Node {
	if !truthy(n) {
		return nil
	}
	c.keys(n, "in inputTransformer", words("inputTemplate inputPathsMap"))
	return obj(n.Pos, "InputTemplate", n.Get("inputTemplate"), "InputPathsMap", or(n.Get("inputPathsMap")))
}

func (c *compiler) oneInput(e event) {
	n := 0
	for _, key := range []string{"input", "inputPath", "inputTransformer"} {
		if truthy(e.v.Get(key)) {
			n++
		}
	}
	if n > 1 {
		c.l.Errorf(e.pos, "bad-value", "Keep one of input, inputPath and inputTransformer.", "an event %q says in more than one way what the function gets", e.kind)
	}
}

// schedules compiles schedule events: rules of the event bus, or of EventBridge Scheduler.
func (c *compiler) schedules() {
	number := map[*function]int{}
	c.eventsOf("schedule", func(fn *function, e event) {
		rates := e.v
		if e.v.Kind == cfn.Map && !isIntrinsic(e.v) {
			c.eventKeys(e)
			c.oneInput(e)
			rates = e.v.Get("rate")
		}
		if !truthy(rates) {
			c.l.Errorf(e.pos, "missing-key", "Add `rate: rate(5 minutes)` or a cron().", "a schedule of function %q says no time", fn.key)
			return
		}
		for _, rate := range list(rates) {
			if isPoison(rate) {
				continue
			}
			if s, ok := rate.Text(); ok && !strings.HasPrefix(s, "rate(") && !strings.HasPrefix(s, "cron(") && !strings.HasPrefix(s, "at(") {
				c.l.Errorf(rate.Pos, "bad-value", "Write rate(5 minutes) or cron(0 12 * * ? *).", "%q is no schedule", s)
				continue
			}
			number[fn]++
			if m, _ := e.v.Get("method").Text(); m == "scheduler" {
				c.scheduler(fn, e, rate, number[fn])
			} else {
				c.scheduleRule(fn, e, rate, number[fn])
			}
		}
	})
}

func (c *compiler) scheduleRule(fn *function, e event, rate *cfn.Node, number int) {
	id := normal(fn.key) + "EventsRuleSchedule" + strconv.Itoa(number)
	target := obj(e.pos, "Input", c.input(e), "InputPath", or(e.v.Get("inputPath")), "InputTransformer", c.transformer(e.v.Get("inputTransformer")),
		"Arn", c.target(fn, e.pos), "Id", fn.key+"Schedule")
	c.put(id, e.pos, "AWS::Events::Rule", obj(e.pos, "ScheduleExpression", rate, "State", state(e),
		"Name", or(e.v.Get("name")), "Description", or(e.v.Get("description")), "Targets", []*cfn.Node{target}), "DependsOn", nonEmpty(fn.alias))
	c.permit(normal(fn.key)+"LambdaPermissionEventsRuleSchedule"+strconv.Itoa(number), fn, e.pos, "events.amazonaws.com", "SourceArn", getAtt(e.pos, id, "Arn"))
}

func (c *compiler) scheduler(fn *function, e event, rate *cfn.Node, number int) {
	role, _ := c.functionRole(fn)
	c.assumers = []string{"scheduler.amazonaws.com"}
	c.put(normal(fn.key)+"SchedulerSchedule"+strconv.Itoa(number), e.pos, "AWS::Scheduler::Schedule", obj(e.pos,
		"ScheduleExpression", rate, "State", state(e),
		"Target", obj(e.pos, "Arn", c.target(fn, e.pos), "RoleArn", role, "Input", c.input(e)),
		"FlexibleTimeWindow", obj(e.pos, "Mode", "OFF"),
		"Name", or(e.v.Get("name")), "Description", or(e.v.Get("description")),
		"ScheduleExpressionTimezone", or(e.v.Get("timezone"))), "DependsOn", nonEmpty(fn.alias))
	arn := "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:" + fn.name
	c.allow(e.pos, []string{"lambda:InvokeFunction"}, obj(e.pos, "Fn::Sub", arn), obj(e.pos, "Fn::Sub", arn+":*"))
}

// shortName keeps a name within 64 characters as Serverless does: its beginning, a digest, its end.
func shortName(name, suffix string) string {
	if len(name) <= 64 {
		return name
	}
	sum := md5.Sum([]byte(name))
	return name[:31-len(suffix)] + hex.EncodeToString(sum[:]) + "-" + suffix
}

// eventBridge compiles eventBridge events. An event bus that is named, not referred to, is created.
func (c *compiler) eventBridge() {
	for _, fn := range c.fns {
		for i, e := range fn.events {
			if e.kind == "eventBridge" && !isPoison(e.v) {
				c.eventBridgeRule(fn, e, i+1)
			}
		}
	}
}

func (c *compiler) eventBridgeRule(fn *function, e event, number int) {
	if e.v.Kind != cfn.Map {
		c.l.Errorf(e.pos, "missing-key", "Add a pattern or a schedule below it, indented.", "an eventBridge event of function %q has no settings", fn.key)
		return
	}
	c.eventKeys(e)
	c.oneInput(e)
	if !truthy(e.v.Get("pattern")) && !truthy(e.v.Get("schedule")) {
		c.l.Errorf(e.pos, "missing-key", "Add a pattern or a schedule.", "an eventBridge event of function %q has neither a pattern nor a schedule", fn.key)
	}
	var deps any = nonEmpty(fn.alias)
	bus := or(e.v.Get("eventBus"))
	if s, ok := bus.Text(); ok {
		switch {
		case strings.HasPrefix(s, "arn"):
			bus = cfn.Str(bus.Pos, s[strings.IndexByte(s, '/')+1:])
		case s == "default":
			bus = nil
		case !strings.HasPrefix(s, "{{resolve:"):
			id := normal(s) + "EventBridgeEventBus"
			c.put(id, bus.Pos, "AWS::Events::EventBus", obj(bus.Pos, "Name", s))
			deps = id
		}
	}
	stub := fmt.Sprintf("%s-rule-%d", fn.name, number)
	name := shortName(stub, fmt.Sprintf("rule-%d", number))
	if own, ok := e.v.Get("name").Text(); ok && own != "" {
		name = own
	}
	var retry, dead *cfn.Node
	if r := e.v.Get("retryPolicy"); truthy(r) {
		c.keys(r, "in retryPolicy", words("maximumEventAge maximumRetryAttempts"))
		retry = obj(r.Pos, "MaximumEventAgeInSeconds", or2(r.Get("maximumEventAge")), "MaximumRetryAttempts", or2(r.Get("maximumRetryAttempts")))
	}
	if d := e.v.Get("deadLetterQueueArn"); truthy(d) {
		dead = obj(d.Pos, "Arn", d)
	}
	var in any
	if n := e.v.Get("input"); truthy(n) {
		in = jsonOf(n)
	}
	target := obj(e.pos, "Arn", c.target(fn, e.pos), "Id", shortName(name+"-target", "target"), "RetryPolicy", retry, "DeadLetterConfig", dead,
		"Input", in, "InputPath", or(e.v.Get("inputPath")), "InputTransformer", c.transformer(e.v.Get("inputTransformer")))
	c.put(alphanumeric(stub)+"EventBridgeRule", e.pos, "AWS::Events::Rule", obj(e.pos,
		"Description", or(e.v.Get("description")), "EventBusName", bus, "EventPattern", or(e.v.Get("pattern")), "Name", name,
		"ScheduleExpression", or(e.v.Get("schedule")), "State", state(e), "Targets", []*cfn.Node{target}), "DependsOn", deps)
	path := []any{"rule", name}
	if b := e.v.Get("eventBus"); truthy(b) {
		path = []any{"rule", or(bus, b), name}
	}
	c.permit(normal(fn.key)+"EventBridgeLambdaPermission"+strconv.Itoa(number), fn, e.pos, "events.amazonaws.com",
		"SourceArn", c.ruleArn(e.pos, path))
}

func (c *compiler) ruleArn(pos diag.Pos, path []any) *cfn.Node {
	return join(pos, ":", "arn", ref(pos, "AWS::Partition"), "events", ref(pos, "AWS::Region"), ref(pos, "AWS::AccountId"), join(pos, "/", path...))
}

// cloudwatchEvents compiles cloudwatchEvent events, the older form of eventBridge patterns.
func (c *compiler) cloudwatchEvents() {
	number := map[*function]int{}
	c.eventsOf("cloudwatchEvent", func(fn *function, e event) {
		c.eventKeys(e)
		c.oneInput(e)
		pattern := e.v.Get("event")
		if !truthy(pattern) {
			c.l.Errorf(e.pos, "missing-key", "Add `event:` with a pattern.", "a cloudwatchEvent of function %q has no pattern", fn.key)
			return
		}
		number[fn]++
		n := strconv.Itoa(number[fn])
		id := normal(fn.key) + "EventsRuleCloudWatchEvent" + n
		target := obj(e.pos, "Input", c.input(e), "InputPath", or(e.v.Get("inputPath")), "InputTransformer", c.transformer(e.v.Get("inputTransformer")),
			"Arn", c.target(fn, e.pos), "Id", fn.key+"CloudWatchEvent")
		c.put(id, e.pos, "AWS::Events::Rule", obj(e.pos, "EventPattern", pattern, "State", state(e), "Description", or(e.v.Get("description")),
			"Name", or(e.v.Get("name")), "Targets", []*cfn.Node{target}), "DependsOn", nonEmpty(fn.alias))
		c.permit(normal(fn.key)+"LambdaPermissionEventsRuleCloudWatchEvent"+n, fn, e.pos, "events.amazonaws.com", "SourceArn", getAtt(e.pos, id, "Arn"))
	})
}
