package policy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
)

func policy(t *testing.T, statements string) Policy {
	t.Helper()
	p, err := ParseDocument([]byte(`{"Version":"2012-10-17","Statement":` + statements + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const table = "arn:aws:dynamodb:us-east-1:123456789012:table/notes"

func TestDecide_ActionsAndResources(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		statements, action, resource string
		want                         Effect
	}{
		"exact":                     {`{"Effect":"Allow","Action":"dynamodb:PutItem","Resource":"` + table + `"}`, "dynamodb:PutItem", table, Allow},
		"action in another case":    {`{"Effect":"Allow","Action":"DYNAMODB:putitem","Resource":"*"}`, "dynamodb:PutItem", table, Allow},
		"another action":            {`{"Effect":"Allow","Action":"dynamodb:GetItem","Resource":"*"}`, "dynamodb:PutItem", table, Silent},
		"wildcard":                  {`[{"Effect":"Allow","Action":["s3:*","dynamodb:Put*"],"Resource":["*"]}]`, "dynamodb:PutItem", table, Allow},
		"question mark":             {`{"Effect":"Allow","Action":"dynamodb:?etItem","Resource":"*"}`, "dynamodb:GetItem", table, Allow},
		"another region":            {`{"Effect":"Allow","Action":"dynamodb:*","Resource":"arn:aws:dynamodb:eu-west-1:999999999999:table/notes"}`, "dynamodb:PutItem", table, Allow},
		"another table":             {`{"Effect":"Allow","Action":"dynamodb:*","Resource":"arn:aws:dynamodb:*:*:table/others"}`, "dynamodb:PutItem", table, Silent},
		"resource is case-exact":    {`{"Effect":"Allow","Action":"dynamodb:*","Resource":"arn:aws:dynamodb:*:*:table/Notes"}`, "dynamodb:PutItem", table, Silent},
		"index of the table":        {`{"Effect":"Allow","Action":"dynamodb:*","Resource":"arn:aws:dynamodb:*:*:table/notes/index/*"}`, "dynamodb:Query", table + "/index/by", Allow},
		"bucket is not its objects": {`{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::b"}`, "s3:GetObject", "arn:aws:s3:::b/k", Silent},
		"objects":                   {`{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::b/*"}`, "s3:GetObject", "arn:aws:s3:::b/a/k", Allow},
		"a denial wins":             {`[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"s3:*","Resource":"*"}]`, "s3:GetObject", "arn:aws:s3:::b/k", Deny},
		"also when it comes first":  {`[{"Effect":"Deny","Action":"s3:*","Resource":"*"},{"Effect":"Allow","Action":"*","Resource":"*"}]`, "s3:GetObject", "arn:aws:s3:::b/k", Deny},
		"all but":                   {`{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`, "s3:GetObject", "arn:aws:s3:::b/k", Allow},
		"what is excepted":          {`{"Effect":"Allow","NotAction":"s3:*","Resource":"*"}`, "s3:GetObject", "arn:aws:s3:::b/k", Silent},
		"all resources but":         {`{"Effect":"Allow","Action":"s3:*","NotResource":"arn:aws:s3:::b/secret/*"}`, "s3:GetObject", "arn:aws:s3:::b/secret/k", Silent},
		"no resource":               {`{"Effect":"Allow","Action":"dynamodb:ListTables","Resource":"*"}`, "dynamodb:ListTables", "*", Allow},
		"nothing":                   {`[]`, "s3:GetObject", "*", Silent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := policy(t, c.statements).Decide(Request{Action: c.action, Resource: c.resource})
			if d.Effect != c.want || (d.Statement == "") != (c.want == Silent) {
				t.Errorf("got %+v", d)
			}
		})
	}
}

func TestDecide_Conditions(t *testing.T) {
	t.Parallel()
	context := map[string][]string{
		"aws:sourceip": {"10.1.2.3"}, "aws:username": {"ann"}, "s3:prefix": {"home/ann/x"}, "dynamodb:leadingkeys": {"ann", "bob"}, "aws:securetransport": {"true"},
		"n": {"10.0"}, "aws:currenttime": {"2026-05-06T07:08:09Z"}, "aws:sourcearn": {"arn:aws:sns:us-east-1:1:t"}, "bin": {"YWJj"}, "star": {"*"},
	}
	for condition, want := range map[string]bool{
		`{}`: true,
		`{"StringEquals":{"aws:UserName":"ann"}}`:                                     true,
		`{"StringEquals":{"aws:UserName":["bob","ann"]}}`:                             true,
		`{"StringEquals":{"aws:UserName":"Ann"}}`:                                     false,
		`{"StringEqualsIgnoreCase":{"aws:UserName":"Ann"}}`:                           true,
		`{"StringNotEquals":{"aws:UserName":["bob","ann"]}}`:                          false,
		`{"StringNotEquals":{"aws:UserName":["bob","cid"]}}`:                          true,
		`{"StringNotEquals":{"nowhere":"x"}}`:                                         true,
		`{"StringEquals":{"nowhere":"x"}}`:                                            false,
		`{"StringEqualsIfExists":{"nowhere":"x"}}`:                                    true,
		`{"StringLike":{"s3:prefix":"home/${aws:username}/*"}}`:                       true,
		`{"StringLike":{"s3:prefix":"home/${aws:userid}/*"}}`:                         false,
		`{"StringLike":{"s3:prefix":"home/${aws:userid, 'ann'}/*"}}`:                  true,
		`{"StringLike":{"star":"${*}"}}`:                                              true,
		`{"StringLike":{"aws:username":"${*}"}}`:                                      false,
		`{"StringEquals":{"aws:username":"${aws:username}"}}`:                         true,
		`{"StringNotLike":{"s3:prefix":"home/*"}}`:                                    false,
		`{"Bool":{"aws:SecureTransport":true}}`:                                       true,
		`{"Bool":{"aws:SecureTransport":"false"}}`:                                    false,
		`{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`:                                 true,
		`{"NotIpAddress":{"aws:SourceIp":["10.0.0.0/8","1.2.3.4"]}}`:                  false,
		`{"NumericLessThan":{"n":11}}`:                                                true,
		`{"NumericEquals":{"n":"10"}}`:                                                true,
		`{"NumericNotEquals":{"n":"10"}}`:                                             false,
		`{"NumericGreaterThanEquals":{"n":"10.01"}}`:                                  false,
		`{"DateGreaterThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"}}`:              true,
		`{"DateLessThan":{"aws:CurrentTime":"2026-01-01"}}`:                           false,
		`{"ArnLike":{"aws:SourceArn":"arn:aws:sns:*:*:t*"}}`:                          true,
		`{"ArnNotEquals":{"aws:SourceArn":"arn:aws:sns:eu-west-1:2:t"}}`:              false,
		`{"BinaryEquals":{"bin":"YWJj"}}`:                                             true,
		`{"Null":{"aws:TokenIssueTime":"true"}}`:                                      true,
		`{"Null":{"aws:username":"true"}}`:                                            false,
		`{"ForAllValues:StringEquals":{"dynamodb:LeadingKeys":["ann"]}}`:              false,
		`{"ForAllValues:StringEquals":{"dynamodb:LeadingKeys":["ann","bob","c"]}}`:    true,
		`{"ForAllValues:StringEquals":{"nowhere":["ann"]}}`:                           true,
		`{"ForAnyValue:StringEquals":{"dynamodb:LeadingKeys":["bob"]}}`:               true,
		`{"ForAnyValue:StringEquals":{"nowhere":["bob"]}}`:                            false,
		`{"ForAnyValue:StringNotEquals":{"dynamodb:LeadingKeys":["bob"]}}`:            true,
		`{"StringEquals":{"aws:username":"ann"},"Bool":{"aws:SecureTransport":true}}`: true,
		`{"StringEquals":{"aws:username":"ann","n":"11"}}`:                            false,
	} {
		p := policy(t, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+condition+`}`)
		if got := p.Decide(Request{Action: "s3:ListBucket", Resource: "*", Context: context}).Effect == Allow; got != want {
			t.Errorf("%s: got %v", condition, got)
		}
	}
}

func TestParse_NamesThePlace(t *testing.T) {
	t.Parallel()
	for statement, want := range map[string]string{
		`{"Effect":"allow","Action":"*","Resource":"*"}`:                                                                       `statement 1 of the policy: Effect is "allow"`,
		`{"Action":"*","Resource":"*"}`:                                                                                        "Effect is missing",
		`{"Effect":"Allow","Resource":"*"}`:                                                                                    "it has to have one of Action and NotAction",
		`{"Effect":"Allow","Action":"*"}`:                                                                                      "it has to have one of Resource and NotResource",
		`{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}`:                                                       "it has to have one of Action and NotAction",
		`{"Effect":"Allow","Action":{"a":1},"Resource":"*"}`:                                                                   "Action is no string or list of strings",
		`{"Effect":"Allow","Action":[],"Resource":"*"}`:                                                                        "Action is no string or list of strings",
		`{"Effect":"Allow","Action":"*","Resource":"*","Condition":"x"}`:                                                       "Condition is no map",
		`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringIs":{"a":"b"}}}`:                                    "Condition.StringIs.a: there is no such operator",
		`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NumericNotLessThan":{"a":"1"}}}`:                          "no such operator",
		`{"Sid":"Net","Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"ten"}}}`:          `statement 1 of the policy: Condition.IpAddress.aws:SourceIp: "ten" is no address`,
		`[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"A":"b"}}]`: "statement 2 of the policy: Condition.A is no map",
		`"x"`: "not a statement or a list",
	} {
		_, err := ParseDocument([]byte(`{"Statement":` + statement + `}`))
		if err == nil || errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", statement, err)
		}
	}
}

