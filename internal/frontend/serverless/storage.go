package serverless

import (
	"encoding/json"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
)

// buckets compiles s3 events. A bucket that is not said to exist is created, one resource for all events on it.
func (c *compiler) buckets() {
	type bucket struct {
		name, reference string
		first           event
		configs         []*cfn.Node
		deps            []*cfn.Node
	}
	var order []*bucket
	conf := c.provider.Get("s3")
	c.eventsOf("s3", func(fn *function, e event) {
		nameNode := e.v
		if e.v.Kind == cfn.Map && !isIntrinsic(e.v) {
			c.eventKeys(e)
			nameNode = e.v.Get("bucket")
		}
		if nameNode.IsNull() {
			c.l.Errorf(e.pos, "missing-key", "Add `bucket: name`.", "an s3 event of function %q names no bucket", fn.key)
			return
		}
		if isPoison(nameNode) {
			return
		}
		if isTrue(e.v.Get("existing")) {
			c.existingBucket(fn, e, nameNode)
			return
		}
		reference, ok := nameNode.Text()
		if !ok {
			c.l.Errorf(nameNode.Pos, "known-late", "Add `existing: true` if the bucket is declared under resources.", "the bucket of an s3 event must be a plain name, since the event creates it")
			return
		}
		b := &bucket{name: reference, reference: reference, first: e}
		if own, ok := conf.At(reference, "name").Text(); ok {
			b.name = own
		}
		if i := slices.IndexFunc(order, func(o *bucket) bool { return o.name == b.name }); i >= 0 {
			b = order[i]
		} else {
			order = append(order, b)
		}
		what := orText(e.pos, "s3:ObjectCreated:*", e.v.Get("event"))
		b.configs = append(b.configs, obj(e.pos, "Event", what, "Function", c.target(fn, e.pos), "Filter", c.s3Filter(e)))
		permission := normal(fn.key) + "LambdaPermission" + alphanumeric(b.reference) + "S3"
		b.deps = append(b.deps, cfn.Str(e.pos, permission))
		if fn.alias != "" {
			b.deps = append(b.deps, cfn.Str(e.pos, fn.alias))
		}
		c.permit(permission, fn, e.pos, "s3.amazonaws.com",
			"SourceArn", join(e.pos, "", "arn:", ref(e.pos, "AWS::Partition"), ":s3:::"+b.name),
			"SourceAccount", ref(e.pos, "AWS::AccountId"))
	})
	for _, b := range order {
		pos := b.first.pos
		props := obj(pos, "BucketName", b.name)
		notes := obj(pos, "LambdaConfigurations", b.configs)
		for _, p := range mapEntries(conf.Get(b.reference)) {
			switch key := upperFirst(p.Key); key {
			case "Name":
			case "NotificationConfiguration":
				notes = mergeMaps(notes, p.Value)
			default:
				props = props.With(key, p.Value)
			}
		}
		c.put(bucketID(b.reference), pos, "AWS::S3::Bucket", props.With("NotificationConfiguration", notes), "DependsOn", b.deps)
	}
}

// existingBucket declares the Trigger of a bucket that the events do not create. Serverless sets it up with a
// function of its own; here it has the form that a bucket's own notifications have.
func (c *compiler) existingBucket(fn *function, e event, name *cfn.Node) {
	source := c.value(name)
	if s, ok := source.Literal(); ok {
		source = app.Lit("arn:aws:s3:::" + s)
	} else if id, attr, ok := source.Attribute(); ok && attr == "Ref" {
		source = app.Attr(id, "Arn")
	}
	what := orText(e.pos, "s3:ObjectCreated:*", e.v.Get("event"))
	c.declare(fn, e, source, true, obj(e.pos, "Event", what, "Filter", c.s3Filter(e)))
}

