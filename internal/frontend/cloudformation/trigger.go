package cloudformation

import (
	"maps"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
)

func (l *loader) trigger(t app.Trigger) {
	if len(t.Settings) == 0 {
		t.Settings = nil
	}
	l.app.Triggers = append(l.app.Triggers, t)
}

// rule reads AWS::Events::Rule: a schedule, an event pattern, or both.
func (l *loader) rule(r *resource) {
	o := l.object(r.props)
	targets := o.objs("Targets")
	r.modeled = len(targets) > 0
	for _, t := range targets {
		key := l.named(t.val("Arn"))
		if key == "" {
			r.modeled = false // some other service's target; the rule stays as it is
			continue
		}
		base := o.pick("Name", "Description", "RoleArn")
		settings := t.pick("Id", "Input", "InputPath", "InputTransformer", "RetryPolicy", "DeadLetterConfig")
		if settings == nil {
			settings = map[string]any{}
		}
		maps.Copy(settings, base)
		enabled := o.str("State") != "DISABLED"
		if o.has("ScheduleExpression") {
			l.trigger(app.Trigger{ID: r.id, Function: key, Kind: "schedule", Schedule: o.strs("ScheduleExpression"), Enabled: enabled, Settings: maps.Clone(settings)})
		}
		if o.has("EventPattern") {
			settings["EventPattern"] = plain(o.n.Get("EventPattern"))
			l.trigger(app.Trigger{ID: r.id, Function: key, Kind: "eventBridge", Source: o.val("EventBusName"), Enabled: enabled, Settings: settings})
		}
	}
}

// scheduler reads AWS::Scheduler::Schedule.
func (l *loader) scheduler(r *resource) {
	o := l.object(r.props)
	target := o.obj("Target")
	key := l.named(target.val("Arn"))
	if key == "" {
		return
	}
	r.modeled = true
	settings := o.pick("Name", "Description", "GroupName", "ScheduleExpressionTimezone", "StartDate", "EndDate", "FlexibleTimeWindow", "KmsKeyArn")
	if settings == nil {
		settings = map[string]any{}
	}
	maps.Copy(settings, target.pick("Input", "RetryPolicy", "DeadLetterConfig", "RoleArn"))
	l.trigger(app.Trigger{ID: r.id, Function: key, Kind: "schedule", Schedule: o.strs("ScheduleExpression"), Enabled: o.str("State") != "DISABLED", Settings: settings})
}

// eventSource reads AWS::Lambda::EventSourceMapping.
func (l *loader) eventSource(r *resource) {
	o := l.object(r.props)
	f := l.target(r, o, "FunctionName")
	if f == nil {
		return
	}
	r.modeled = true
	settings := plainMap(r.props)
	for _, key := range []string{"FunctionName", "EventSourceArn", "Enabled"} {
		delete(settings, key)
	}
	l.trigger(app.Trigger{ID: r.id, Function: f.Key, Kind: l.sourceKind(o), Source: o.val("EventSourceArn"), Enabled: o.flag("Enabled", true), Settings: settings})
}

