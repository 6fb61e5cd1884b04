package serverless

import (
	"crypto/md5"
	"encoding/hex"
	"strconv"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
)

func oneLine(s string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(s) }

// logFilters compiles cloudwatchLog events.
func (c *compiler) logFilters() {
	number := map[*function]int{}
	groups := map[*function][]string{}
	c.eventsOf("cloudwatchLog", func(fn *function, e event) {
		group, ok := e.v.Text()
		filter := ""
		if !ok {
			c.eventKeys(e)
			group = c.text(e.v.Get("logGroup"), "logGroup")
			filter = c.text(e.v.Get("filter"), "filter")
		}
		if group == "" {
			c.l.Errorf(e.pos, "missing-key", "Add `logGroup: name`.", "a cloudwatchLog event of function %q names no log group", fn.key)
			return
		}
		group, filter = oneLine(group), oneLine(filter)
		number[fn]++
		groups[fn] = append(groups[fn], group)
		permission := normal(fn.key) + "LambdaPermissionLogsSubscriptionFilterCloudWatchLog"
		deps := []*cfn.Node{cfn.Str(e.pos, permission)}
		if fn.alias != "" {
			deps = append(deps, cfn.Str(e.pos, fn.alias))
		}
		c.put(normal(fn.key)+"LogsSubscriptionFilterCloudWatchLog"+strconv.Itoa(number[fn]), e.pos, "AWS::Logs::SubscriptionFilter", obj(e.pos,
			"LogGroupName", group, "FilterPattern", filter, "DestinationArn", c.target(fn, e.pos)), "DependsOn", deps)
		c.permit(permission, fn, e.pos, join(e.pos, "", "logs.", ref(e.pos, "AWS::Region"), ".amazonaws.com"),
			"SourceArn", join(e.pos, "", "arn:", ref(e.pos, "AWS::Partition"), ":logs:", ref(e.pos, "AWS::Region"), ":", ref(e.pos, "AWS::AccountId"),
				":log-group:", commonPrefix(groups[fn]), ":*"))
	})
}

// commonPrefix is the beginning that all names share, with a star when there are several.
func commonPrefix(names []string) string {
	p := names[0]
	for _, n := range names[1:] {
		for !strings.HasPrefix(n, p) {
			p = p[:len(p)-1]
		}
	}
	if len(names) > 1 && !strings.HasSuffix(p, "*") {
		p += "*"
	}
	return p
}

// iot compiles iot and iotFleetProvisioning events.
func (c *compiler) iot() {
	number := map[*function]int{}
	c.eventsOf("iot", func(fn *function, e event) {
		c.eventKeys(e)
		sql := c.text(e.v.Get("sql"), "sql")
		if sql == "" {
			c.l.Errorf(e.pos, "missing-key", "Add `sql: SELECT …`.", "an iot event of function %q has no sql", fn.key)
			return
		}
		number[fn]++
		n := strconv.Itoa(number[fn])
		id := normal(fn.key) + "IotTopicRule" + n
		payload := obj(e.pos, "RuleDisabled", isFalse(e.v.Get("enabled")), "Sql", oneLine(sql),
			"Actions", []*cfn.Node{obj(e.pos, "Lambda", obj(e.pos, "FunctionArn", c.target(fn, e.pos)))},
			"Description", or(e.v.Get("description")), "AwsIotSqlVersion", or(e.v.Get("sqlVersion")))
		c.put(id, e.pos, "AWS::IoT::TopicRule", obj(e.pos, "TopicRulePayload", payload, "RuleName", or(e.v.Get("name"))), "DependsOn", nonEmpty(fn.alias))
		c.permit(normal(fn.key)+"LambdaPermissionIotTopicRule"+n, fn, e.pos, "iot.amazonaws.com", "SourceArn",
			join(e.pos, "", "arn:", ref(e.pos, "AWS::Partition"), ":iot:", ref(e.pos, "AWS::Region"), ":", ref(e.pos, "AWS::AccountId"), ":rule/", ref(e.pos, id)))
	})
	c.eventsOf("iotFleetProvisioning", func(fn *function, e event) {
		c.eventKeys(e)
		permission := normal(fn.key) + "LambdaPermissionIotProvisioningTemplate"
		body := e.v.Get("templateBody")
		if body != nil && body.Kind == cfn.Map && !isIntrinsic(body) {
			body = cfn.Str(body.Pos, jsonOf(body))
		}
		c.put(normal(fn.key)+"IotProvisioningTemplate", e.pos, "AWS::IoT::ProvisioningTemplate", obj(e.pos,
			"Enabled", enabled(e), "ProvisioningRoleArn", e.v.Get("provisioningRoleArn"), "TemplateBody", body, "TemplateName", or(e.v.Get("templateName")),
			"PreProvisioningHook", obj(e.pos, "PayloadVersion", "2020-04-01", "TargetArn", c.target(fn, e.pos))), "DependsOn", permission)
		c.permit(permission, fn, e.pos, "iot.amazonaws.com")
		c.declare(fn, e, app.Value{}, !isFalse(e.v.Get("enabled")))
	})
}