func (c *compiler) s3Filter(e event) *cfn.Node {
	var rules []*cfn.Node
	for _, it := range list(e.v.Get("rules")) {
		for _, r := range mapEntries(it) {
			if r.Key != "prefix" && r.Key != "suffix" {
				c.unknown(r, "in the rules of an s3 event", words("prefix suffix"))
				continue
			}
			rules = append(rules, obj(it.Pos, "Name", r.Key, "Value", r.Value))
		}
	}
	if rules == nil {
		return nil
	}
	return obj(e.pos, "S3Key", obj(e.pos, "Rules", rules))
}

// topics compiles sns events. A topic without an ARN is created.
func (c *compiler) topics() {
	subs := map[string][]*cfn.Node{}
	first := map[string]event{}
	aliases := map[string]any{}
	var order []string
	c.eventsOf("sns", func(fn *function, e event) {
		var arn *cfn.Node
		var name string
		s, isText := e.v.Text()
		switch {
		case isText && strings.HasPrefix(s, "arn:"):
			arn, name = e.v, lastWord(s, ":")
		case isText:
			name = s
		case isIntrinsic(e.v):
			arn, name = e.v, lastWord(c.nameOf(e.v), ":")
		default:
			c.eventKeys(e)
			arn = or(e.v.Get("arn"))
			if arn != nil {
				name = lastWord(c.nameOf(arn), ":")
			}
			if own := e.v.Get("topicName"); truthy(own) {
				name = c.text(own, "topicName")
			}
		}
		if name == "" {
			if !isPoison(arn) {
				c.l.Errorf(e.pos, "missing-key", "Add topicName or arn.", "an sns event of function %q names no topic", fn.key)
			}
			return
		}
		redrive := c.topicRedrive(fn, e, name, arn)
		subscription := normal(fn.key) + "SnsSubscription" + alphanumeric(name)
		source := arn
		filter, scope := or(e.v.Get("filterPolicy")), or(e.v.Get("filterPolicyScope"))
		if arn != nil {
			c.put(subscription, e.pos, "AWS::SNS::Subscription", obj(e.pos, "TopicArn", arn, "Protocol", "lambda", "Endpoint", c.target(fn, e.pos),
				"FilterPolicy", filter, "FilterPolicyScope", scope, "RedrivePolicy", redrive, "Region", c.otherRegion(e.v.Get("arn"))), "DependsOn", nonEmpty(fn.alias))
		} else {
			source = join(e.pos, "", "arn:", ref(e.pos, "AWS::Partition"), ":sns:", ref(e.pos, "AWS::Region"), ":", ref(e.pos, "AWS::AccountId"), ":", name)
			if _, have := first[name]; !have {
				first[name], aliases[name] = e, nonEmpty(fn.alias)
				order = append(order, name)
			}
			if filter != nil || redrive != nil {
				c.put(subscription, e.pos, "AWS::SNS::Subscription", obj(e.pos, "Endpoint", c.target(fn, e.pos), "Protocol", "lambda",
					"TopicArn", ref(e.pos, topicID(name)), "FilterPolicy", filter, "FilterPolicyScope", scope, "RedrivePolicy", redrive))
			} else {
				subs[name] = append(subs[name], obj(e.pos, "Endpoint", c.target(fn, e.pos), "Protocol", "lambda"))
			}
		}
		c.permit(normal(fn.key)+"LambdaPermission"+alphanumeric(name)+"SNS", fn, e.pos, "sns.amazonaws.com", "SourceArn", source)
	})
	for _, name := range order {
		e := first[name]
		c.put(topicID(name), e.pos, "AWS::SNS::Topic", obj(e.pos,
			"TopicName", name, "DisplayName", or(e.v.Get("displayName")), "Subscription", subs[name]), "DependsOn", aliases[name])
	}
}

// otherRegion is the region of a literal ARN when it is not this one.
func (c *compiler) otherRegion(arn *cfn.Node) any {
	s, _ := arn.Text()
	if part := strings.Split(s, ":"); len(part) > 5 && part[3] != c.region {
		return part[3]
	}
	return nil
}

