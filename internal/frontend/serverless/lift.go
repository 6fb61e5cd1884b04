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

// The constructs of the plugin serverless-lift that declare data: queue, storage, database/dynamodb-single-table.
// https://github.com/getlift/lift/tree/master/docs

// construct is what the variables ${construct:NAME.WORD} of a type stand for.
type construct struct {
	keys   []string
	vars   map[string][2]string // word → part and attribute ("Ref", "Arn")
	extend map[string]string    // name under extensions → part
}

var constructs = map[string]construct{
	"queue": {
		keys:   words("type worker maxRetries alarm batchSize maxBatchingWindow maxConcurrency fifo delay encryption encryptionKey extensions"),
		vars:   map[string][2]string{"queueUrl": {"Queue", "Ref"}, "queueArn": {"Queue", "Arn"}, "dlqUrl": {"Dlq", "Ref"}, "dlqArn": {"Dlq", "Arn"}},
		extend: map[string]string{"queue": "Queue", "dlq": "Dlq"},
	},
	"storage": {
		keys:   words("type archive encryption allowAcl lifecycleRules extensions"),
		vars:   map[string][2]string{"bucketName": {"Bucket", "Ref"}, "bucketArn": {"Bucket", "Arn"}},
		extend: map[string]string{"bucket": "Bucket"},
	},
	"database/dynamodb-single-table": {
		keys:   words("type localSecondaryIndexes gsiCount extensions"),
		vars:   map[string][2]string{"tableName": {"Table", "Ref"}, "tableArn": {"Table", "Arn"}, "tableStreamArn": {"Table", "StreamArn"}},
		extend: map[string]string{"table": "Table"},
	},
}

// constructID is the logical ID of a part of a construct: its name and the digest of its path, as the CDK has it.
func constructID(name string, parts ...string) string {
	sum := md5.Sum([]byte(name + "/" + strings.Join(parts, "/") + "/Resource"))
	return notAlphanumeric.ReplaceAllString(name+strings.Join(parts, ""), "") + strings.ToUpper(hex.EncodeToString(sum[:4]))
}

// construct resolves ${construct:NAME.WORD}.
func (r *resolver) construct(pos diag.Pos, address string) (*cfn.Node, missing) {
	name, word, _ := strings.Cut(address, ".")
	all := r.shallow(r.root.Get("constructs"))
	n := r.shallow(all.Get(name))
	if n.IsNull() {
		m := missing{what: fmt.Sprintf("there is no construct %q", name), hint: "Declare it under constructs."}
		if near := diag.Nearest(name, keysOf(all)); near != "" {
			m.hint = fmt.Sprintf("Did you mean %q?", near)
		}
		return nil, m
	}
	typ, _ := r.shallow(n.Get("type")).Text()
	kind, known := constructs[typ]
	if !known {
		return nil, missing{what: fmt.Sprintf("constructs of type %q are not built", typ), hint: "Give the value another way, as in ${env:NAME}."}
	}
	at, ok := kind.vars[word]
	if !ok {
		var has []string
		for w := range kind.vars {
			has = append(has, w)
		}
		m := missing{what: fmt.Sprintf("a %s has no %q", typ, word), hint: "See the plugin's documentation for what it has."}
		if near := diag.Nearest(word, has); near != "" {
			m.hint = fmt.Sprintf("Did you mean %q?", near)
		}
		return nil, m
	}
	id := constructID(name, at[0])
	if at[1] == "Ref" {
		return ref(pos, id), missing{}
	}
	return getAtt(pos, id, at[1]), missing{}
}

