package server_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/server"
)

// things is an App that declares one thing of each kind.
func things(more ...app.Resource) *app.App {
	a, _ := shop("shop", "dev", "")
	a.Resources = append([]app.Resource{
		{ID: "Table", Kind: app.Table, Type: "AWS::DynamoDB::Table", Name: app.Lit("orders"), Properties: map[string]any{
			"AttributeDefinitions": []any{map[string]any{"AttributeName": "id", "AttributeType": "S"}}, "KeySchema": []any{map[string]any{"AttributeName": "id", "KeyType": "HASH"}},
			"StreamSpecification": map[string]any{"StreamViewType": "NEW_IMAGE"},
		}},
		{ID: "Bucket", Kind: app.Bucket, Type: "AWS::S3::Bucket", Name: app.Lit("shop-files")},
		{ID: "Queue", Kind: app.Queue, Type: "AWS::SQS::Queue", Name: app.Lit("jobs")},
		{ID: "Topic", Kind: app.Topic, Type: "AWS::SNS::Topic", Name: app.Lit("news")},
		{ID: "Stream", Kind: app.Stream, Type: "AWS::Kinesis::Stream", Name: app.Lit("clicks")},
		{ID: "Bus", Kind: app.EventBus, Type: "AWS::Events::EventBus", Name: app.Lit("orders-bus")},
	}, more...)
	return a
}

// withRole is an App whose Function has a role with one statement.
func withRole(name string, resource any) *app.App {
	a, _ := shop(name, "dev", "")
	a.Roles = []app.Role{{ID: "Role", Statements: []map[string]any{{"Effect": "Allow", "Action": "*", "Resource": resource}}}}
	a.Functions[0].Role = "Role"
	return a
}

func (n *node) mustDeployApp(t testing.TB, a *app.App) *api.Deployed {
	t.Helper()
	_, tree := shop(a.Name, a.Stage, says(a.Name))
	d, err := n.deploy(t, a, tree)
	if err != nil {
		t.Fatalf("deploy: %v\n%s", err, n.log)
	}
	return d
}

// function sends requests with the credentials of an App's Function.
func (n *node) function(app string) *awsClient {
	return &awsClient{n, server.FunctionKeys(n.Server, app, "dev", app+"-dev-hello")}
}

// request is a request that a Function may send.
type request struct{ name, service, method, path, target, body string }

const account = "000000000000"