// topicRedrive gives a subscription's dead letters, and lets the topic write to them.
func (c *compiler) topicRedrive(fn *function, e event, name string, topic *cfn.Node) *cfn.Node {
	n := e.v.Get("redrivePolicy")
	if !truthy(n) {
		return nil
	}
	var arn, url *cfn.Node
	if a := n.Get("deadLetterTargetArn"); truthy(a) {
		arn = a
		if s, ok := a.Text(); ok {
			if part := strings.Split(s, ":"); len(part) > 5 {
				url = join(n.Pos, "", "https://sqs."+part[3]+".", ref(n.Pos, "AWS::URLSuffix"), "/"+part[4]+"/"+part[5])
			}
		}
	} else if id, ok := n.Get("deadLetterTargetRef").Text(); ok {
		arn, url = getAtt(n.Pos, id, "Arn"), ref(n.Pos, id)
	} else if im := n.Get("deadLetterTargetImport"); im != nil {
		arn, url = obj(n.Pos, "Fn::ImportValue", im.Get("arn")), obj(n.Pos, "Fn::ImportValue", im.Get("url"))
	}
	if arn == nil {
		c.l.Errorf(n.Pos, "missing-key", "Add deadLetterTargetArn or deadLetterTargetRef.", "a redrivePolicy names no queue")
		return nil
	}
	if url != nil {
		id := alphanumeric(name) + "To" + normal(fn.key) + "DLQPolicy"
		statement := obj(n.Pos, "Effect", "Allow", "Principal", obj(n.Pos, "Service", "sns.amazonaws.com"), "Action", "sqs:SendMessage", "Resource", arn)
		if topic != nil {
			statement = statement.With("Condition", obj(n.Pos, "ArnEquals", obj(n.Pos, "aws:SourceArn", topic)))
		}
		c.put(id, n.Pos, "AWS::SQS::QueuePolicy", obj(n.Pos, "PolicyDocument",
			obj(n.Pos, "Version", "2012-10-17", "Id", id, "Statement", []*cfn.Node{statement}), "Queues", []*cfn.Node{url}))
	}
	return obj(n.Pos, "deadLetterTargetArn", arn)
}

// value turns a Node into an app.Value, for Triggers that do not pass through a template.
func (c *compiler) value(n *cfn.Node) app.Value {
	if s, ok := n.Text(); ok {
		return app.Lit(s)
	}
	if id, ok := n.Get("Ref").Text(); ok {
		return app.Attr(id, "Ref")
	}
	if at := n.Get("Fn::GetAtt"); at != nil && len(at.Items) == 2 {
		id, _ := at.Items[0].Text()
		attr, _ := at.Items[1].Text()
		return app.Attr(id, attr)
	}
	if name, ok := n.Get("Fn::ImportValue").Text(); ok {
		return app.Import(name)
	}
	if j := n.Get("Fn::Join"); j != nil && len(j.Items) == 2 {
		sep, _ := j.Items[0].Text()
		var parts []app.Value
		for i, it := range j.Items[1].Items {
			if i > 0 {
				parts = append(parts, app.Lit(sep))
			}
			parts = append(parts, c.value(it))
		}
		return app.Template(parts...)
	}
	return app.Lit(jsonOf(n))
}

// jsonOf encodes a Node as JSON, keys in their order.
func jsonOf(n *cfn.Node) string {
	var b strings.Builder
	writeJSON(&b, n)
	return b.String()
}

func writeJSON(b *strings.Builder, n *cfn.Node) {
	quote := func(x any) string {
		out := &strings.Builder{}
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(x); err != nil {
			return "null"
		}
		return strings.TrimSuffix(out.String(), "\n")
	}
	switch {
	case n.IsNull():
		b.WriteString("null")
	case n.Kind == cfn.Scalar:
		b.WriteString(quote(n.Value))
	case n.Kind == cfn.List:
		b.WriteByte('[')
		for i, it := range n.Items {
			if i > 0 {
				b.WriteByte(',')
			}
			writeJSON(b, it)
		}
		b.WriteByte(']')
	default:
		b.WriteByte('{')
		for i, e := range n.Entries {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(quote(e.Key) + ":")
			writeJSON(b, e.Value)
		}
		b.WriteByte('}')
	}
}