// workers gives the functions that queue constructs bring with them, after the project's own.
func (c *compiler) workers() []cfn.Entry {
	var out []cfn.Entry
	for _, e := range c.entries(c.doc.Get("constructs"), "constructs") {
		typ, _ := e.Value.Get("type").Text()
		if typ != "queue" {
			continue
		}
		worker := e.Value.Get("worker")
		if s, ok := worker.Text(); ok { // a handler alone
			worker = obj(worker.Pos, "handler", s)
		}
		if worker == nil || worker.Kind != cfn.Map {
			c.l.Errorf(e.Pos, "missing-key", "Add `worker:` with a handler.", "the queue %q has no worker", e.Key)
			continue
		}
		sqs := obj(e.Pos, "arn", getAtt(e.Pos, constructID(e.Key, "Queue"), "Arn"),
			"batchSize", or(e.Value.Get("batchSize"), cfn.From(e.Pos, 1)),
			"maximumBatchingWindow", or2(e.Value.Get("maxBatchingWindow"), cfn.From(e.Pos, 0)),
			"maximumConcurrency", or(e.Value.Get("maxConcurrency")),
			"functionResponseType", "ReportBatchItemFailures")
		worker = worker.With("events", cfn.NewList(e.Pos, obj(e.Pos, "sqs", sqs)))
		out = append(out, cfn.Entry{Key: e.Key + "Worker", Pos: e.Pos, Value: worker})
	}
	return out
}

// constructs adds the resources of the constructs and what the common role may do with them.
func (c *compiler) constructs() {
	for _, e := range mapEntries(c.doc.Get("constructs")) {
		n := e.Value
		if isPoison(n) {
			continue
		}
		typ, _ := n.Get("type").Text()
		kind, known := constructs[typ]
		if !known {
			c.l.Warnf(e.Pos, "construct", "Declare what it stands for under resources.", "the construct %q of type %q is not built", e.Key, typ)
			continue
		}
		c.keys(n, c.where("construct", e.Key), kind.keys)
		switch typ {
		case "queue":
			c.queueConstruct(e)
		case "storage":
			c.storageConstruct(e)
		default:
			c.tableConstruct(e)
		}
		for _, x := range mapEntries(n.Get("extensions")) {
			part, ok := kind.extend[x.Key]
			if !ok {
				c.unknown(x, "in extensions of construct \""+e.Key+"\"", keysOfMap(kind.extend))
				continue
			}
			for _, p := range mapEntries(x.Value.Get("Properties")) {
				c.setProperty(constructID(e.Key, part), p.Key, p.Value)
			}
		}
	}
}

func keysOfMap(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	return out
}

func (c *compiler) queueConstruct(e cfn.Entry) {
	n, pos := e.Value, e.Pos
	if alarm := n.Get("alarm"); truthy(alarm) {
		c.l.Notef(alarm.Pos, "no-effect", "", "no alarm is sent for dead letters of the queue %q; they can be listed", e.Key)
	}
	fifo, suffix := isTrue(n.Get("fifo")), ""
	var isFifo any
	if fifo {
		suffix, isFifo = ".fifo", true
	}
	timeout := 6
	if s, ok := or(n.At("worker", "timeout"), c.provider.Get("timeout")).Text(); ok {
		if t, err := strconv.Atoi(s); err == nil {
			timeout = t
		}
	}
	var key any
	if s, _ := n.Get("encryption").Text(); s == "kmsManaged" {
		key = "alias/aws/sqs"
	}
	name := c.service + "-" + c.stage + "-" + e.Key
	dlq, queue := constructID(e.Key, "Dlq"), constructID(e.Key, "Queue")
	c.put(dlq, pos, "AWS::SQS::Queue", obj(pos, "FifoQueue", isFifo, "KmsMasterKeyId", key, "MessageRetentionPeriod", 1209600,
		"QueueName", name+"-dlq"+suffix), "DeletionPolicy", "Delete", "UpdateReplacePolicy", "Delete")
	c.put(queue, pos, "AWS::SQS::Queue", obj(pos,
		"ContentBasedDeduplication", isFifo, "DelaySeconds", or(n.Get("delay")), "FifoQueue", isFifo, "KmsMasterKeyId", key,
		"QueueName", name+suffix,
		"RedrivePolicy", obj(pos, "deadLetterTargetArn", getAtt(pos, dlq, "Arn"), "maxReceiveCount", or2(n.Get("maxRetries"), cfn.From(pos, 3))),
		"VisibilityTimeout", timeout*6), "DeletionPolicy", "Delete", "UpdateReplacePolicy", "Delete")
	c.allow(pos, []string{"sqs:SendMessage", "sqs:ChangeMessageVisibility"}, getAtt(pos, queue, "Arn"))
}

