package arn_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/arn"
)

func TestParse_RoundTripsAndRefusesNonsense(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"arn:aws:lambda:us-east-1:000000000000:function:a-dev-b", "arn:aws:s3:::bucket/key:with:colons", "arn:aws-cn:sns:cn-north-1:123456789012:t",
	} {
		a, err := arn.Parse(s)
		if err != nil || a.String() != s {
			t.Errorf("Parse(%q) = %v, %v", s, a, err)
		}
	}
	for _, s := range []string{"", "arn", "arn:aws:s3", "arn:aws:s3:::", "x:aws:s3:::b"} {
		if _, err := arn.Parse(s); err == nil {
			t.Errorf("Parse(%q) accepts", s)
		}
	}
}

func TestFunctionName_ReadsEveryForm(t *testing.T) {
	t.Parallel()
	for s, want := range map[string][2]string{
		"f": {"f", ""}, "f:prod": {"f", "prod"}, "123456789012:function:f": {"f", ""}, "function:f:3": {"f", "3"},
		arn.Function("eu-west-1", "000000000000", "f").String():    {"f", ""},
		"arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST": {"f", "$LATEST"},
	} {
		name, q, err := arn.FunctionName(s)
		if err != nil || name != want[0] || q != want[1] {
			t.Errorf("FunctionName(%q) = %q, %q, %v", s, name, q, err)
		}
	}
	for _, s := range []string{"", "arn:aws:s3:::b", "a/b", ":x"} {
		if _, _, err := arn.FunctionName(s); err == nil {
			t.Errorf("FunctionName(%q) accepts", s)
		}
	}
}
