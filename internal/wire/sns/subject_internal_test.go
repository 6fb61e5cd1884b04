package sns

import (
	"testing"

	"github.com/ebb-run/ebb/internal/wire"
)

func TestSubjects_NameTopics(t *testing.T) {
	t.Parallel()
	type topic struct{ TopicArn string }
	for _, c := range []struct {
		operation string
		in        any
		want      string
	}{
		{"PublishBatch", &topic{"arn:aws:sns:eu-west-1:9:t"}, "sns:Publish arn:aws:sns:eu-west-1:9:t"},
		{"CreateTopic", &struct{ Name string }{"t"}, "sns:CreateTopic arn:aws:sns:us-east-1:1:t"},
		{"Unsubscribe", &struct{ SubscriptionArn string }{"arn:aws:sns:eu-west-1:9:t:0-1"}, "sns:Unsubscribe arn:aws:sns:eu-west-1:9:t"},
		{"ListTopics", nil, "sns:ListTopics *"},
	} {
		s := subjects(&wire.Call{Operation: c.operation, Region: "us-east-1", Caller: wire.Caller{Account: "1"}}, c.in)
		if len(s) != 1 || s[0].Action+" "+s[0].Resource != c.want {
			t.Errorf("%s: got %+v", c.operation, s)
		}
	}
}
