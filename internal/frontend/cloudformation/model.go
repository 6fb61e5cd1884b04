package cloudformation

import (
	"reflect"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
)

// model gives each resource its meaning. Functions come first, since everything else points at them,
// then what fronts are made of, then what leads through them.
func (l *loader) model() {
	passes := []map[string]func(*resource){
		{"AWS::Lambda::Function": l.function},
		{"AWS::Lambda::Version": l.version},
		{"AWS::Lambda::Alias": l.version, "AWS::IAM::Role": l.role},
		{"AWS::IAM::Policy": l.policy, "AWS::IAM::ManagedPolicy": l.policy, "AWS::IAM::RolePolicy": l.policy,
			"AWS::Lambda::EventInvokeConfig": l.eventInvoke, "AWS::Lambda::Url": l.functionURL,
			"AWS::ApplicationAutoScaling::ScalableTarget": l.scaling,
			"AWS::ApiGateway::RestApi":                    l.restAPI, "AWS::ApiGatewayV2::Api": l.httpAPI},
		{"AWS::ApiGateway::Stage": l.restStage, "AWS::ApiGateway::Deployment": l.restDeployment, "AWS::ApiGatewayV2::Deployment": l.httpDeployment, "AWS::ApiGatewayV2::Stage": l.httpStage,
			"AWS::ApiGateway::Resource": l.restResource},
		{"AWS::ApiGateway::Method": l.restMethod, "AWS::ApiGatewayV2::Route": l.httpRoute},
		{"AWS::ApiGateway::RestApi": l.document, "AWS::ApiGatewayV2::Api": l.document},
		{"AWS::Events::Rule": l.rule, "AWS::Scheduler::Schedule": l.scheduler, "AWS::Lambda::EventSourceMapping": l.eventSource,
			"AWS::SNS::Subscription": l.subscription, "AWS::SNS::Topic": l.topic, "AWS::S3::Bucket": l.bucket, "Custom::S3BucketNotifications": l.bucketNotifications,
			"AWS::Logs::SubscriptionFilter": l.logFilter, "AWS::IoT::TopicRule": l.iotRule, "AWS::Cognito::UserPool": l.userPool},
	}
	for _, pass := range passes {
		for _, r := range l.resources {
			if read := pass[r.typ]; read != nil {
				read(r)
			}
		}
	}
	l.restCORS()
	l.settleStages()
}

// kindOf is the Resource kind of a type, and the property that names such a resource.
func kindOf(typ string) (kind, name string) {
	switch typ {
	case "AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable":
		return app.Table, "TableName"
	case "AWS::S3::Bucket":
		return app.Bucket, "BucketName"
	case "AWS::SQS::Queue":
		return app.Queue, "QueueName"
	case "AWS::SNS::Topic":
		return app.Topic, "TopicName"
	case "AWS::Kinesis::Stream":
		return app.Stream, "Name"
	case "AWS::Events::EventBus":
		return app.EventBus, "Name"
	case "AWS::SecretsManager::Secret":
		return app.Secret, "Name"
	case "AWS::Lambda::LayerVersion":
		return app.Layer, "LayerName"
	}
	return app.Foreign, ""
}

// keepRest puts into Resources whatever has no other place in the App, and whatever has but is
// referred to by its own ID.
func (l *loader) keepRest() {
	there := map[string]bool{}
	for _, f := range l.app.Functions {
		there[f.ID] = true
	}
	for _, a := range l.app.APIs {
		there[a.ID] = true
	}
	for _, r := range l.app.Roles {
		there[r.ID] = true
	}
	var consumed []app.Resource
	for _, r := range l.resources {
		if there[r.id] {
			continue
		}
		if res := l.resource(r); r.modeled {
			consumed = append(consumed, res)
		} else {
			l.app.Resources = append(l.app.Resources, res)
		}
	}
	wanted := map[string]bool{}
	references(reflect.ValueOf(l.app), wanted)
	for _, t := range l.app.Triggers {
		delete(wanted, t.ID)
	}
	for more := true; more; {
		more = false
		consumed = slices.DeleteFunc(consumed, func(res app.Resource) bool {
			if wanted[res.ID] {
				l.app.Resources = append(l.app.Resources, res)
				references(reflect.ValueOf(res), wanted)
				more = true
			}
			return wanted[res.ID]
		})
	}
}