func TestMissing_WouldAllow(t *testing.T) {
	t.Parallel()
	r := Request{Action: "s3:PutObject", Resource: `arn:aws:s3:::b/"k"`}
	if got := policy(t, Missing(r)).Decide(r).Effect; got != Allow {
		t.Errorf("got %v", got)
	}
}

// FuzzLike compares the matcher with a plain one.
func FuzzLike(f *testing.F) {
	for _, s := range [][2]string{{"a*b", "axxb"}, {"*a*a*", "aba"}, {"?", ""}, {"**", "x"}, {"a\x00*", "a*"}} {
		f.Add(s[0], s[1])
	}
	var plain func(p, s string) bool
	plain = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return plain(p[1:], s) || s != "" && plain(p, s[1:])
		case p[0] == '?':
			return s != "" && plain(p[1:], s[1:])
		case p[0] == 0:
			return len(p) > 1 && s != "" && p[1] == s[0] && plain(p[2:], s[1:])
		}
		return s != "" && s[0] == p[0] && plain(p[1:], s[1:])
	}
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 12 || len(s) > 12 {
			return
		}
		if got, want := like(p, s), plain(p, s); got != want {
			t.Errorf("%q %q: got %v", p, s, got)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ForAllValues:StringLikeIfExists":{"a":["${aws:x,'d'}"]}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseDocument(b)
		if err == nil {
			p.Decide(Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::b/k", Context: map[string][]string{"a": {"b"}}})
		} else if !json.Valid(b) && errs.CodeOf(err) != errs.Invalid {
			t.Errorf("got %v", err)
		}
	})
}