// sourceKind tells what a polled source is: by its type in the template, its ARN, or what is said of it.
func (l *loader) sourceKind(o object) string {
	kinds := map[string]string{"sqs": "sqs", "kinesis": "stream", "dynamodb": "stream", "kafka": "msk", "mq": "activemq", "rds": "documentDB"}
	types := map[string]string{"AWS::SQS::Queue": "sqs", "AWS::Kinesis::Stream": "stream", "AWS::Kinesis::StreamConsumer": "stream",
		"AWS::DynamoDB::Table": "stream", "AWS::DynamoDB::GlobalTable": "stream",
		"AWS::MSK::Cluster": "msk", "AWS::MSK::ServerlessCluster": "msk", "AWS::AmazonMQ::Broker": "activemq", "AWS::DocDB::DBCluster": "documentDB"}
	v := o.val("EventSourceArn")
	kind := ""
	if part := strings.Split(v.String(), ":"); strings.HasPrefix(v.String(), "arn:") && len(part) > 2 {
		kind = kinds[part[2]]
	}
	if kind == "" {
		for _, id := range v.Refs() {
			if r := l.byID[id]; r != nil {
				kind = types[r.typ]
			}
		}
	}
	mechanisms := ""
	for _, a := range o.objs("SourceAccessConfigurations") {
		mechanisms += " " + a.val("Type").String()
	}
	switch {
	case kind == "activemq" && strings.Contains(mechanisms, "VIRTUAL_HOST"):
		return "rabbitmq"
	case kind != "":
		return kind
	case o.has("SelfManagedEventSource"):
		return "kafka"
	case o.has("Topics"):
		return "msk"
	case o.has("Queues"):
		return "activemq"
	case o.has("StartingPosition"):
		return "stream"
	}
	return "sqs"
}

// subscription reads AWS::SNS::Subscription; those of other protocols stay as they are.
func (l *loader) subscription(r *resource) {
	o := l.object(r.props)
	if o.str("Protocol") != "lambda" {
		return
	}
	f := l.target(r, o, "Endpoint")
	if f == nil {
		return
	}
	r.modeled = true
	settings := plainMap(r.props)
	for _, key := range []string{"Protocol", "Endpoint", "TopicArn"} {
		delete(settings, key)
	}
	l.trigger(app.Trigger{ID: r.id, Function: f.Key, Kind: "sns", Source: o.val("TopicArn"), Enabled: true, Settings: settings})
}

// topic reads the subscriptions inside AWS::SNS::Topic.
func (l *loader) topic(r *resource) {
	for _, s := range l.object(r.props).objs("Subscription") {
		if s.str("Protocol") != "lambda" {
			continue
		}
		if f := l.target(r, s, "Endpoint"); f != nil {
			l.trigger(app.Trigger{ID: r.id, Function: f.Key, Kind: "sns", Source: app.Attr(r.id, "Ref"), Enabled: true})
		}
	}
}

// bucket reads the notifications of AWS::S3::Bucket.
func (l *loader) bucket(r *resource) {
	n := l.object(r.props).obj("NotificationConfiguration")
	for _, c := range n.objs("LambdaConfigurations") {
		if f := l.target(r, c, "Function"); f != nil {
			l.trigger(app.Trigger{ID: r.id, Function: f.Key, Kind: "s3", Source: app.Attr(r.id, "Arn"), Enabled: true, Settings: c.pick("Event", "Filter")})
		}
	}
}

// bucketNotifications reads the CDK's own resource for the notifications of a bucket, in the form of S3's API.
func (l *loader) bucketNotifications(r *resource) {
	o := l.object(r.props)
	n := o.obj("NotificationConfiguration")
	source := o.val("BucketName")
	if id, attr, ok := source.Attribute(); ok && attr == "Ref" {
		source = app.Attr(id, "Arn")
	}
	r.modeled = !n.has("QueueConfigurations") && !n.has("TopicConfigurations")
	for _, c := range n.objs("LambdaFunctionConfigurations") {
		f := l.target(r, c, "LambdaFunctionArn")
		if f == nil {
			r.modeled = false
			continue
		}
		var rules []any
		for _, rule := range c.obj("Filter").obj("Key").objs("FilterRules") {
			rules = append(rules, map[string]any{"Name": rule.str("Name"), "Value": rule.str("Value")})
		}
		for _, event := range c.strs("Events") {
			settings := map[string]any{"Event": event}
			if rules != nil {
				settings["Filter"] = map[string]any{"S3Key": map[string]any{"Rules": rules}}
			}
			l.trigger(app.Trigger{ID: r.id, Function: f.Key, Kind: "s3", Source: source, Enabled: true, Settings: settings})
		}
	}
}

