package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// eventsClient calls EventBridge and EventBridge Scheduler from outside.
type eventsClient struct {
	n    *node
	cred sign.Credentials
}

func (n *node) eventBridge(t *testing.T, role string) *eventsClient {
	t.Helper()
	k := n.key(t, api.KeyRequest{Name: "events-" + role, Role: role})
	return &eventsClient{n, sign.Credentials{AccessKey: k.AccessKeyID, Secret: k.SecretAccessKey}}
}

// send signs a request and sends it.
func (c *eventsClient) send(t *testing.T, service, method, path string, head map[string]string, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, c.n.AWSURL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range head {
		r.Header.Set(k, v)
	}
	sign.Sign(r, []byte(body), c.cred, "us-east-1", service, time.Now())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func (c *eventsClient) call(t *testing.T, operation, body string) (int, string) {
	t.Helper()
	return c.send(t, "events", http.MethodPost, "/", map[string]string{"X-Amz-Target": "AWSEvents." + operation, "Content-Type": "application/x-amz-json-1.1"}, body)
}

// must calls, and wants the answer to be well and to have parts.
func (c *eventsClient) must(t *testing.T, operation, body string, want ...string) string {
	t.Helper()
	status, got := c.call(t, operation, body)
	if status != http.StatusOK {
		t.Fatalf("%s %s: %d %s\n%s", operation, body, status, got, c.n.log)
	}
	for _, part := range want {
		if !strings.Contains(got, part) {
			t.Errorf("%s %s: %s, want %s in it", operation, body, got, part)
		}
	}
	return got
}

func (n *node) takesEvents(t *testing.T) {
	t.Helper()
	a, tree := shop("shop", "dev", `exports.hello = async (e) => { console.log("GOT", JSON.stringify(e)); };`)
	a.Resources = []app.Resource{
		resource("Jobs", "AWS::SQS::Queue", map[string]any{"QueueName": "jobs"}), resource("Dead", "AWS::SQS::Queue", map[string]any{"QueueName": "dead"}),
		resource("Own", "AWS::Events::Rule", map[string]any{"Name": "own", "EventPattern": map[string]any{"source": []any{"own"}},
			"Targets": []any{map[string]any{"Id": "q", "Arn": app.Attr("Jobs", "Arn")}}}),
	}
	a.Triggers = []app.Trigger{{ID: "Taken", Function: "hello", Kind: "eventBridge", Enabled: true, Settings: map[string]any{"EventPattern": map[string]any{"source": []any{"taken"}}}}}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatalf("deploy: %v\n%s", err, n.log)
	}
}

func bodies(t *testing.T, n *node, queue string) (out []string) {
	t.Helper()
	for _, m := range inQueue(t, n, queue) {
		out = append(out, string(m.Body))
	}
	return out
}