// requests are about each kind of thing, and ways around its name.
func requests() []request {
	arn := func(service, rest string) string { return "arn:aws:" + service + ":eu-west-1:" + account + ":" + rest }
	json := func(name, service, target, body string) request {
		return request{name, service, "POST", "/", target, body}
	}
	item := `{"id":{"S":"1"}}`
	return []request{
		json("put item", "dynamodb", "DynamoDB_20120810.PutItem", `{"TableName":"orders","Item":`+item+`}`),
		json("table by ARN", "dynamodb", "DynamoDB_20120810.GetItem", `{"TableName":"arn:aws:dynamodb:us-east-1:999999999999:table/orders","Key":`+item+`}`),
		json("batch", "dynamodb", "DynamoDB_20120810.BatchGetItem", `{"RequestItems":{"orders":{"Keys":[`+item+`]}}}`),
		json("transaction", "dynamodb", "DynamoDB_20120810.TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"orders","Item":`+item+`}}]}`),
		json("statement", "dynamodb", "DynamoDB_20120810.ExecuteStatement", `{"Statement":"SELECT * FROM \"orders\""}`),
		json("statements", "dynamodb", "DynamoDB_20120810.BatchExecuteStatement", `{"Statements":[{"Statement":"DELETE FROM orders WHERE id = 'x'"}]}`),
		json("describe table", "dynamodb", "DynamoDB_20120810.DescribeTable", `{"TableName":"orders"}`),
		json("describe a table's stream", "dynamodb", "DynamoDBStreams_20120810.DescribeStream", `{"StreamArn":"`+arn("dynamodb", "table/orders/stream/x")+`"}`),
		{"put object", "s3", "PUT", "/shop-files/k", "", "body"},
		{"list objects", "s3", "GET", "/shop-files?list-type=2", "", ""},
		json("send", "sqs", "AmazonSQS.SendMessage", `{"QueueUrl":"http://x/`+account+`/jobs","MessageBody":"m"}`),
		json("send to an ARN", "sqs", "AmazonSQS.SendMessage", `{"QueueUrl":"`+arn("sqs", "jobs")+`","MessageBody":"m"}`),
		json("receive", "sqs", "AmazonSQS.ReceiveMessage", `{"QueueUrl":"jobs"}`),
		json("queue's address", "sqs", "AmazonSQS.GetQueueUrl", `{"QueueName":"jobs"}`),
		{"publish", "sns", "POST", "/?Action=Publish&Version=2010-03-31&Message=m&TopicArn=" + arn("sns", "news"), "", ""},
		json("put record", "kinesis", "Kinesis_20131202.PutRecord", `{"StreamName":"clicks","PartitionKey":"a","Data":"bQ=="}`),
		json("put record by ARN", "kinesis", "Kinesis_20131202.PutRecord", `{"StreamARN":"`+arn("kinesis", "stream/clicks")+`","PartitionKey":"a","Data":"bQ=="}`),
		json("put events", "events", "AWSEvents.PutEvents", `{"Entries":[{"EventBusName":"orders-bus","Source":"s","DetailType":"d","Detail":"{}"}]}`),
		json("put rule", "events", "AWSEvents.DescribeEventBus", `{"Name":"orders-bus"}`),
	}
}

func (c *awsClient) send(t testing.TB, r request) (int, string) {
	t.Helper()
	h := map[string]string{}
	if r.target != "" {
		h["X-Amz-Target"], h["Content-Type"] = r.target, "application/x-amz-json-1.1"
	}
	if r.service == "sqs" {
		h["Content-Type"] = "application/x-amz-json-1.0"
	}
	resp, text := c.do(t, r.service, r.method, r.path, h, r.body)
	return resp.StatusCode, text
}

func TestWhose_AFunctionReachesOnlyWhatIsItsOwnApps(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.mustDeployApp(t, things())
	n.mustDeployApp(t, withRole("thief", "*"))
	n.mustDeployApp(t, withRole("friend", []any{
		"arn:aws:dynamodb:*:*:table/orders", "arn:aws:dynamodb:*:*:table/orders/*", "arn:aws:s3:::shop-files", "arn:aws:s3:::shop-files/*", "arn:aws:sqs:*:*:jobs",
		"arn:aws:sns:*:*:news", "arn:aws:kinesis:*:*:stream/clicks", "arn:aws:events:*:*:event-bus/orders-bus",
	}))
	own, thief, friend, operator := n.function("shop"), n.function("thief"), n.function("friend"), n.aws(t)
	for _, r := range requests() {
		if status, text := own.send(t, r); status >= 300 {
			t.Errorf("%s, by its own app: %d %s", r.name, status, text)
		}
		if status, text := friend.send(t, r); status >= 300 {
			t.Errorf("%s, by an app that declares it: %d %s", r.name, status, text)
		}
		if status, text := operator.send(t, r); status >= 300 {
			t.Errorf("%s, by an operator: %d %s", r.name, status, text)
		}
		status, text := thief.send(t, r)
		if status != http.StatusForbidden && !(status == http.StatusBadRequest && r.target != "") || !strings.Contains(text, "AccessDenied") {
			t.Errorf("%s, by another app: %d %s", r.name, status, text)
		}
		if !strings.Contains(text, "arn:aws:sts::"+account+":assumed-role/thief-dev-role/thief-dev-hello is not authorized to perform: ") || !strings.Contains(text, "because no resource-based policy allows the ") {
			t.Errorf("%s: the refusal is %s", r.name, text)
		}
	}
	eventually(t, n, "the log says what mends it", func() bool {
		logs := n.logs(t)
		return strings.Contains(logs, "belongs to app shop, stage dev") && strings.Contains(logs, `"Resource":"arn:aws:s3:::shop-files/*"`)
	})
}

func TestWhose_NoRequestCarriesAnotherAppsThingWithIt(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	owner := things()
	owner.Functions[0].Key, owner.Routes[0].Function = "pay", "pay" // by which it can be named alone
	n.mustDeployApp(t, owner)
	n.mustDeployApp(t, withRole("thief", "*"))
	own, thief := n.function("shop"), n.function("thief")
	must := func(c *awsClient, r request) string {
		t.Helper()
		status, text := c.send(t, r)
		if status >= 300 {
			t.Fatalf("%s: %d %s", r.name, status, text)
		}
		return text
	}
	denied := func(r request) {
		t.Helper()
		if status, text := thief.send(t, r); status < 400 || !strings.Contains(text, "AccessDenied") {
			t.Errorf("%s: %d %s", r.name, status, text)
		}
	}
	json := func(name, service, target, body string) request {
		return request{name, service, "POST", "/", target, body}
	}
	arn := func(service, rest string) string { return "arn:aws:" + service + ":eu-west-1:" + account + ":" + rest }
	must(own, request{"object", "s3", "PUT", "/shop-files/k", "", "secret"})
	must(thief, request{"own bucket", "s3", "PUT", "/thief-files", "", ""})
	for _, source := range []string{"shop-files/k", "/shop-files/k", "%2Fshop-files%2Fk", "arn:aws:s3:::shop-files/k", "arn%3Aaws%3As3%3A%3A%3Ashop-files/k"} {
		resp, text := thief.do(t, "s3", "PUT", "/thief-files/copy", map[string]string{"X-Amz-Copy-Source": source}, "")
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("copy of %s: %s %s", source, resp.Status, text)
		}
	}
	// Iterators name what they are of by themselves.
	it := must(own, json("iterator", "kinesis", "Kinesis_20131202.GetShardIterator", `{"StreamName":"clicks","ShardId":"shardId-000000000000","ShardIteratorType":"TRIM_HORIZON"}`))
	it = it[strings.Index(it, `:"`)+2 : strings.LastIndex(it, `"`)]
	denied(json("an iterator of another app", "kinesis", "Kinesis_20131202.GetRecords", `{"ShardIterator":"`+it+`"}`))
	denied(json("a token of another app", "kinesis", "Kinesis_20131202.ListShards", `{"NextToken":"`+base64.RawURLEncoding.EncodeToString([]byte(`{"Stream":"clicks"}`))+`"}`))
	table := base64.RawURLEncoding.EncodeToString([]byte(`{"Table":"orders"}`))
	denied(json("an iterator of another app's table", "dynamodb", "DynamoDBStreams_20120810.GetRecords", `{"ShardIterator":"`+table+`"}`))

	must(thief, json("own queue", "sqs", "AmazonSQS.CreateQueue", `{"QueueName":"mine"}`))
	redrive := `{\"deadLetterTargetArn\":\"` + arn("sqs", "jobs") + `\",\"maxReceiveCount\":\"1\"}`
	denied(json("dead letters", "sqs", "AmazonSQS.SetQueueAttributes", `{"QueueUrl":"mine","Attributes":{"RedrivePolicy":"`+redrive+`"}}`))
	denied(json("dead letters of a new queue", "sqs", "AmazonSQS.CreateQueue", `{"QueueName":"mine2","Attributes":{"RedrivePolicy":"`+redrive+`"}}`))
	denied(json("a move", "sqs", "AmazonSQS.StartMessageMoveTask", `{"SourceArn":"`+arn("sqs", "mine")+`","DestinationArn":"`+arn("sqs", "jobs")+`"}`))
	must(thief, request{"own topic", "sns", "POST", "/?Action=CreateTopic&Version=2010-03-31&Name=mine", "", ""})
	denied(request{"subscription", "sns", "POST", "/?Action=Subscribe&Version=2010-03-31&Protocol=sqs&TopicArn=" + arn("sns", "mine") + "&Endpoint=" + arn("sqs", "jobs"), "", ""})
	resp, text := thief.do(t, "s3", "PUT", "/thief-files?notification", nil,
		`<NotificationConfiguration><QueueConfiguration><Id>a</Id><Queue>`+arn("sqs", "jobs")+`</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>`)
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a notification to another app's queue: %s %s", resp.Status, text)
	}
	must(thief, json("own rule", "events", "AWSEvents.PutRule", `{"Name":"mine","EventPattern":"{\"source\":[\"s\"]}"}`))
	for _, target := range []string{arn("sqs", "jobs"), arn("sns", "news"), arn("events", "event-bus/orders-bus"), arn("lambda", "function:shop-dev-hello"), arn("lambda", "function:pay")} {
		denied(json("a rule to "+target, "events", "AWSEvents.PutTargets", `{"Rule":"mine","Targets":[{"Id":"a","Arn":"`+target+`"}]}`))
		resp, text := thief.do(t, "scheduler", "POST", "/schedules/mine", map[string]string{"Content-Type": "application/json"},
			`{"ScheduleExpression":"rate(1 hour)","FlexibleTimeWindow":{"Mode":"OFF"},"Target":{"Arn":"`+target+`","RoleArn":"arn:aws:iam::000000000000:role/r"}}`)
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("a schedule to %s: %s %s", target, resp.Status, text)
		}
	}
}

