package sam

import (
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

// simpleTable compiles AWS::Serverless::SimpleTable.
func (c *compiler) simpleTable(r *resource) {
	p := r.props
	name, kind := cfn.Str(r.pos, "id"), "S"
	if key := p.Get("PrimaryKey"); !key.IsNull() {
		typ, _ := c.known(key.Get("Type"))
		kind = map[string]string{"String": "S", "Number": "N", "Binary": "B"}[typ]
		if name = key.Get("Name"); name.IsNull() || kind == "" {
			c.l.Errorf(key.Pos, "bad-value", "Write a Name, and a Type of String, Number or Binary.", "PrimaryKey of %q must have a Name and a Type", r.id)
			return
		}
	}
	props := obj(r.pos, "AttributeDefinitions", []*cfn.Node{obj(r.pos, "AttributeName", name, "AttributeType", kind)},
		"KeySchema", []*cfn.Node{obj(r.pos, "AttributeName", name, "KeyType", "HASH")},
		"PointInTimeRecoverySpecification", or(p.Get("PointInTimeRecoverySpecification")), "SSESpecification", or(p.Get("SSESpecification")),
		"TableName", or(p.Get("TableName")), "Tags", c.tags(p.Get("Tags"), false))
	if through := p.Get("ProvisionedThroughput"); !through.IsNull() {
		props = props.With("ProvisionedThroughput", through)
	} else {
		props = props.With("BillingMode", cfn.Str(r.pos, "PAY_PER_REQUEST"))
	}
	c.put(r, r.id, "AWS::DynamoDB::Table", props)
}

// layer compiles AWS::Serverless::LayerVersion.
func (c *compiler) layer(r *resource) {
	p := r.props
	content := p.Get("ContentUri")
	if content.IsNull() {
		c.l.Errorf(r.pos, "missing-key", "Add `ContentUri: folder`.", "the layer %q has no ContentUri", r.id)
		return
	}
	switch file, ok := c.known(content); {
	case ok && strings.HasPrefix(file, "s3://"):
		content = obj(content.Pos, "S3Bucket", "remote", "S3Key", file)
	case ok:
		content = cfn.Str(content.Pos, file)
	case content.Kind == cfn.Map && !isIntrinsic(content):
		content = obj(content.Pos, "S3Bucket", content.Get("Bucket"), "S3Key", content.Get("Key"))
	}
	keep := "Retain"
	if n := p.Get("RetentionPolicy"); !n.IsNull() {
		s, _ := c.known(n)
		switch {
		case strings.EqualFold(s, "Delete"):
			keep = "Delete"
		case !strings.EqualFold(s, "Retain"):
			c.l.Errorf(n.Pos, "bad-value", "", "RetentionPolicy must be Retain or Delete")
		}
	} else if s := text(r.decl.Get("DeletionPolicy")); s != "" {
		keep = s
	}
	c.put(r, r.id, "AWS::Lambda::LayerVersion", obj(r.pos, "Content", content, "LayerName", or(p.Get("LayerName"), cfn.Str(r.pos, r.id)),
		"Description", or(p.Get("Description")), "CompatibleRuntimes", or(p.Get("CompatibleRuntimes")),
		"CompatibleArchitectures", or(p.Get("CompatibleArchitectures")), "LicenseInfo", or(p.Get("LicenseInfo"))), "DeletionPolicy", keep)
}

// application compiles AWS::Serverless::Application: one of the project is a nested stack, one of a catalogue is not here.
func (c *compiler) application(r *resource) {
	location := r.props.Get("Location")
	file, ok := c.known(location)
	if !ok || strings.Contains(file, "://") {
		c.l.Warnf(r.pos, "nested-app", "Name a template of the project as Location.", "the application %q is not in the project: what it declares is not here", r.id)
		c.foreign(r)
		return
	}
	c.put(r, r.id, "AWS::CloudFormation::Stack", obj(r.pos, "TemplateURL", cfn.Str(location.Pos, file), "Parameters", or(r.props.Get("Parameters"))))
}

// stateMachine keeps AWS::Serverless::StateMachine with its role and what starts it, for targets: nothing here runs one.
func (c *compiler) stateMachine(r *resource) {
	p := r.props
	c.l.Warnf(r.pos, "state-machine", "Call its functions by hand with `ebb invoke`.", "the state machine %q is declared; nothing here runs it", r.id)
	role := or(p.Get("Role"))
	if role == nil {
		f := &function{resource: r, c: c}
		if isTrue(p.At("Tracing", "Enabled")) {
			f.manage(managedARN(r.pos, "AWSXrayWriteOnlyAccess"))
		}
		f.policies()
		c.put(r, r.id+"Role", "AWS::IAM::Role", obj(r.pos, "AssumeRolePolicyDocument", trust(r.pos, "states.amazonaws.com"),
			"ManagedPolicyArns", f.managed, "Policies", f.inline))
		role = getAtt(r.pos, r.id+"Role", "Arn")
	}
	c.put(r, r.id, "AWS::StepFunctions::StateMachine", obj(r.pos, "Definition", or(p.Get("Definition")), "DefinitionUri", or(p.Get("DefinitionUri")),
		"DefinitionSubstitutions", or(p.Get("DefinitionSubstitutions")), "RoleArn", role, "StateMachineName", or(p.Get("Name")),
		"StateMachineType", or(p.Get("Type")), "LoggingConfiguration", or(p.Get("Logging")), "TracingConfiguration", or(p.Get("Tracing"))))
	for _, e := range entries(p.Get("Events")) {
		c.starts(r, e)
	}
}

// starter is the role of a service that starts a state machine.
func (c *compiler) starter(r *resource, e cfn.Entry, service string) *cfn.Node {
	return obj(e.Pos, "AssumeRolePolicyDocument", trust(e.Pos, service), "Policies", []*cfn.Node{obj(e.Pos, "PolicyName", r.id+e.Key+"StartExecutionPolicy",
		"PolicyDocument", obj(e.Pos, "Statement", []*cfn.Node{statement(ref(e.Pos, r.id), "states:StartExecution")}))})
}

// starts keeps what starts a state machine.
func (c *compiler) starts(r *resource, e cfn.Entry) {
	p, id := e.Value.Get("Properties"), r.id+e.Key
	switch text(e.Value.Get("Type")) {
	case "Schedule", "CloudWatchEvent", "EventBridgeRule":
		c.put(r, id, "AWS::Events::Rule", obj(e.Pos, "ScheduleExpression", or(p.Get("Schedule")), "EventPattern", or(p.Get("Pattern")), "EventBusName", or(p.Get("EventBusName")),
			"Targets", []*cfn.Node{obj(e.Pos, "Arn", ref(e.Pos, r.id), "Id", id+"StepFunctionsTarget", "RoleArn", getAtt(e.Pos, id+"Role", "Arn"))}))
		c.put(r, id+"Role", "AWS::IAM::Role", c.starter(r, e, "events.amazonaws.com"))
	case "ScheduleV2":
		c.put(r, id, "AWS::Scheduler::Schedule", obj(e.Pos, "ScheduleExpression", or(p.Get("ScheduleExpression")),
			"Target", obj(e.Pos, "Arn", ref(e.Pos, r.id), "RoleArn", getAtt(e.Pos, id+"Role", "Arn"))))
		c.put(r, id+"Role", "AWS::IAM::Role", c.starter(r, e, "scheduler.amazonaws.com"))
	case "Api":
		f := &function{resource: r, c: c}
		a := f.apiOf(e, p, "RestApiId", implicitREST, "Api")
		if a == nil || !a.managed {
			return
		}
		c.put(r, id+"Role", "AWS::IAM::Role", c.starter(r, e, "apigateway.amazonaws.com"))
		a.add(r, e, text(p.Get("Path")), methodKey(text(p.Get("Method"))), obj(e.Pos, integration, obj(e.Pos, "type", "aws", "httpMethod", "POST",
			"uri", sub(e.Pos, "arn:${AWS::Partition}:apigateway:${AWS::Region}:states:action/StartExecution"), "credentials", getAtt(e.Pos, id+"Role", "Arn"))), true)
	}
}