// A rule that is put delivers to queues, functions and other buses, in the forms that its targets ask for; it stands after a restart and a deploy,
// delivers nothing while it is disabled, and ends when it is deleted.
func TestEventBridge_DeliversByRulesThatWerePut(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	n.takesEvents(t)
	c := n.eventBridge(t, "deploy")
	c.must(t, "CreateEventBus", `{"Name":"orders"}`, `arn:aws:events:us-east-1:000000000000:event-bus/orders`)
	c.must(t, "PutRule", `{"Name":"all","EventBusName":"orders","EventPattern":"{\"source\":[\"shop\"]}"}`, `:rule/orders/all"`)
	c.must(t, "PutTargets", `{"Rule":"all","EventBusName":"orders","Targets":[
		{"Id":"q","Arn":"arn:aws:sqs:eu-west-1:123456789012:jobs","InputTransformer":{"InputPathsMap":{"n":"$.detail.n"},"InputTemplate":"{\"number\":<n>}"}},
		{"Id":"f","Arn":"arn:aws:lambda:us-east-1:000000000000:function:shop-dev-hello"},
		{"Id":"b","Arn":"arn:aws:events:us-east-1:000000000000:event-bus/default"}]}`, `"FailedEntryCount":0`)
	c.must(t, "PutRule", `{"Name":"relayed","EventPattern":"{\"detail-type\":[\"Placed\"]}"}`)
	c.must(t, "PutTargets", `{"Rule":"relayed","Targets":[{"Id":"q","Arn":"arn:aws:sqs:us-east-1:000000000000:dead","InputPath":"$.detail.n"}]}`)
	put := func(n int) {
		c.must(t, "PutEvents", fmt.Sprintf(`{"Entries":[{"Source":"shop","DetailType":"Placed","Detail":"{\"n\":%d}","EventBusName":"orders","Time":1700000000,"Resources":["arn:one"]}]}`, n), `"FailedEntryCount":0`)
	}
	put(1)
	eventually(t, n, "the queue has it", func() bool { return slices.Equal(bodies(t, n, "jobs"), []string{`{"number":1}`}) })
	eventually(t, n, "it was relayed", func() bool { return slices.Equal(bodies(t, n, "dead"), []string{`1`}) })
	eventually(t, n, "the function ran", func() bool {
		return strings.Contains(n.logs(t), `"detail-type":"Placed","source":"shop","account":"000000000000","time":"2023-11-14T22:13:20Z","region":"us-east-1","resources":["arn:one"],"detail":{"n":1}}`)
	})

	g, err := n.client.Graph(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	edges := map[string]string{}
	for _, e := range g.Edges {
		edges[e.From+" "+e.To] = e.Kind
	}
	for _, to := range []string{"queue:jobs", "function:shop-dev-hello", "bus:default"} {
		if edges["bus:orders "+to] != "rule" {
			t.Errorf("the graph has no rule from bus orders to %s: %v", to, edges)
		}
	}

	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	c.n = n
	n.takesEvents(t)
	put(2)
	eventually(t, n, "the queue has it after a restart", func() bool { return len(bodies(t, n, "jobs")) == 2 })
	c.must(t, "DisableRule", `{"Name":"all","EventBusName":"orders"}`)
	put(3)
	c.must(t, "EnableRule", `{"Name":"all","EventBusName":"orders"}`)
	c.must(t, "RemoveTargets", `{"Rule":"all","EventBusName":"orders","Ids":["b","none"]}`, `"FailedEntryCount":1`, `"TargetId":"none"`)
	put(4)
	eventually(t, n, "the queue has what came while it was enabled", func() bool {
		return slices.Equal(bodies(t, n, "jobs"), []string{`{"number":1}`, `{"number":2}`, `{"number":4}`})
	})
	c.must(t, "RemoveTargets", `{"Rule":"all","EventBusName":"orders","Ids":["q","f"]}`)
	c.must(t, "DeleteRule", `{"Name":"all","EventBusName":"orders"}`)
	c.must(t, "DeleteEventBus", `{"Name":"orders"}`)
	c.must(t, "ListEventBuses", `{}`, `{"EventBuses":[{"Name":"default","Arn":"arn:aws:events:us-east-1:000000000000:event-bus/default"}]}`)
	list, err := n.client.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range list {
		if strings.HasPrefix(sub.Name, "rule/default/orders") {
			t.Errorf("%s is left", sub.Name)
		}
	}
}

// What an archive holds is delivered again to the rules that are asked for, and nothing else.
func TestEventBridge_ReplaysAnArchive(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.takesEvents(t)
	c := n.eventBridge(t, "deploy")
	put := func(kind string) {
		c.must(t, "PutEvents", fmt.Sprintf(`{"Entries":[{"Source":"shop","DetailType":%q,"Detail":"{}"}]}`, kind), `"FailedEntryCount":0`)
	}
	for rule, queue := range map[string]string{"one": "jobs", "two": "dead"} {
		c.must(t, "PutRule", `{"Name":"`+rule+`","EventPattern":"{\"source\":[\"shop\"]}"}`)
		c.must(t, "PutTargets", `{"Rule":"`+rule+`","Targets":[{"Id":"q","InputPath":"$.detail-type","Arn":"arn:aws:sqs:us-east-1:000000000000:`+queue+`"}]}`)
	}
	put("before")
	c.must(t, "CreateArchive", `{"ArchiveName":"kept","EventSourceArn":"arn:aws:events:us-east-1:000000000000:event-bus/default","EventPattern":"{\"detail-type\":[{\"anything-but\":\"other\"}]}"}`, `"State":"ENABLED"`)
	put("again")
	put("other")
	eventually(t, n, "both queues have all", func() bool { return len(bodies(t, n, "jobs")) == 3 && len(bodies(t, n, "dead")) == 3 })
	body := fmt.Sprintf(`{"ReplayName":"r","EventSourceArn":"arn:aws:events:us-east-1:000000000000:archive/kept","EventStartTime":1,"EventEndTime":%d,
		"Destination":{"Arn":"arn:aws:events:us-east-1:000000000000:event-bus/default","FilterArns":["arn:aws:events:us-east-1:000000000000:rule/one"]}}`, time.Now().Unix()+3600)
	c.must(t, "StartReplay", body, `"State":"STARTING"`)
	eventually(t, n, "the replay is complete", func() bool {
		return strings.Contains(c.must(t, "DescribeReplay", `{"ReplayName":"r"}`), `"State":"COMPLETED"`)
	})
	eventually(t, n, "it was delivered again", func() bool { return len(bodies(t, n, "jobs")) >= 4 })
	got := bodies(t, n, "jobs")
	slices.Sort(got)
	if !slices.Equal(got, []string{`"again"`, `"again"`, `"before"`, `"other"`}) || len(bodies(t, n, "dead")) != 3 {
		t.Errorf("jobs has %q, dead %q", got, bodies(t, n, "dead"))
	}
	if status, text := c.call(t, "StartReplay", body); status != 400 || !strings.Contains(text, `"ResourceAlreadyExistsException"`) {
		t.Error(status, text)
	}
}

// Requests that cannot be done are answered with AWS's codes, and entries that cannot be taken one by one.
func TestEventBridge_RefusesAsAWSDoes(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.takesEvents(t)
	c := n.eventBridge(t, "deploy")
	c.must(t, "PutRule", `{"Name":"full","EventPattern":"{\"source\":[\"shop\"]}","Tags":[{"Key":"a","Value":"b"}]}`)
	c.must(t, "PutTargets", `{"Rule":"full","Targets":[{"Id":"q","Arn":"arn:aws:sqs:us-east-1:000000000000:jobs"}]}`)
	c.must(t, "PutEvents", `{"Entries":[{"Source":"x","DetailType":"T","Detail":"{}"},{"Source":"aws.ec2","DetailType":"T","Detail":"{}"},{"Source":"x","DetailType":"T","Detail":"[1]"},
		{"Source":"x","Detail":"{}"},{"Source":"x","DetailType":"T","Detail":"{}","EventBusName":"a b"}]}`, `"FailedEntryCount":4`, `{"EventId":"`,
		`{"ErrorCode":"NotAuthorizedForSourceException"`, `{"ErrorCode":"MalformedDetail"`, `DetailType is a required argument`, `EventBusName is not valid`)
	c.must(t, "ListTagsForResource", `{"ResourceARN":"arn:aws:events:us-east-1:000000000000:rule/full"}`, `{"Key":"a","Value":"b"}`)
	c.must(t, "ListRuleNamesByTarget", `{"TargetArn":"arn:aws:sqs:eu-central-1:123456789012:jobs"}`, `{"RuleNames":["full","own"]}`)
	c.must(t, "ListRules", `{}`, `"Name":"Taken"`, `"Name":"full"`, `"Name":"own"`)
	c.must(t, "ListTargetsByRule", `{"Rule":"Taken"}`, `function:shop-dev-hello"`)
	c.must(t, "DeleteRule", `{"Name":"nowhere"}`)
	var first struct{ NextToken string }
	if err := json.Unmarshal([]byte(c.must(t, "ListRules", `{"Limit":1}`)), &first); err != nil || first.NextToken == "" {
		t.Fatal(err, first)
	}
	c.must(t, "ListRules", `{"Limit":1,"NextToken":"`+first.NextToken+`"}`, `"Name":"full"`)
	c.must(t, "TestEventPattern", `{"EventPattern":"{\"source\":[\"a\"]}","Event":"{\"id\":\"1\",\"account\":\"1\",\"source\":\"b\",\"time\":\"t\",\"region\":\"r\",\"resources\":[],\"detail-type\":\"x\"}"}`, `{"Result":false}`)
	big := strings.Repeat("x", 200<<10)
	for _, v := range []struct{ operation, body, want string }{
		{"PutRule", `{"Name":"bad","EventPattern":"{\"source\":[{\"prefx\":\"x\"}]}"}`, `"InvalidEventPatternException","message":"Event pattern is not valid. Reason: line 1, column 13`},
		{"PutRule", `{"Name":"bad"}`, `Parameter(s) EventPattern or ScheduleExpression must be specified.`},
		{"PutRule", `{"Name":"bad","ScheduleExpression":"rate(1 minutes)"}`, `Parameter ScheduleExpression is not valid.`},
		{"PutRule", `{"Name":"bad","ScheduleExpression":"at(2030-01-01T00:00:00)"}`, `Parameter ScheduleExpression is not valid.`},
		{"PutRule", `{"Name":"a b","EventPattern":"{}"}`, `Member must satisfy regular expression pattern: [.\\-_A-Za-z0-9]+`},
		{"PutRule", `{"Name":"bad","EventBusName":"none","EventPattern":"{\"source\":[\"x\"]}"}`, `"ResourceNotFoundException","message":"Event bus none does not exist."`},
		{"PutRule", `{"Name":"own","EventPattern":"{\"source\":[\"x\"]}"}`, `"ManagedRuleException"`},
		{"PutTargets", `{"Rule":"none","Targets":[{"Id":"1","Arn":"arn:aws:sqs:us-east-1:000000000000:jobs"}]}`, `Rule none does not exist on EventBus default.`},
		{"PutTargets", `{"Rule":"full","Targets":[{"Id":"1","Arn":"jobs"}]}`, `Provided Arn is not in correct format.`},
		{"PutTargets", `{"Rule":"full","Targets":[{"Id":"1","Arn":"arn:aws:sqs:us-east-1:000000000000:jobs.fifo"}]}`, `SqsParameters must be specified for target: 1.`},
		{"PutTargets", `{"Rule":"full","Targets":[` + fiveMore() + `]}`, `"LimitExceededException"`},
		{"DeleteRule", `{"Name":"full"}`, `Rule can't be deleted since it has targets.`},
		{"DescribeRule", `{"Name":"none"}`, `Rule none does not exist on EventBus default.`},
		{"DescribeRule", `{}`, `1 validation error detected: Value null at 'name' failed to satisfy constraint: Member must not be null`},
		{"DeleteEventBus", `{"Name":"default"}`, `Cannot delete event bus default.`},
		{"DescribeArchive", `{"ArchiveName":"none"}`, `Archive none does not exist.`},
		{"DescribeReplay", `{"ReplayName":"none"}`, `Replay none does not exist.`},
		{"ListRules", `{"NextToken":"***"}`, `Token is invalid.`},
		{"PutEvents", `{"Entries":[]}`, `Member must have length greater than or equal to 1`},
		{"PutEvents", `{"Entries":[{"Source":"x","DetailType":"T","Detail":"{\"a\":\"` + big + `\"}"},{"Source":"x","DetailType":"T","Detail":"{\"a\":\"` + big + `\"}"}]}`, `Total size of the entries in the request is over the limit.`},
		{"CreateConnection", `{"Name":"x","AuthorizationType":"BASIC","AuthParameters":{}}`, `"UnknownOperationException","message":"ebb does not have the operation CreateConnection of EventBridge yet"`},
	} {
		if status, got := c.call(t, v.operation, v.body); status != http.StatusBadRequest || !strings.Contains(got, v.want) {
			t.Errorf("%s %.200s: %d %s, want %s", v.operation, v.body, status, got, v.want)
		}
	}
	c.must(t, "PutTargets", `{"Rule":"full","Targets":[{"Id":"s","Arn":"arn:aws:states:us-east-1:000000000000:stateMachine:x"}]}`, `"FailedEntryCount":1`, `"ErrorCode":"ValidationException"`)
	if status, got := n.eventBridge(t, "read").call(t, "PutRule", `{"Name":"x","EventPattern":"{}"}`); status != http.StatusForbidden && status != http.StatusBadRequest || !strings.Contains(got, "AccessDeniedException") {
		t.Error(status, got)
	}
}

func fiveMore() string {
	var list []string
	for i := range 5 {
		list = append(list, fmt.Sprintf(`{"Id":"m%d","Arn":"arn:aws:sqs:us-east-1:000000000000:jobs"}`, i))
	}
	return strings.Join(list, ",")
}

// asksAWS is a function that calls EventBridge at its own name, with the credentials that it has, and tells the answer.
const asksAWS = `
const https = require("https"), crypto = require("crypto");
const hmac = (k, s) => crypto.createHmac("sha256", k).update(s).digest(), sha = (s) => crypto.createHash("sha256").update(s).digest("hex");
exports.hello = (e) => new Promise((done, fail) => {
  if (e.source) { console.log("GOT", JSON.stringify(e)); return done(); }
  const env = process.env, region = env.AWS_REGION, host = "events." + region + ".amazonaws.com", body = JSON.stringify(e.body);
  const at = new Date().toISOString().replace(/[-:]|\.\d+/g, ""), scope = at.slice(0, 8) + "/" + region + "/events/aws4_request";
  const head = { host, "x-amz-date": at, "x-amz-security-token": env.AWS_SESSION_TOKEN, "x-amz-target": "AWSEvents." + e.operation };
  const names = Object.keys(head).sort(), list = names.join(";");
  const canonical = ["POST", "/", "", ...names.map((n) => n + ":" + head[n]), "", list, sha(body)].join("\n");
  const key = [at.slice(0, 8), region, "events", "aws4_request"].reduce(hmac, "AWS4" + env.AWS_SECRET_ACCESS_KEY);
  const signature = hmac(key, ["AWS4-HMAC-SHA256", at, scope, sha(canonical)].join("\n")).toString("hex");
  head.authorization = "AWS4-HMAC-SHA256 Credential=" + env.AWS_ACCESS_KEY_ID + "/" + scope + ", SignedHeaders=" + list + ", Signature=" + signature;
  head["content-type"] = "application/x-amz-json-1.1";
  https.request({ host, method: "POST", headers: head }, (r) => { let all = ""; r.on("data", (d) => all += d).on("end", () => done({ status: r.statusCode, body: all })); }).on("error", fail).end(body);
});`

// What a function puts reaches the trigger that asks for it, told as caused by the function; another app's bus is closed to it, and what ebb does
// not have shows in the function's log.
func TestEventBridge_TakesEventsOfFunctions(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	if ok, why := isolatedHere(t); !ok {
		t.Skipf("functions reach AWS's names only in a sandbox with a network of its own: %s", why)
	}
	n.publishing(t, "other", declaresBus("private"))
	a, tree := shop("shop", "dev", asksAWS)
	a.Triggers = []app.Trigger{{ID: "Taken", Function: "hello", Kind: "eventBridge", Enabled: true, Settings: map[string]any{"EventPattern": map[string]any{"source": []any{"shop"}}}}}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatalf("deploy: %v\n%s", err, n.log)
	}
	ask := func(operation string, body any) (int, string) {
		var got struct {
			Status int
			Body   string
		}
		n.invoke(t, "shop-dev-hello", map[string]any{"operation": operation, "body": body}, &got)
		return got.Status, got.Body
	}
	entry := map[string]any{"Source": "shop", "DetailType": "Placed", "Detail": `{"n":1}`}
	status, body := ask("PutEvents", map[string]any{"Entries": []any{entry}})
	if status != http.StatusOK || !strings.Contains(body, `"FailedEntryCount":0`) {
		t.Fatal(status, body)
	}
	eventually(t, n, "the trigger fired", func() bool { return strings.Contains(n.logs(t), `"detail-type":"Placed","source":"shop"`) })
	var sent struct{ Entries []struct{ EventID string } }
	if err := json.Unmarshal([]byte(body), &sent); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the event is traced to the function", func() bool {
		trace, err := n.client.Trace(t.Context(), sent.Entries[0].EventID)
		if err != nil || len(trace.Roots) != 1 || len(trace.Roots[0].Children) != 1 {
			return false
		}
		root := trace.Roots[0]
		return root.Kind == api.TraceInvocation && root.Function == "shop-dev-hello" && root.State == "succeeded" && root.Children[0].ID == sent.Entries[0].EventID
	})
	entry["EventBusName"] = "private"
	if status, body := ask("PutEvents", map[string]any{"Entries": []any{entry}}); status != http.StatusBadRequest || !strings.Contains(body, `"AccessDeniedException"`) ||
		!strings.Contains(body, "is not authorized to perform: events:PutEvents on resource: arn:aws:events:us-east-1:000000000000:event-bus/private") {
		t.Error(status, body)
	}
	if status, body := ask("CreateConnection", map[string]any{}); status != http.StatusBadRequest || !strings.Contains(body, "ebb does not have the operation CreateConnection of EventBridge yet") {
		t.Error(status, body)
	}
	eventually(t, n, "the refusal is in the log", func() bool {
		return strings.Contains(n.logs(t), "ebb: does not have the operation CreateConnection of EventBridge yet")
	})
}