func TestWhose_WhatAFunctionMakesIsItsApps(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.mustDeployApp(t, withRole("one", "*"))
	n.mustDeployApp(t, withRole("two", "*"))
	one, two, operator := n.function("one"), n.function("two"), n.aws(t)
	json := func(service, target, body string) request { return request{target, service, "POST", "/", target, body} }
	for _, c := range []struct{ make, use, remove request }{
		{json("sqs", "AmazonSQS.CreateQueue", `{"QueueName":"q"}`), json("sqs", "AmazonSQS.SendMessage", `{"QueueUrl":"q","MessageBody":"m"}`), json("sqs", "AmazonSQS.DeleteQueue", `{"QueueUrl":"q"}`)},
		{json("kinesis", "Kinesis_20131202.CreateStream", `{"StreamName":"s","ShardCount":1}`), json("kinesis", "Kinesis_20131202.DescribeStreamSummary", `{"StreamName":"s"}`), json("kinesis", "Kinesis_20131202.DeleteStream", `{"StreamName":"s"}`)},
		{json("dynamodb", "DynamoDB_20120810.CreateTable", `{"TableName":"tab","BillingMode":"PAY_PER_REQUEST","AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}],"KeySchema":[{"AttributeName":"id","KeyType":"HASH"}]}`),
			json("dynamodb", "DynamoDB_20120810.DescribeTable", `{"TableName":"tab"}`), json("dynamodb", "DynamoDB_20120810.DeleteTable", `{"TableName":"tab"}`)},
		{json("events", "AWSEvents.CreateEventBus", `{"Name":"b"}`), json("events", "AWSEvents.DescribeEventBus", `{"Name":"b"}`), json("events", "AWSEvents.DeleteEventBus", `{"Name":"b"}`)},
		{json("events", "AWSEvents.PutRule", `{"Name":"r","EventPattern":"{\"source\":[\"s\"]}"}`), json("events", "AWSEvents.DescribeRule", `{"Name":"r"}`), json("events", "AWSEvents.DeleteRule", `{"Name":"r"}`)},
		{request{"bucket", "s3", "PUT", "/made-bucket", "", ""}, request{"bucket", "s3", "GET", "/made-bucket", "", ""}, request{"bucket", "s3", "DELETE", "/made-bucket", "", ""}},
		{request{"topic", "sns", "POST", "/?Action=CreateTopic&Version=2010-03-31&Name=made", "", ""}, request{"topic", "sns", "POST", "/?Action=Publish&Version=2010-03-31&Message=m&TopicArn=arn:aws:sns:eu-west-1:" + account + ":made", "", ""},
			request{"topic", "sns", "POST", "/?Action=DeleteTopic&Version=2010-03-31&TopicArn=arn:aws:sns:eu-west-1:" + account + ":made", "", ""}},
	} {
		ask := func(who string, c *awsClient, r request, allowed bool) {
			t.Helper()
			if status, text := c.send(t, r); status >= 300 == allowed || !allowed && !strings.Contains(text, "AccessDenied") {
				t.Errorf("%s %s, by %s: %d %s", r.name, r.body, who, status, text)
			}
		}
		ask("one", one, c.make, true)
		ask("one", one, c.use, true)
		ask("two", two, c.use, false)
		ask("two", two, c.remove, false)
		ask("the operator", operator, c.use, true)
		ask("one", one, c.remove, true)
		ask("two", two, c.make, true) // it is gone: the name is free
		ask("one", one, c.use, false)
		ask("two", two, c.remove, true)
		ask("the operator", operator, c.make, true)
		ask("one", one, c.use, true) // nobody's App has made it: roles alone say who reaches it
		ask("two", two, c.use, true)
	}
}

