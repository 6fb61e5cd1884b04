package serverless

import (
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

// sourceOf gives the ARN of a polled event: the event itself, or its arn.
func (c *compiler) sourceOf(fn *function, e event) *cfn.Node {
	arn := e.v
	if e.v.Kind == cfn.Map && !isIntrinsic(e.v) {
		c.eventKeys(e)
		arn = e.v.Get("arn")
	}
	if isPoison(arn) {
		return nil
	}
	if !truthy(arn) {
		c.l.Errorf(e.pos, "missing-key", "Add the arn of the source.", "an event %q of function %q has no arn", e.kind, fn.key)
		return nil
	}
	return arn
}

// mapping adds an event source mapping.
func (c *compiler) mapping(id string, fn *function, e event, deps []*cfn.Node, props ...any) {
	if role, roleDeps := c.functionRole(fn); role != nil {
		if at := role.Get("Fn::GetAtt"); at != nil && len(at.Items) > 0 {
			deps = append([]*cfn.Node{at.Items[0]}, deps...)
		} else {
			deps = append(roleDeps, deps...)
		}
	}
	if fn.alias != "" {
		deps = append(deps, cfn.Str(e.pos, fn.alias))
	}
	if c.has(id) {
		id = uniqueID(id, c.has)
	}
	props = append(props, "FunctionName", c.target(fn, e.pos), "FilterCriteria", filterCriteria(e.v.Get("filterPatterns")))
	c.put(id, e.pos, "AWS::Lambda::EventSourceMapping", obj(e.pos, props...), "DependsOn", deps)
}

func filterCriteria(n *cfn.Node) *cfn.Node {
	if !truthy(n) {
		return nil
	}
	filters := []*cfn.Node{}
	for _, p := range list(n) {
		filters = append(filters, obj(p.Pos, "Pattern", jsonOf(p)))
	}
	return obj(n.Pos, "Filters", filters)
}

func enabled(e event) *cfn.Node { return or2(e.v.Get("enabled"), cfn.From(e.pos, true)) }

func responseTypes(e event) any {
	n := or2(e.v.Get("functionResponseType"))
	if n == nil {
		return nil
	}
	return []*cfn.Node{n}
}

// queues compiles sqs events.
func (c *compiler) queues() {
	var arns []*cfn.Node
	c.eventsOf("sqs", func(fn *function, e event) {
		arn := c.sourceOf(fn, e)
		if arn == nil {
			return
		}
		var scaling *cfn.Node
		if m := e.v.Get("maximumConcurrency"); truthy(m) {
			scaling = obj(m.Pos, "MaximumConcurrency", m)
		}
		id := normal(fn.key) + "EventSourceMappingSQS" + alphanumeric(lastWord(c.nameOf(arn), ":"))
		c.mapping(id, fn, e, nil,
			"BatchSize", or(e.v.Get("batchSize"), cfn.From(e.pos, 10)),
			"MaximumBatchingWindowInSeconds", or2(e.v.Get("maximumBatchingWindow")),
			"EventSourceArn", arn, "Enabled", enabled(e),
			"FunctionResponseTypes", responseTypes(e), "ScalingConfig", scaling)
		arns = append(arns, arn)
	})
	if arns != nil {
		c.allow(arns[0].Pos, []string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}, arns...)
	}
}

// streamName is the name of a stream or table in its ARN or in what refers to it.
func (c *compiler) streamName(arn *cfn.Node) string {
	s, ok := arn.Text()
	if !ok {
		return lastWord(c.nameOf(arn), "/")
	}
	if part := strings.Split(s, "/"); len(part) > 1 {
		return part[1]
	}
	return lastWord(s, ":")
}