// alexa compiles alexaSkill and alexaSmartHome events. Both are permissions only; the Trigger is declared beside.
func (c *compiler) alexa() {
	number := map[string]int{}
	each := func(fn *function, e event, id, principal string) {
		if e.v.IsNull() { // without a skill's ID Serverless gives no permission
			c.declare(fn, e, app.Value{}, true)
			return
		}
		skill, ok := e.v.Text()
		on := true
		if !ok {
			c.eventKeys(e)
			skill = c.text(e.v.Get("appId"), "appId")
			on = !isFalse(e.v.Get("enabled"))
		}
		if isTrue(e.v) {
			skill = ""
		}
		number[e.kind+fn.key]++
		action := "lambda:InvokeFunction"
		if !on {
			action = "lambda:DisableInvokeFunction"
		}
		c.put(normal(fn.key)+id+strconv.Itoa(number[e.kind+fn.key]), e.pos, "AWS::Lambda::Permission", obj(e.pos,
			"FunctionName", c.target(fn, e.pos), "Action", action, "Principal", principal, "EventSourceToken", nonEmpty(oneLine(skill)),
		), "DependsOn", nonEmpty(fn.alias))
		c.declare(fn, e, app.Value{}, on, obj(e.pos, "EventSourceToken", nonEmpty(oneLine(skill))))
	}
	c.eventsOf("alexaSkill", func(fn *function, e event) { each(fn, e, "LambdaPermissionAlexaSkill", "alexa-appkit.amazon.com") })
	c.eventsOf("alexaSmartHome", func(fn *function, e event) {
		each(fn, e, "LambdaPermissionAlexaSmartHome", "alexa-connectedhome.amazon.com")
	})
}

// userPools compiles cognitoUserPool events: one pool for all hooks of one name.
func (c *compiler) userPools() {
	hooks := map[string]*cfn.Node{}
	deps := map[string][]*cfn.Node{}
	first := map[string]event{}
	var order []string
	c.eventsOf("cognitoUserPool", func(fn *function, e event) {
		c.eventKeys(e)
		if isTrue(e.v.Get("existing")) {
			c.declare(fn, e, c.value(orPos(e.v.Get("pool"))), true, obj(e.pos, "Trigger", e.v.Get("trigger")))
			return
		}
		pool, trigger := c.text(e.v.Get("pool"), "pool"), c.text(e.v.Get("trigger"), "trigger")
		if pool == "" || trigger == "" {
			c.l.Errorf(e.pos, "missing-key", "Add `pool:` and `trigger:`.", "a cognitoUserPool event of function %q names no pool or no trigger", fn.key)
			return
		}
		if hooks[pool] == nil {
			hooks[pool] = cfn.NewMap(e.pos)
			first[pool] = e
			order = append(order, pool)
		}
		target := c.target(fn, e.pos)
		if strings.HasPrefix(trigger, "Custom") && strings.HasSuffix(trigger, "Sender") {
			target = obj(e.pos, "LambdaArn", target, "LambdaVersion", "V1_0")
			if key := or(e.v.Get("kmsKeyId")); key != nil {
				hooks[pool] = hooks[pool].With("KMSKeyID", key)
			}
		}
		hooks[pool] = hooks[pool].With(trigger, target)
		deps[pool] = append(deps[pool], cfn.Str(e.pos, fn.id))
		c.permit(normal(fn.key)+"LambdaPermissionCognitoUserPool"+alphanumeric(pool)+"TriggerSource"+alphanumeric(trigger), fn, e.pos,
			"cognito-idp.amazonaws.com", "SourceArn", getAtt(e.pos, "CognitoUserPool"+alphanumeric(pool), "Arn"))
	})
	for _, pool := range order {
		pos := first[pool].pos
		c.put("CognitoUserPool"+alphanumeric(pool), pos, "AWS::Cognito::UserPool", obj(pos, "UserPoolName", pool, "LambdaConfig", hooks[pool]), "DependsOn", deps[pool])
	}
}