func TestMayDeny_CountsWhatMightMeet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		statement map[string]any
		action    string
		want      bool
	}{
		{map[string]any{"Effect": "Deny", "Action": "bedrock:Invoke*", "Resource": "arn:aws:bedrock:*::x"}, "bedrock:InvokeModel", true},
		{map[string]any{"Effect": "Deny", "Action": "bedrock:Invoke*", "Resource": "*"}, "bedrock:*", true},
		{map[string]any{"Effect": "Deny", "Action": "bed*:Invoke", "Resource": "*"}, "bedrock:*", true},
		{map[string]any{"Effect": "Deny", "Action": "*", "Resource": "*"}, "bedrock:*", true},
		{map[string]any{"Effect": "Deny", "NotAction": "s3:*", "Resource": "*"}, "bedrock:Converse", true},
		{map[string]any{"Effect": "Deny", "NotAction": "bedrock:*", "Resource": "*"}, "bedrock:Converse", false},
		{map[string]any{"Effect": "Deny", "NotAction": "bedrock:Converse", "Resource": "*"}, "bedrock:*", true},
		{map[string]any{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}, "bedrock:*", false},
		{map[string]any{"Effect": "Deny", "Action": "bedrock:Create*", "Resource": "*"}, "bedrock:InvokeModel", false},
		{map[string]any{"Effect": "Allow", "Action": "*", "Resource": "*"}, "bedrock:*", false},
	} {
		p, err := Parse([]map[string]any{c.statement})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.MayDeny(c.action); got != c.want {
			t.Errorf("%v of %s: %v", c.statement, c.action, got)
		}
	}
}
