package server_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
)

// Rules, one that an App declares and one that a client puts, publish to a topic, in the forms that they ask for; its queue and its function get it. A
// disabled one publishes nothing, and a FIFO topic is refused when the target is put.
func TestRules_PublishToTopics(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	a, tree := shop("shop", "dev", `exports.hello = async (e) => { console.log("TOLD " + e.Records[0].Sns.Message); };`)
	a.Resources = []app.Resource{
		resource("News", "AWS::SNS::Topic", map[string]any{"TopicName": "news"}), resource("Jobs", "AWS::SQS::Queue", map[string]any{"QueueName": "jobs"}),
		resource("ToQueue", "AWS::SNS::Subscription", map[string]any{"TopicArn": app.Attr("News", "Ref"), "Protocol": "sqs", "Endpoint": app.Attr("Jobs", "Arn")}),
		resource("Placed", "AWS::Events::Rule", map[string]any{"Name": "placed", "EventPattern": map[string]any{"source": []any{"declared"}},
			"Targets": []any{map[string]any{"Id": "t", "Arn": app.Attr("News", "Ref"), "InputPath": "$.detail.n"}}}),
	}
	a.Triggers = []app.Trigger{{ID: "Sub", Function: "hello", Kind: "sns", Enabled: true, Source: app.Attr("News", "Ref")}}
	if d, err := n.deploy(t, a, tree); err != nil || len(d.Warnings) > 0 {
		t.Fatalf("deploy: %v %+v\n%s", err, d, n.log)
	}
	c := n.eventBridge(t, "deploy")
	c.must(t, "PutRule", `{"Name":"put","EventPattern":"{\"source\":[\"put\"]}"}`)
	c.must(t, "PutTargets", `{"Rule":"put","Targets":[{"Id":"t","Arn":"arn:aws:sns:eu-west-1:123456789012:news","InputTransformer":{"InputPathsMap":{"n":"$.detail.n"},"InputTemplate":"\"number <n>\""}}]}`, `"FailedEntryCount":0`)
	c.must(t, "PutEvents", `{"Entries":[{"Source":"declared","DetailType":"x","Detail":"{\"n\":1}"},{"Source":"put","DetailType":"x","Detail":"{\"n\":2}"}]}`, `"FailedEntryCount":0`)
	told := func() (out []string) {
		for _, body := range bodies(t, n, "jobs") {
			var notice struct{ Type, Message string }
			if err := json.Unmarshal([]byte(body), &notice); err != nil || notice.Type != "Notification" {
				t.Errorf("the queue has %s", body)
			}
			out = append(out, notice.Message)
		}
		slices.Sort(out)
		return out
	}
	eventually(t, n, "the queue has both", func() bool { return slices.Equal(told(), []string{`"number 2"`, `1`}) })
	for _, want := range []string{`TOLD 1`, `TOLD "number 2"`} {
		eventually(t, n, "the function got "+want, func() bool { return strings.Contains(n.logs(t), want+"\n") })
	}
	c.must(t, "DisableRule", `{"Name":"put"}`)
	c.must(t, "PutEvents", `{"Entries":[{"Source":"put","DetailType":"x","Detail":"{\"n\":3}"}]}`, `"FailedEntryCount":0`)
	c.must(t, "PutEvents", `{"Entries":[{"Source":"declared","DetailType":"x","Detail":"{\"n\":4}"}]}`, `"FailedEntryCount":0`)
	eventually(t, n, "the queue has what the enabled rule sent", func() bool { return slices.Equal(told(), []string{`"number 2"`, `1`, `4`}) })
	status, text := c.call(t, "PutTargets", `{"Rule":"put","Targets":[{"Id":"f","Arn":"arn:aws:sns:us-east-1:000000000000:news.fifo"}]}`)
	if !strings.Contains(text, "FIFO topic") {
		t.Errorf("a FIFO topic: %d %s", status, text)
	}
}
