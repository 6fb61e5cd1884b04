package ssm

import (
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/wire"
)

func TestSubjects_NameParameters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		operation string
		in        any
		want      string
	}{
		{"GetParameter", &struct{ Name string }{"/a/b"}, "ssm:GetParameter parameter/a/b"},
		{"GetParameters", &struct{ Names []string }{[]string{"a", "arn:aws:ssm:eu-west-1:9:parameter/b"}}, "ssm:GetParameters parameter/a, ssm:GetParameters parameter/b"},
		{"DescribeParameters", &struct{}{}, "ssm:DescribeParameters *"},
	} {
		var got []string
		for _, s := range subjects(&wire.Call{Operation: c.operation, Region: "us-east-1", Caller: wire.Caller{Account: "1"}}, c.in) {
			got = append(got, s.Action+" "+strings.TrimPrefix(s.Resource, "arn:aws:ssm:us-east-1:1:"))
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: got %s", c.operation, text)
		}
	}
}