func (c *compiler) storageConstruct(e cfn.Entry) {
	pos, id := e.Pos, constructID(e.Key, "Bucket")
	algorithm := "AES256"
	if s, _ := e.Value.Get("encryption").Text(); s == "kms" {
		algorithm = "aws:kms"
	}
	closed := !isTrue(e.Value.Get("allowAcl"))
	c.put(id, pos, "AWS::S3::Bucket", obj(pos,
		"BucketEncryption", map[string]any{"ServerSideEncryptionConfiguration": []any{
			map[string]any{"ServerSideEncryptionByDefault": map[string]any{"SSEAlgorithm": algorithm}}}},
		"PublicAccessBlockConfiguration", map[string]any{
			"BlockPublicAcls": closed, "IgnorePublicAcls": closed, "BlockPublicPolicy": true, "RestrictPublicBuckets": true},
		"VersioningConfiguration", map[string]any{"Status": "Enabled"}), "DeletionPolicy", "Retain", "UpdateReplacePolicy", "Retain")
	arn := getAtt(pos, id, "Arn")
	c.allow(pos, words("s3:PutObject s3:GetObject s3:DeleteObject s3:ListBucket"), arn, join(pos, "/", arn, "*"))
}

func (c *compiler) tableConstruct(e cfn.Entry) {
	pos, id := e.Pos, constructID(e.Key, "Table")
	var attributes []any
	schema := func(hash, sorted string) []any {
		for _, a := range []string{hash, sorted} {
			if a != "PK" || len(attributes) == 0 {
				attributes = append(attributes, map[string]any{"AttributeName": a, "AttributeType": "S"})
			}
		}
		return []any{map[string]any{"AttributeName": hash, "KeyType": "HASH"}, map[string]any{"AttributeName": sorted, "KeyType": "RANGE"}}
	}
	keys := schema("PK", "SK")
	index := func(name string, keys []any) any {
		return map[string]any{"IndexName": name, "KeySchema": keys, "Projection": map[string]any{"ProjectionType": "ALL"}}
	}
	var local, global []any
	if isTrue(e.Value.Get("localSecondaryIndexes")) {
		for i := 1; i <= 5; i++ {
			name := fmt.Sprintf("LSI-%d", i)
			local = append(local, index(name, schema("PK", name+"-SK")))
		}
	}
	count, _ := e.Value.Get("gsiCount").Text()
	n, _ := strconv.Atoi(count)
	for i := 1; i <= min(n, 20); i++ {
		name := fmt.Sprintf("GSI-%d", i)
		global = append(global, index(name, schema(name+"-PK", name+"-SK")))
	}
	props := obj(pos, "AttributeDefinitions", attributes, "BillingMode", "PAY_PER_REQUEST", "KeySchema", keys,
		"PointInTimeRecoverySpecification", map[string]any{"PointInTimeRecoveryEnabled": true},
		"StreamSpecification", map[string]any{"StreamViewType": "NEW_AND_OLD_IMAGES"},
		"TimeToLiveSpecification", map[string]any{"AttributeName": "TimeToLive", "Enabled": true})
	if local != nil {
		props = props.With("LocalSecondaryIndexes", cfn.From(pos, local))
	}
	if global != nil {
		props = props.With("GlobalSecondaryIndexes", cfn.From(pos, global))
	}
	c.put(id, pos, "AWS::DynamoDB::Table", props, "DeletionPolicy", "Retain", "UpdateReplacePolicy", "Retain")
	arn := getAtt(pos, id, "Arn")
	c.allow(pos, words(`dynamodb:GetItem dynamodb:BatchGetItem dynamodb:Query dynamodb:Scan dynamodb:PutItem dynamodb:DeleteItem
		dynamodb:BatchWriteItem dynamodb:UpdateItem dynamodb:ConditionCheckItem`), arn, join(pos, "/", arn, "index/*"))
}
