package sam

import (
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

// eventKinds are the types of events a function may have.
func eventKinds() []string {
	return strings.Fields("Api HttpApi Schedule ScheduleV2 CloudWatchEvent EventBridgeRule S3 SNS SQS Kinesis DynamoDB MSK MQ SelfManagedKafka DocumentDB " +
		"CloudWatchLogs IoTRule AlexaSkill Cognito")
}

// event compiles one entry of a function's Events.
func (f *function) event(e cfn.Entry) {
	kind, p := text(e.Value.Get("Type")), e.Value.Get("Properties")
	if p.IsNull() {
		p = cfn.NewMap(e.Pos)
	}
	if e.Value.Kind != cfn.Map || p.Kind != cfn.Map {
		f.c.l.Errorf(e.Value.Place(), "bad-value", "", "the event %q of %q must be a map with Type and Properties", e.Key, f.id)
		return
	}
	id := f.id + e.Key
	switch kind {
	case "Api":
		f.apiEvent(e, p, id)
	case "HttpApi":
		f.httpEvent(e, p, id)
	case "Schedule":
		f.schedule(e, p, id)
	case "ScheduleV2":
		f.scheduleV2(e, p, id)
	case "CloudWatchEvent", "EventBridgeRule":
		f.rule(e, p, id)
	case "S3":
		f.s3(e, p, id)
	case "SNS":
		f.sns(e, p, id)
	case "CloudWatchLogs":
		f.logs(e, p, id)
	case "IoTRule":
		f.iot(e, p, id)
	case "AlexaSkill":
		f.permission(id+"Permission", "alexa-appkit.amazon.com", "EventSourceToken", or(p.Get("SkillId")))
	case "Cognito":
		f.cognito(e, p)
	case "":
		f.c.l.Errorf(e.Pos, "missing-key", "Add its Type.", "the event %q of %q has no Type", e.Key, f.id)
	default:
		if source, ok := pulled(kind); ok {
			f.pull(e, p, id, kind, source)
			return
		}
		f.c.l.Errorf(e.Value.Get("Type").Pos, "unknown-event", near(kind, eventKinds(), ""), "there is no event of the type %q", kind)
	}
}

// need says whether an event has a property, with an error if not.
func (f *function) need(e cfn.Entry, p *cfn.Node, key string) bool {
	if p.Get(key).IsNull() {
		f.c.l.Errorf(e.Pos, "missing-key", "Add "+key+" to its Properties.", "the event %q of %q has no %s", e.Key, f.id, key)
		return false
	}
	return true
}

// permission lets a service call the function.
func (f *function) permission(id, principal string, kv ...any) {
	props := []any{"Action", "lambda:InvokeFunction", "FunctionName", f.name(), "Principal", principal}
	f.c.put(f.resource, id, "AWS::Lambda::Permission", obj(f.pos, append(props, kv...)...))
}

// state is a rule's State of an event's State or Enabled.
func (f *function) state(p *cfn.Node) *cfn.Node {
	if s := p.Get("State"); !s.IsNull() {
		return s
	}
	n := p.Get("Enabled")
	if n.IsNull() {
		return nil
	}
	if s, ok := f.c.known(n); ok {
		if strings.EqualFold(s, "true") {
			return cfn.Str(n.Pos, "ENABLED")
		}
		return cfn.Str(n.Pos, "DISABLED")
	}
	return cfn.Str(n.Pos, "ENABLED")
}

// targetOf is the target of a rule, with the queue of what fails.
func (f *function) targetOf(p *cfn.Node, id string, more ...string) *cfn.Node {
	name := id
	if t := id + "LambdaTarget"; len(t) <= 64 {
		name = t
	}
	t := obj(f.pos, "Arn", f.arn(), "Id", or(p.At("Target", "Id"), cfn.Str(f.pos, name)))
	for _, key := range append(more, "Input", "RetryPolicy") {
		if v := p.Get(key); !v.IsNull() {
			t = t.With(key, v)
		}
	}
	if arn := f.deadLetters(p, id, true); arn != nil {
		t = t.With("DeadLetterConfig", obj(arn.Pos, "Arn", arn))
	}
	return t
}

// deadLetters is the queue of what a rule or schedule could not deliver; it is made where none is named.
func (f *function) deadLetters(p *cfn.Node, id string, policy bool) *cfn.Node {
	n := p.Get("DeadLetterConfig")
	if n.IsNull() {
		return nil
	}
	if arn := n.Get("Arn"); !arn.IsNull() {
		return arn
	}
	queue := id + "Queue"
	if s := text(n.Get("QueueLogicalId")); s != "" {
		queue = s
	}
	f.c.put(f.resource, queue, "AWS::SQS::Queue", obj(n.Pos))
	if policy {
		f.c.put(f.resource, id+"QueuePolicy", "AWS::SQS::QueuePolicy", obj(n.Pos, "Queues", []*cfn.Node{ref(n.Pos, queue)},
			"PolicyDocument", obj(n.Pos, "Version", "2012-10-17", "Statement", []*cfn.Node{obj(n.Pos, "Effect", "Allow",
				"Principal", obj(n.Pos, "Service", "events.amazonaws.com"), "Action", "sqs:SendMessage", "Resource", getAtt(n.Pos, queue, "Arn"),
				"Condition", obj(n.Pos, "ArnEquals", obj(n.Pos, "aws:SourceArn", getAtt(n.Pos, id, "Arn"))))})))
	}
	return getAtt(n.Pos, queue, "Arn")
}

func (f *function) schedule(e cfn.Entry, p *cfn.Node, id string) {
	if !f.need(e, p, "Schedule") {
		return
	}
	f.c.put(f.resource, id, "AWS::Events::Rule", obj(e.Pos, "ScheduleExpression", p.Get("Schedule"), "State", f.state(p), "Name", or(p.Get("Name")),
		"Description", or(p.Get("Description")), "Targets", []*cfn.Node{f.targetOf(p, id)}))
	f.permission(id+"Permission", "events.amazonaws.com", "SourceArn", getAtt(e.Pos, id, "Arn"))
}

func (f *function) scheduleV2(e cfn.Entry, p *cfn.Node, id string) {
	if !f.need(e, p, "ScheduleExpression") {
		return
	}
	role := or(p.Get("RoleArn"))
	dead := f.deadLetters(p, id, false)
	if role == nil {
		role = getAtt(e.Pos, id+"Role", "Arn")
		policies := []*cfn.Node{obj(e.Pos, "PolicyName", id+"LambdaPolicy", "PolicyDocument", obj(e.Pos, "Statement", []*cfn.Node{statement(f.arn(), "lambda:InvokeFunction")}))}
		if dead != nil {
			policies = append(policies, obj(e.Pos, "PolicyName", id+"SQSPolicy", "PolicyDocument", obj(e.Pos, "Statement", []*cfn.Node{statement(dead, "sqs:SendMessage")})))
		}
		f.c.put(f.resource, id+"Role", "AWS::IAM::Role", obj(e.Pos, "AssumeRolePolicyDocument", trust(e.Pos, "scheduler.amazonaws.com"), "Policies", policies,
			"PermissionsBoundary", or(p.Get("PermissionsBoundary"))))
	}
	t := obj(e.Pos, "Arn", f.arn(), "RoleArn", role, "Input", or(p.Get("Input")), "RetryPolicy", or(p.Get("RetryPolicy")))
	if dead != nil {
		t = t.With("DeadLetterConfig", obj(e.Pos, "Arn", dead))
	}
	name := or(p.Get("Name"))
	if name == nil && !isTrue(p.Get("OmitName")) {
		name = cfn.Str(e.Pos, id)
	}
	f.c.put(f.resource, id, "AWS::Scheduler::Schedule", obj(e.Pos, "ScheduleExpression", p.Get("ScheduleExpression"), "State", or(p.Get("State")), "Name", name,
		"Description", or(p.Get("Description")), "FlexibleTimeWindow", or(p.Get("FlexibleTimeWindow"), obj(e.Pos, "Mode", "OFF")),
		"StartDate", or(p.Get("StartDate")), "EndDate", or(p.Get("EndDate")), "ScheduleExpressionTimezone", or(p.Get("ScheduleExpressionTimezone")),
		"GroupName", or(p.Get("GroupName")), "KmsKeyArn", or(p.Get("KmsKeyArn")), "Target", t))
}

func (f *function) rule(e cfn.Entry, p *cfn.Node, id string) {
	f.c.put(f.resource, id, "AWS::Events::Rule", obj(e.Pos, "EventBusName", or(p.Get("EventBusName")), "EventPattern", or(p.Get("Pattern")), "Name", or(p.Get("RuleName")),
		"State", f.state(p), "Targets", []*cfn.Node{f.targetOf(p, id, "InputPath", "InputTransformer")}))
	f.permission(id+"Permission", "events.amazonaws.com", "SourceArn", getAtt(e.Pos, id, "Arn"))
}

// s3 adds the notification to the template's own bucket.
func (f *function) s3(e cfn.Entry, p *cfn.Node, id string) {
	if !f.need(e, p, "Bucket") || !f.need(e, p, "Events") {
		return
	}
	var list []*cfn.Node
	for _, event := range items(p.Get("Events")) {
		list = append(list, when(f.cond, obj(event.Pos, "Function", f.arn(), "Filter", or(p.Get("Filter")), "Event", event)))
	}
	bucket := text(p.At("Bucket", "Ref"))
	there := f.c.change(bucket, func(decl *cfn.Node) *cfn.Node {
		props := decl.Get("Properties")
		config := props.Get("NotificationConfiguration")
		have := items(config.Get("LambdaConfigurations"))
		config = place(config, e).With("LambdaConfigurations", cfn.NewList(e.Pos, append(slices.Clone(have), list...)...))
		return decl.With("Properties", place(props, e).With("NotificationConfiguration", config))
	})
	if !there {
		f.c.l.Errorf(p.Get("Bucket").Pos, "not-here", "Declare the bucket in this template and name it with !Ref.", "the event %q of %q must name a bucket of the same template", e.Key, f.id)
		return
	}
	f.permission(id+"Permission", "s3.amazonaws.com", "SourceAccount", ref(e.Pos, "AWS::AccountId"))
}

// place is n, or an empty Map at the place of an event where there is none.
func place(n *cfn.Node, e cfn.Entry) *cfn.Node {
	if n == nil || n.Kind != cfn.Map {
		return cfn.NewMap(e.Pos)
	}
	return n
}

func (f *function) sns(e cfn.Entry, p *cfn.Node, id string) {
	if !f.need(e, p, "Topic") {
		return
	}
	topic, queue := p.Get("Topic"), p.Get("SqsSubscription")
	subscribe := func(protocol string, endpoint *cfn.Node) {
		f.c.put(f.resource, id, "AWS::SNS::Subscription", obj(e.Pos, "Protocol", protocol, "Endpoint", endpoint, "TopicArn", topic, "Region", or(p.Get("Region")),
			"FilterPolicy", or(p.Get("FilterPolicy")), "FilterPolicyScope", or(p.Get("FilterPolicyScope")), "RedrivePolicy", or(p.Get("RedrivePolicy"))))
	}
	if queue.IsNull() || text(queue) == "false" {
		f.permission(id+"Permission", "sns.amazonaws.com", "SourceArn", topic)
		subscribe("lambda", f.arn())
		return
	}
	// The topic's messages go through a queue: one of its own, or one that is named.
	arn, url, policy := or(queue.Get("QueueArn")), or(queue.Get("QueueUrl")), id+"QueuePolicy"
	if queue.Kind != cfn.Map {
		arn, url = getAtt(e.Pos, id+"Queue", "Arn"), ref(e.Pos, id+"Queue")
		var props []any
		if t := f.c.byID[target(topic)]; t != nil && isTrue(t.props.Get("FifoTopic")) {
			props = append(props, "FifoQueue", true)
		}
		f.c.put(f.resource, id+"Queue", "AWS::SQS::Queue", obj(e.Pos, props...))
	} else if s := text(queue.Get("QueuePolicyLogicalId")); s != "" {
		policy = s
	}
	if arn == nil || url == nil {
		f.c.l.Errorf(queue.Pos, "missing-key", "", "SqsSubscription of the event %q needs QueueArn and QueueUrl", e.Key)
		return
	}
	f.c.put(f.resource, id+"EventSourceMapping", "AWS::Lambda::EventSourceMapping", obj(e.Pos, "FunctionName", f.name(), "EventSourceArn", arn,
		"BatchSize", or(queue.Get("BatchSize"), cfn.From(e.Pos, 10)), "Enabled", true))
	f.manage(managedARN(e.Pos, "service-role/AWSLambdaSQSQueueExecutionRole"))
	f.c.put(f.resource, policy, "AWS::SQS::QueuePolicy", obj(e.Pos, "Queues", []*cfn.Node{url}, "PolicyDocument", obj(e.Pos, "Version", "2012-10-17",
		"Statement", []*cfn.Node{obj(e.Pos, "Effect", "Allow", "Principal", "*", "Action", "sqs:SendMessage", "Resource", arn,
			"Condition", obj(e.Pos, "ArnEquals", obj(e.Pos, "aws:SourceArn", topic)))})))
	subscribe("sqs", arn)
}

func (f *function) logs(e cfn.Entry, p *cfn.Node, id string) {
	if !f.need(e, p, "LogGroupName") {
		return
	}
	group := p.Get("LogGroupName")
	f.permission(id+"Permission", "logs.amazonaws.com", "SourceArn",
		subWith(e.Pos, "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${__LogGroupName__}:*", "__LogGroupName__", group))
	f.c.put(f.resource, id, "AWS::Logs::SubscriptionFilter", obj(e.Pos, "LogGroupName", group, "FilterPattern", or(p.Get("FilterPattern")), "DestinationArn", f.arn()))
}

func (f *function) iot(e cfn.Entry, p *cfn.Node, id string) {
	if !f.need(e, p, "Sql") {
		return
	}
	f.permission(id+"Permission", "iot.amazonaws.com", "SourceArn",
		subWith(e.Pos, "arn:${AWS::Partition}:iot:${AWS::Region}:${AWS::AccountId}:rule/${RuleName}", "RuleName", ref(e.Pos, id)))
	f.c.put(f.resource, id, "AWS::IoT::TopicRule", obj(e.Pos, "TopicRulePayload", obj(e.Pos, "AwsIotSqlVersion", or(p.Get("AwsIotSqlVersion")), "Sql", p.Get("Sql"),
		"RuleDisabled", false, "Actions", []*cfn.Node{obj(e.Pos, "Lambda", obj(e.Pos, "FunctionArn", f.arn()))})))
}

// cognito adds the hook to the template's own user pool.
func (f *function) cognito(e cfn.Entry, p *cfn.Node) {
	if !f.need(e, p, "UserPool") || !f.need(e, p, "Trigger") {
		return
	}
	pool := target(p.Get("UserPool"))
	there := f.c.change(pool, func(decl *cfn.Node) *cfn.Node {
		props := place(decl.Get("Properties"), e)
		config := place(props.Get("LambdaConfig"), e)
		for _, hook := range items(p.Get("Trigger")) {
			config = config.With(text(hook), f.arn())
		}
		return decl.With("Properties", props.With("LambdaConfig", config))
	})
	if !there {
		f.c.l.Errorf(p.Get("UserPool").Pos, "not-here", "Declare the user pool in this template and name it with !Ref.", "the event %q of %q must name a user pool of the same template", e.Key, f.id)
		return
	}
	name := f.id
	if f.alias != "" {
		name = f.alias
	}
	f.permission(name+"CognitoPermission", "cognito-idp.amazonaws.com", "SourceArn", getAtt(e.Pos, pool, "Arn"))
}
