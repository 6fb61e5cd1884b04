package policy_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/policy"
)

func TestNames_AWildcardInTheNameNamesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		resource, asked, thing string
		want                   bool
	}{
		{"arn:aws:sqs:*:*:jobs", "arn:aws:sqs:eu-west-1:1:jobs", "arn:aws:sqs:::jobs", true},
		{"arn:aws:sqs:us-east-1:999999999999:jobs", "arn:aws:sqs:eu-west-1:1:jobs", "arn:aws:sqs:::jobs", true},
		{"*", "arn:aws:sqs:eu-west-1:1:jobs", "arn:aws:sqs:::jobs", false},
		{"arn:aws:sqs:*:*:*", "arn:aws:sqs:eu-west-1:1:jobs", "arn:aws:sqs:::jobs", false},
		{"arn:aws:sqs:*:*:jobs*", "arn:aws:sqs:eu-west-1:1:jobs", "arn:aws:sqs:::jobs", false},
		{"arn:aws:sqs:*:*:jobs", "arn:aws:sqs:eu-west-1:1:jobs2", "arn:aws:sqs:::jobs2", false},
		{"arn:aws:s3:::files/*", "arn:aws:s3:::files/a/b", "arn:aws:s3:::files", true},
		{"arn:aws:s3:::files*", "arn:aws:s3:::files/a", "arn:aws:s3:::files", false},
		{"arn:aws:s3:::files", "arn:aws:s3:::files/a", "arn:aws:s3:::files", false}, // the bucket, and not what is in it
		{"arn:aws:dynamodb:*:*:table/t/index/*", "arn:aws:dynamodb:eu-west-1:1:table/t/index/i", "arn:aws:dynamodb:::table/t", true},
	} {
		p, err := policy.Parse([]map[string]any{{"Effect": "Allow", "Action": "*", "Resource": c.resource}})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Names(policy.Request{Action: "x:Y", Resource: c.asked}, c.thing); got != c.want {
			t.Errorf("%s names %s: %v", c.resource, c.asked, got)
		}
	}
}

func TestParseShared_AStatementCountsForItsPrincipals(t *testing.T) {
	t.Parallel()
	me := []string{"arn:aws:iam:::root", "arn:aws:iam:::role/me", "sns.amazonaws.com"}
	for _, c := range []struct {
		key       string
		principal any
		want      policy.Effect
	}{
		{"Principal", "*", policy.Allow}, {"Principal", map[string]any{"AWS": "*"}, policy.Allow}, {"Principal", map[string]any{"AWS": "123456789012"}, policy.Allow},
		{"Principal", map[string]any{"AWS": []any{"arn:aws:iam::1:role/you", "arn:aws:iam::9:role/me"}}, policy.Allow},
		{"Principal", map[string]any{"Service": "sns.amazonaws.com"}, policy.Allow}, {"Principal", map[string]any{"Service": "s3.amazonaws.com"}, policy.Silent},
		{"Principal", "arn:aws:iam::1:role/you", policy.Silent}, {"NotPrincipal", "arn:aws:iam::1:role/you", policy.Allow}, {"NotPrincipal", "arn:aws:iam::1:role/me", policy.Silent},
	} {
		p, err := policy.ParseShared([]map[string]any{{"Effect": "Allow", c.key: c.principal, "Action": "sqs:*", "Resource": "*"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Decide(policy.Request{Action: "sqs:SendMessage", Resource: "arn:aws:sqs:::q", Principals: me}).Effect; got != c.want {
			t.Errorf("%s %v: %v", c.key, c.principal, got)
		}
	}
	if _, err := policy.ParseShared([]map[string]any{{"Effect": "Allow", "Action": "*", "Resource": "*"}}); err == nil {
		t.Error("a statement without a principal is read")
	}
}