// streams compiles stream events, of DynamoDB and Kinesis.
func (c *compiler) streams() {
	c.eventsOf("stream", func(fn *function, e event) {
		arn := c.sourceOf(fn, e)
		if arn == nil {
			return
		}
		kind, _ := e.v.Get("type").Text()
		if s, ok := arn.Text(); ok && kind == "" {
			if part := strings.Split(s, ":"); len(part) > 2 {
				kind = part[2]
			}
		}
		if kind == "" { // an intrinsic: a table's stream has an attribute of its own
			kind = "kinesis"
			if strings.Contains(jsonOf(arn), "StreamArn") {
				kind = "dynamodb"
			}
		}
		name := c.streamName(arn)
		source := arn
		var deps []*cfn.Node
		if consumer := e.v.Get("consumer"); truthy(consumer) && kind == "kinesis" {
			source = c.consumer(fn, e, name, arn, consumer, &deps)
		}
		c.streamStatement(kind, arn, truthy(e.v.Get("consumer")))
		id := normal(fn.key) + "EventSourceMapping" + upperFirst(kind) + alphanumeric(name)
		c.mapping(id, fn, e, deps,
			"BatchSize", or(e.v.Get("batchSize"), cfn.From(e.pos, 10)), "Enabled", enabled(e), "EventSourceArn", source,
			"ParallelizationFactor", or(e.v.Get("parallelizationFactor")),
			"StartingPosition", orText(e.pos, "TRIM_HORIZON", e.v.Get("startingPosition")),
			"StartingPositionTimestamp", or(e.v.Get("startingPositionTimestamp")),
			"MaximumBatchingWindowInSeconds", or2(e.v.Get("batchWindow")),
			"MaximumRetryAttempts", or2(e.v.Get("maximumRetryAttempts")),
			"BisectBatchOnFunctionError", or2(e.v.Get("bisectBatchOnFunctionError")),
			"FunctionResponseTypes", responseTypes(e),
			"MaximumRecordAgeInSeconds", or(e.v.Get("maximumRecordAgeInSeconds")),
			"TumblingWindowInSeconds", or2(e.v.Get("tumblingWindowInSeconds")),
			"DestinationConfig", c.streamFailure(e))
	})
}

func (c *compiler) consumer(fn *function, e event, name string, arn, consumer *cfn.Node, deps *[]*cfn.Node) *cfn.Node {
	source := consumer
	if isTrue(consumer) {
		who := fn.key + name + "Consumer"
		id := normal(who) + "StreamConsumer"
		c.put(id, e.pos, "AWS::Kinesis::StreamConsumer", obj(e.pos, "StreamARN", arn, "ConsumerName", who))
		*deps = append(*deps, cfn.Str(e.pos, id))
		source = ref(e.pos, id)
	}
	c.allow(e.pos, []string{"kinesis:SubscribeToShard"}, source)
	return source
}

func (c *compiler) streamStatement(kind string, arn *cfn.Node, consumer bool) {
	switch {
	case kind == "dynamodb":
		c.allow(arn.Pos, words("dynamodb:GetRecords dynamodb:GetShardIterator dynamodb:DescribeStream dynamodb:ListStreams"), arn)
	case consumer:
		c.allow(arn.Pos, words("kinesis:GetRecords kinesis:GetShardIterator kinesis:DescribeStreamSummary kinesis:ListShards"), arn)
	default:
		c.allow(arn.Pos, words("kinesis:GetRecords kinesis:GetShardIterator kinesis:DescribeStream kinesis:ListStreams"), arn)
	}
}

// streamFailure says where batches go whose attempts are spent.
func (c *compiler) streamFailure(e event) *cfn.Node {
	n := e.v.At("destinations", "onFailure")
	if !truthy(n) {
		return nil
	}
	arn, kind := n, ""
	if a := n.Get("arn"); a != nil {
		arn = a
		kind, _ = n.Get("type").Text()
	}
	if s, ok := arn.Text(); ok && kind == "" && strings.Contains(s, ":sns:") {
		kind = "sns"
	}
	if kind == "sns" {
		c.allow(n.Pos, []string{"sns:Publish"}, arn)
	} else {
		c.allow(n.Pos, []string{"sqs:ListQueues", "sqs:SendMessage"}, arn)
	}
	return obj(n.Pos, "OnFailure", obj(n.Pos, "Destination", arn))
}

var networkActions = words(`ec2:CreateNetworkInterface ec2:DescribeNetworkInterfaces ec2:DescribeVpcs ec2:DeleteNetworkInterface
	ec2:DescribeSubnets ec2:DescribeSecurityGroups`)

func cut(s string, n int) string { return s[:min(len(s), n)] }

// brokers compiles msk, kafka, activemq and rabbitmq events.
func (c *compiler) brokers() {
	for _, kind := range []string{"msk", "kafka", "activemq", "rabbitmq"} {
		c.eventsOf(kind, func(fn *function, e event) {
			if e.v.Kind != cfn.Map {
				c.l.Errorf(e.pos, "missing-key", "Add its settings below it, indented.", "an event %q of function %q has no settings", kind, fn.key)
				return
			}
			c.broker(fn, e)
		})
	}
}

