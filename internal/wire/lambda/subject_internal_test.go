package lambda

import (
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/wire"
)

func TestSubjects_NameFunctions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		operation string
		in        any
		want      string
	}{
		{"Invoke", &struct{ FunctionName, Qualifier string }{"f", ""}, "lambda:InvokeFunction function:f"},
		{"Invoke", &struct{ FunctionName, Qualifier string }{"arn:aws:lambda:eu-west-1:9:function:f:live", ""}, "lambda:InvokeFunction function:f:live"},
		{"GetFunction", &struct{ FunctionName, Qualifier string }{"9:function:f", "2"}, "lambda:GetFunction function:f:2"},
		{"ListFunctions", nil, "lambda:ListFunctions *"},
	} {
		var got []string
		for _, s := range subjects(&wire.Call{Operation: c.operation, Region: "us-east-1", Caller: wire.Caller{Account: "1"}}, c.in) {
			got = append(got, s.Action+" "+strings.TrimPrefix(s.Resource, "arn:aws:lambda:us-east-1:1:"))
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: got %s", c.operation, text)
		}
	}
}