func TestWhose_WhatWasPutOnNothingDoesNotBecomeAnotherApps(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.mustDeployApp(t, withRole("thief", "*"))
	thief := n.function("thief")
	target := "arn:aws:lambda:eu-west-1:" + account + ":function:shop-dev-hello" // which is not there yet
	for _, r := range []request{
		{"rule", "events", "POST", "/", "AWSEvents.PutRule", `{"Name":"mine","EventPattern":"{\"source\":[\"s\"]}"}`},
		{"target", "events", "POST", "/", "AWSEvents.PutTargets", `{"Rule":"mine","Targets":[{"Id":"a","Arn":"` + target + `"}]}`},
	} {
		if status, text := thief.send(t, r); status != 200 {
			t.Fatal(status, text)
		}
	}
	resp, text := thief.do(t, "scheduler", "POST", "/schedules/mine", map[string]string{"Content-Type": "application/json"},
		`{"ScheduleExpression":"rate(1 hour)","FlexibleTimeWindow":{"Mode":"OFF"},"Target":{"Arn":"`+target+`","RoleArn":"arn:aws:iam::000000000000:role/r"}}`)
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status, text)
	}
	n.mustDeploy(t, "shop", "dev", says("shop"))
	list, err := n.client.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range list {
		if sub.Function == "shop-dev-hello" {
			t.Errorf("what another app's function has put delivers to it: %+v", sub)
		}
	}
	if !strings.Contains(n.log.String(), "a target of a rule gets nothing") || !strings.Contains(n.log.String(), "a schedule fires for nobody") {
		t.Errorf("it is not said:\n%s", n.log)
	}
}