func (c *compiler) broker(fn *function, e event) {
	props := []any{
		"BatchSize", or(e.v.Get("batchSize")),
		"MaximumBatchingWindowInSeconds", or(e.v.Get("maximumBatchingWindow")),
		"Enabled", or2(e.v.Get("enabled")),
	}
	var arn *cfn.Node
	if e.kind != "kafka" {
		if arn = c.sourceOf(fn, e); arn == nil {
			return
		}
		props = append(props, "EventSourceArn", arn)
	} else {
		c.eventKeys(e)
	}
	id := normal(fn.key) + "EventSourceMapping"
	topic, queue := c.text(e.v.Get("topic"), "topic"), c.text(e.v.Get("queue"), "queue")
	switch e.kind {
	case "msk", "kafka":
		props = append(props, "Topics", []string{topic},
			"StartingPosition", orText(e.pos, "TRIM_HORIZON", e.v.Get("startingPosition")),
			"StartingPositionTimestamp", or2(e.v.Get("startingPositionTimestamp")))
	default:
		props = append(props, "Queues", []string{queue})
	}
	var access []*cfn.Node
	add := func(typ string, uri any) { access = append(access, obj(e.pos, "Type", typ, "URI", uri)) }
	group := or(e.v.Get("consumerGroupId"))
	switch e.kind {
	case "msk":
		id += "MSK" + cut(alphanumeric(c.streamName(arn)), 79) + cut(alphanumeric(topic), 79)
		if s := or(e.v.Get("saslScram512")); s != nil {
			add("SASL_SCRAM_512_AUTH", s)
		}
		if group != nil {
			props = append(props, "AmazonManagedKafkaEventSourceConfig", obj(e.pos, "ConsumerGroupId", group))
		}
		c.allow(e.pos, []string{"kafka:DescribeCluster", "kafka:GetBootstrapBrokers"}, arn)
	case "kafka":
		id += "Kafka" + cut(alphanumeric(topic), 158)
		props = append(props, "SelfManagedEventSource", obj(e.pos, "Endpoints", obj(e.pos, "KafkaBootstrapServers", e.v.Get("bootstrapServers"))))
		if group != nil {
			props = append(props, "SelfManagedKafkaEventSourceConfig", obj(e.pos, "ConsumerGroupId", group))
		}
		c.kafkaAccess(e, add)
	case "activemq":
		id += "ActiveMQ" + cut(alphanumeric(queue), 150)
		add("BASIC_AUTH", e.v.Get("basicAuthArn"))
	case "rabbitmq":
		id += "RabbitMQ" + cut(alphanumeric(queue), 150)
		add("BASIC_AUTH", e.v.Get("basicAuthArn"))
		if v := or(e.v.Get("virtualHost")); v != nil {
			add("VIRTUAL_HOST", v)
		}
	}
	if e.kind == "activemq" || e.kind == "rabbitmq" {
		c.allow(e.pos, []string{"mq:DescribeBroker"}, arn)
		c.allow(e.pos, []string{"secretsmanager:GetSecretValue"}, e.v.Get("basicAuthArn"))
	}
	c.allow(e.pos, networkActions, cfn.Str(e.pos, "*"))
	c.mapping(id, fn, e, nil, append(props, "SourceAccessConfigurations", access)...)
}

// kafkaAccess spells out the ways into a Kafka cluster.
func (c *compiler) kafkaAccess(e event, add func(string, any)) {
	types := map[string]string{
		"vpcSubnet": "VPC_SUBNET", "vpcSecurityGroup": "VPC_SECURITY_GROUP", "saslPlainAuth": "BASIC_AUTH",
		"saslScram256Auth": "SASL_SCRAM_256_AUTH", "saslScram512Auth": "SASL_SCRAM_512_AUTH",
		"clientCertificateTlsAuth": "CLIENT_CERTIFICATE_TLS_AUTH", "serverRootCaCertificate": "SERVER_ROOT_CA_CERTIFICATE",
	}
	prefixes := map[string]string{"vpcSubnet": "subnet:", "vpcSecurityGroup": "security_group:"}
	for _, a := range mapEntries(e.v.Get("accessConfigurations")) {
		typ := types[a.Key]
		if typ == "" {
			c.unknown(a, "in accessConfigurations", words("vpcSubnet vpcSecurityGroup saslPlainAuth saslScram256Auth saslScram512Auth clientCertificateTlsAuth serverRootCaCertificate"))
			continue
		}
		for _, v := range list(a.Value) {
			if s, ok := v.Text(); ok {
				add(typ, prefixes[a.Key]+s)
			} else {
				add(typ, v)
			}
		}
		if prefixes[a.Key] == "" {
			c.allow(a.Pos, []string{"secretsmanager:GetSecretValue"}, list(a.Value)...)
		}
	}
}