// loadBalancers compiles alb events.
func (c *compiler) loadBalancers() {
	c.eventsOf("alb", func(fn *function, e event) {
		c.eventKeys(e)
		listener, priority := e.v.Get("listenerArn"), c.text(e.v.Get("priority"), "priority")
		if !truthy(listener) || priority == "" {
			c.l.Errorf(e.pos, "missing-key", "Add `listenerArn:` and `priority:`.", "an alb event of function %q has no listenerArn or no priority", fn.key)
			return
		}
		alb := c.nameOf(listener)
		if part := strings.Split(alb, "/"); len(part) > 2 {
			alb = part[len(part)-2]
		}
		alb = alphanumericKeep(alb)
		multi, multiName := isTrue(e.v.Get("multiValueHeaders")), ""
		if multi {
			multiName = "MultiValue"
		}
		group := normal(fn.key) + "Alb" + multiName + "TargetGroup" + alb
		register := normal(fn.key) + "LambdaPermissionRegisterTarget"
		tag := c.service + "-" + fn.key + "-" + alb + "-" + c.stage
		sum := md5.Sum([]byte(tag))
		c.permit(normal(fn.key)+"LambdaPermissionAlb", fn, e.pos, "elasticloadbalancing.amazonaws.com", "SourceArn", ref(e.pos, group))
		c.permit(register, fn, e.pos, "elasticloadbalancing.amazonaws.com")
		name := orText(e.pos, hex.EncodeToString(sum[:]), e.v.Get("targetGroupName"), c.provider.At("alb", "targetGroupName"))
		c.put(group, e.pos, "AWS::ElasticLoadBalancingV2::TargetGroup", obj(e.pos,
			"HealthCheckEnabled", truthy(e.v.Get("healthCheck")),
			"TargetType", "lambda", "Targets", []*cfn.Node{obj(e.pos, "Id", c.target(fn, e.pos))}, "Name", name,
			"Tags", []*cfn.Node{obj(e.pos, "Key", "Name", "Value", tag)},
			"TargetGroupAttributes", []*cfn.Node{obj(e.pos, "Key", "lambda.multi_value_headers.enabled", "Value", multi)}), "DependsOn", register)
		c.put(normal(fn.key)+"AlbListenerRule"+priority, e.pos, "AWS::ElasticLoadBalancingV2::ListenerRule", obj(e.pos,
			"Actions", []*cfn.Node{obj(e.pos, "Type", "forward", "TargetGroupArn", ref(e.pos, group))},
			"Conditions", c.albConditions(e), "ListenerArn", listener, "Priority", e.v.Get("priority")))
		c.declare(fn, e, c.value(listener), true)
	})
}

func alphanumericKeep(s string) string { return notAlphanumeric.ReplaceAllString(s, "") }

func (c *compiler) albConditions(e event) []*cfn.Node {
	out := []*cfn.Node{}
	conditions := e.v.Get("conditions")
	c.keys(conditions, "in conditions of an alb event", words("header host ip method path query"))
	values := func(key string) any { return list(conditions.Get(key)) }
	for _, k := range mapEntries(conditions) {
		switch k.Key {
		case "path":
			out = append(out, obj(k.Pos, "Field", "path-pattern", "Values", values("path")))
		case "host":
			out = append(out, obj(k.Pos, "Field", "host-header", "HostHeaderConfig", obj(k.Pos, "Values", values("host"))))
		case "method":
			out = append(out, obj(k.Pos, "Field", "http-request-method", "HttpRequestMethodConfig", obj(k.Pos, "Values", values("method"))))
		case "ip":
			out = append(out, obj(k.Pos, "Field", "source-ip", "SourceIpConfig", obj(k.Pos, "Values", values("ip"))))
		case "header":
			for _, h := range list(k.Value) {
				out = append(out, obj(k.Pos, "Field", "http-header", "HttpHeaderConfig", obj(k.Pos, "HttpHeaderName", h.Get("name"), "Values", list(h.Get("values")))))
			}
		case "query":
			pairs := []*cfn.Node{}
			for _, q := range mapEntries(k.Value) {
				pairs = append(pairs, obj(k.Pos, "Key", q.Key, "Value", q.Value))
			}
			out = append(out, obj(k.Pos, "Field", "query-string", "QueryStringConfig", obj(k.Pos, "Values", pairs)))
		}
	}
	return out
}

// cloudFront keeps cloudFront events as declared: functions at the edge have no engine here.
func (c *compiler) cloudFront() {
	c.eventsOf("cloudFront", func(fn *function, e event) {
		c.eventKeys(e)
		c.l.Warnf(e.pos, "inactive-trigger", "", "the cloudFront event of function %q is declared, not yet active", fn.key)
		c.declare(fn, e, app.Value{}, true)
	})
}