func TestWhose_OwnersPoliciesDeclareToo(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	statement := func(principal any) map[string]any {
		return map[string]any{"Statement": []any{map[string]any{"Effect": "Allow", "Principal": principal, "Action": "sqs:SendMessage", "Resource": app.Attr("Queue", "Arn")}}}
	}
	jobs := request{"send", "sqs", "POST", "/", "AmazonSQS.SendMessage", `{"QueueUrl":"jobs","MessageBody":"m"}`}
	receive := request{"receive", "sqs", "POST", "/", "AmazonSQS.ReceiveMessage", `{"QueueUrl":"jobs"}`}
	n.mustDeployApp(t, withRole("guest", "*"))
	guest := n.function("guest")
	for _, c := range []struct {
		principal any
		allowed   bool
	}{
		{"*", true}, {map[string]any{"AWS": "123456789012"}, true}, {map[string]any{"AWS": []any{"arn:aws:iam::1:role/guest-dev-Role"}}, true},
		{map[string]any{"AWS": "arn:aws:iam::1:role/other"}, false}, {map[string]any{"Service": "sns.amazonaws.com"}, false},
	} {
		n.mustDeployApp(t, things(app.Resource{ID: "Policy", Kind: app.Foreign, Type: "AWS::SQS::QueuePolicy", Properties: map[string]any{
			"Queues": []any{app.Attr("Queue", "Ref")}, "PolicyDocument": statement(c.principal)}}))
		if status, text := guest.send(t, jobs); status < 300 != c.allowed {
			t.Errorf("principal %v: %d %s", c.principal, status, text)
		}
		if status, text := guest.send(t, receive); status < 300 {
			t.Errorf("what the policy does not say: %d %s", status, text)
		}
	}
}