func (l *loader) resource(r *resource) app.Resource {
	kind, nameKey := kindOf(r.typ)
	res := app.Resource{ID: r.id, Kind: kind, Type: r.typ, Properties: plainMap(r.props)}
	if nameKey != "" {
		res.Name = l.object(r.props).val(nameKey)
	}
	if kind == app.Layer {
		l.layer(r, &res)
	}
	policy, _ := r.decl.Get("DeletionPolicy").Text()
	res.Retain = strings.HasPrefix(policy, "Retain")
	return res
}

// references collects the logical IDs that the Values inside x refer to.
func references(x reflect.Value, ids map[string]bool) {
	switch x.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !x.IsNil() {
			references(x.Elem(), ids)
		}
	case reflect.Slice:
		for i := range x.Len() {
			references(x.Index(i), ids)
		}
	case reflect.Map:
		for it := x.MapRange(); it.Next(); {
			references(it.Value(), ids)
		}
	case reflect.Struct:
		if v, ok := x.Interface().(app.Value); ok {
			for _, id := range v.Refs() {
				ids[id] = true
			}
			return
		}
		for i := range x.NumField() {
			references(x.Field(i), ids)
		}
	}
}

// roleOf is the ID of the Role a function runs as. A role from elsewhere gets an entry with its ARN.
func (l *loader) roleOf(o object) string {
	v := o.val("Role")
	if v.IsZero() {
		return ""
	}
	for _, id := range v.Refs() {
		if r := l.byID[id]; r != nil && r.typ == "AWS::IAM::Role" {
			return id
		}
	}
	id := v.String()
	for _, r := range l.app.Roles {
		if r.ID == id {
			return id
		}
	}
	l.app.Roles = append(l.app.Roles, app.Role{ID: id, ARN: v})
	return id
}

// role reads AWS::IAM::Role.
func (l *loader) role(r *resource) {
	r.modeled = true
	o := l.object(r.props)
	role := app.Role{ID: r.id, Name: o.val("RoleName").String(), Trust: statements(o.obj("AssumeRolePolicyDocument"))}
	for _, managed := range o.vals("ManagedPolicyArns") {
		id, _, _ := managed.Attribute()
		if p := l.byID[id]; p != nil && p.typ == "AWS::IAM::ManagedPolicy" {
			role.Statements = append(role.Statements, statements(l.object(p.props).obj("PolicyDocument"))...)
			continue
		}
		role.Managed = append(role.Managed, managed)
	}
	for _, p := range o.objs("Policies") {
		role.Statements = append(role.Statements, statements(p.obj("PolicyDocument"))...)
	}
	l.app.Roles = append(l.app.Roles, role)
}

func statements(doc object) []map[string]any {
	var out []map[string]any
	for _, st := range doc.objs("Statement") {
		if m := plainMap(st.n); m != nil {
			out = append(out, m)
		}
	}
	return out
}

// policy adds a policy's statements to the template's roles that it is attached to.
func (l *loader) policy(r *resource) {
	o := l.object(r.props)
	names := o.vals("Roles")
	if r.typ == "AWS::IAM::RolePolicy" {
		names = o.vals("RoleName")
	}
	all := len(names) > 0 && len(o.items("Users")) == 0 && len(o.items("Groups")) == 0
	for _, name := range names {
		role := l.roleNamed(name)
		if role == nil {
			all = false
			continue
		}
		role.Statements = append(role.Statements, statements(o.obj("PolicyDocument"))...)
	}
	r.modeled = all
}

func (l *loader) roleNamed(name app.Value) *app.Role {
	for i := range l.app.Roles {
		r := &l.app.Roles[i]
		for _, id := range name.Refs() {
			if r.ID == id {
				return r
			}
		}
		if s, ok := name.Literal(); ok && s != "" && r.Name == s {
			return r
		}
	}
	return nil
}