// logFilter reads AWS::Logs::SubscriptionFilter.
func (l *loader) logFilter(r *resource) {
	o := l.object(r.props)
	key := l.named(o.val("DestinationArn"))
	if key == "" {
		return
	}
	r.modeled = true
	l.trigger(app.Trigger{ID: r.id, Function: key, Kind: "cloudwatchLog", Source: o.val("LogGroupName"), Enabled: true,
		Settings: o.pick("FilterPattern", "FilterName", "Distribution", "ApplyOnTransformedLogs")})
}

// iotRule reads AWS::IoT::TopicRule.
func (l *loader) iotRule(r *resource) {
	o := l.object(r.props)
	payload := o.obj("TopicRulePayload")
	actions := payload.objs("Actions")
	r.modeled = len(actions) > 0
	for _, a := range actions {
		key := l.named(a.obj("Lambda").val("FunctionArn"))
		if key == "" {
			r.modeled = false
			continue
		}
		settings := payload.pick("Sql", "AwsIotSqlVersion", "Description", "ErrorAction")
		if name := o.n.Get("RuleName"); name != nil {
			if settings == nil {
				settings = map[string]any{}
			}
			settings["RuleName"] = plain(name)
		}
		l.trigger(app.Trigger{ID: r.id, Function: key, Kind: "iot", Enabled: !payload.flag("RuleDisabled", false), Settings: settings})
	}
}

// userPool reads the hooks of AWS::Cognito::UserPool.
func (l *loader) userPool(r *resource) {
	hooks := l.object(r.props).obj("LambdaConfig")
	for _, en := range mapEntries(hooks.n) {
		target := hooks.n.Get(en.Key)
		v, ok := asText(target)
		if !ok {
			v = l.object(target).val("LambdaArn")
		}
		if key := l.named(v); key != "" {
			l.trigger(app.Trigger{ID: r.id, Function: key, Kind: "cognitoUserPool", Source: app.Attr(r.id, "Arn"), Enabled: true,
				Settings: map[string]any{"Trigger": en.Key}})
		}
	}
}

// permissions reads AWS::Lambda::Permission last: a service that may call a function, and that nothing
// else in the template connects to it, is a trigger that is set up elsewhere.
func (l *loader) permissions() {
	for _, r := range l.resources {
		if r.typ != "AWS::Lambda::Permission" {
			continue
		}
		o := l.object(r.props)
		key := l.named(o.val("FunctionName"))
		kind := principalKind(o.val("Principal").String())
		if key == "" || kind == "" {
			continue
		}
		same := []string{kind}
		if kind == "eventBridge" {
			same = append(same, "schedule", "cloudwatchEvent")
		}
		if slices.ContainsFunc(l.app.Triggers, func(t app.Trigger) bool { return t.Function == key && slices.Contains(same, t.Kind) }) {
			continue
		}
		l.trigger(app.Trigger{ID: r.id, Function: key, Kind: kind, Source: o.val("SourceArn"), Enabled: true,
			Settings: o.pick("EventSourceToken", "SourceAccount", "PrincipalOrgID")})
	}
}

// principalKind is the trigger kind of a service principal; empty for accounts, everybody, and API gateways, whose
// routes say more than the permission.
func principalKind(principal string) string {
	service, ok := strings.CutSuffix(principal, ".amazonaws.com")
	if !ok {
		service, ok = strings.CutSuffix(principal, ".amazon.com")
	}
	service, _, _ = strings.Cut(service, ".") // logs.us-east-1
	kinds := map[string]string{"alexa-appkit": "alexaSkill", "alexa-connectedhome": "alexaSmartHome", "events": "eventBridge",
		"scheduler": "schedule", "logs": "cloudwatchLog", "cognito-idp": "cognitoUserPool", "elasticloadbalancing": "alb",
		"apigateway": "", "lambda": "", "edgelambda": ""}
	if kind, known := kinds[service]; known || !ok {
		return kind
	}
	return service
}