func TestWhose_AServiceSendsWhereTheOwnersPolicyTakesItFrom(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.mustDeployApp(t, things(app.Resource{ID: "Policy", Kind: app.Foreign, Type: "AWS::SQS::QueuePolicy", Properties: map[string]any{
		"Queues": []any{app.Attr("Queue", "Ref")}, "PolicyDocument": map[string]any{"Statement": map[string]any{
			"Effect": "Allow", "Principal": map[string]any{"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": app.Attr("Queue", "Arn"),
			"Condition": map[string]any{"ArnEquals": map[string]any{"aws:SourceArn": "arn:aws:sns:us-east-1:" + account + ":good"}},
		}}}}))
	sender := withRole("sender", "*")
	for _, topic := range []string{"good", "bad"} {
		sender.Resources = append(sender.Resources, app.Resource{ID: topic, Kind: app.Topic, Type: "AWS::SNS::Topic", Name: app.Lit(topic)},
			app.Resource{ID: topic + "ToJobs", Kind: app.Foreign, Type: "AWS::SNS::Subscription", Properties: map[string]any{
				"Protocol": "sqs", "TopicArn": app.Attr(topic, "Ref"), "Endpoint": "arn:aws:sqs:us-east-1:" + account + ":jobs"}})
	}
	d := n.mustDeployApp(t, sender)
	if len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "badToJobs") || !strings.Contains(d.Warnings[0], "arn:aws:sqs:::jobs belongs to app shop, stage dev") {
		t.Errorf("warnings: %q", d.Warnings)
	}
	operator := n.aws(t)
	for _, topic := range []string{"bad", "good"} {
		if status, text := operator.send(t, request{topic, "sns", "POST", "/?Action=Publish&Version=2010-03-31&Message=from-" + topic + "&TopicArn=arn:aws:sns:us-east-1:" + account + ":" + topic, "", ""}); status != 200 {
			t.Fatal(status, text)
		}
	}
	eventually(t, n, "the message is in the queue", func() bool {
		list, err := server.Peek(t.Context(), n.Server, "jobs", "")
		return err == nil && len(list) == 1 && strings.Contains(string(list[0].Body), "from-good")
	})
}

func TestWhose_TriggersOnOtherAppsAreRefusedUnlessDeclared(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.mustDeployApp(t, things())
	triggers := func(a *app.App) *app.App {
		for kind, source := range map[string]string{"sqs": "arn:aws:sqs:us-east-1:1:jobs", "stream": "arn:aws:kinesis:us-east-1:1:stream/clicks", "sns": "arn:aws:sns:us-east-1:1:news", "s3": "shop-files"} {
			tr := app.Trigger{Function: "hello", Kind: kind, Enabled: true, Source: app.Lit(source), Settings: map[string]any{}}
			switch kind {
			case "stream":
				tr.Settings["StartingPosition"] = "TRIM_HORIZON"
			case "s3":
				tr.Settings["Event"] = "s3:ObjectCreated:*"
			}
			a.Triggers = append(a.Triggers, tr)
		}
		return a
	}
	d := n.mustDeployApp(t, triggers(withRole("thief", "*")))
	all := strings.Join(d.Warnings, "\n")
	for _, want := range []string{"arn:aws:sqs:::jobs belongs to app shop, stage dev", "arn:aws:kinesis:::stream/clicks belongs to", "arn:aws:sns:::news belongs to", "arn:aws:s3:::shop-files belongs to"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not among the warnings:\n%s", want, all)
		}
	}
	own := n.function("shop")
	for i := range 3 {
		own.send(t, request{"send", "sqs", "POST", "/", "AmazonSQS.SendMessage", fmt.Sprintf(`{"QueueUrl":"jobs","MessageBody":"m%d"}`, i)})
	}
	// A declared one does see them: had the other polled, it would have taken some.
	d = n.mustDeployApp(t, triggers(withRole("friend", []any{"arn:aws:sqs:*:*:jobs", "arn:aws:kinesis:*:*:stream/clicks", "arn:aws:sns:*:*:news", "arn:aws:s3:::shop-files/*"})))
	if len(d.Warnings) > 0 {
		t.Errorf("declared triggers: %s", d.Warnings)
	}
	eventually(t, n, "the queue is empty", func() bool {
		list, err := n.client.Queues(t.Context())
		return err == nil && len(list) == 1 && list[0].Visible+list[0].InFlight == 0
	})
	if logs := n.logs(t); strings.Contains(logs, "thief") {
		t.Errorf("another app's function ran:\n%s", logs)
	}
}
