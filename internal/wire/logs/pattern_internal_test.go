package logs

import (
	"strings"
	"testing"
)

func TestPattern_TakesWhatTheGuideSays(t *testing.T) {
	t.Parallel()
	const object = `{"eventType":"UpdateTrail","sourceIPAddress":"111.111.111.111","arrayKey":["value","another value"],"objectList":[{"name":"a","id":1},{"name":"b","id":2}],"SomeObject":null,"ThisFlag":true,"n":-1.5e2,"a b":{"c-d":"x"}}`
	for _, c := range []struct {
		pattern, message string
		want             bool
	}{
		{"", "anything", true},
		{"ERROR", "[ERROR 400] BAD REQUEST", true},
		{"ERROR", "error", false},
		{"ERROR ARGUMENTS", "[ERROR 419] MISSING ARGUMENTS", true},
		{"ERROR ARGUMENTS", "[ERROR 401] UNAUTHORIZED REQUEST", false},
		{`"INTERNAL SERVER ERROR"`, "[ERROR 500] INTERNAL SERVER ERROR", true},
		{`"INTERNAL SERVER ERROR"`, "INTERNAL ERROR", false},
		{`"say \"hi\""`, `they say "hi"`, true},
		{"?ERROR ?WARN", "[WARN] x", true},
		{"?ERROR ?WARN", "[INFO] x", false},
		{"?INFO REQUEST", "a REQUEST", true}, // ?terms count for nothing beside others
		{"ERROR -ARGUMENTS", "[ERROR 419] MISSING ARGUMENTS", false},
		{`-"BAD REQUEST"`, "GOOD REQUEST", true},
		{`%AUTHORIZED|BAD%`, "[ERROR 401] UNAUTHORIZED", true},
		{`{ $.eventType = "UpdateTrail" }`, object, true},
		{`{ $.eventType = "UpdateTrail" }`, object + "\n", true},
		{`{ $.eventType = "UpdateTrail" }`, "x " + object, false},
		{`{ $.eventType = "UpdateTrail" }`, "[]", false},
		{`{ $.eventType != "UpdateTrail" }`, object, false},
		{`{ $.sourceIPAddress != 123.123.* }`, object, true},
		{`{ $.sourceIPAddress = 111.* }`, object, true},
		{`{ $.arrayKey[0] = "value" }`, object, true},
		{`{ $.arrayKey[2] = "value" }`, object, false},
		{`{ $.objectList[1].id = 2 }`, object, true},
		{`{ $.objectList[*].id >= 2 }`, object, true},
		{`{ $.SomeObject IS NULL }`, object, true},
		{`{ $.SomeOtherObject NOT EXISTS }`, object, true},
		{`{ $.SomeObject NOT EXISTS }`, object, false},
		{`{ $.ThisFlag IS TRUE }`, object, true},
		{`{ $.ThisFlag IS FALSE }`, object, false},
		{`{ $.n = -150 && $.n < 0 }`, object, true},
		{`{ $["a b"].c-d = x }`, object, true},
		{`{ $.['a'] = x }`, object, false},
		{`{ $.eventType = %^Update% }`, object, true},
		{`{ ($.n > 0 || $.ThisFlag IS TRUE) && $.eventType = Up*il }`, object, true},
		{`{ $.n > 0 || $.ThisFlag IS TRUE && $.eventType = "Delete*" }`, object, false},
	} {
		p, err := parsePattern(c.pattern)
		if err != nil {
			if c.pattern != `{ $.['a'] = x }` {
				t.Errorf("%s: %v", c.pattern, err)
			}
			continue
		}
		if got := p.matches(c.message); got != c.want {
			t.Errorf("%s on %s: got %v", c.pattern, c.message, got)
		}
	}
}

func TestPattern_RefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"a-b", `"open`, "%open", "%(%", "a\"b\"", "?", "-", "[a, b]", "{", "{}", "{ $.a }", "{ a = 1 }", "{ $ = 1 }", "{ $.a = }", "{ $.a > b }", "{ $.a[x] = 1 }", "{ $.a[-1] = 1 }", "{ $.a = 1 && }",
		"{ ($.a = 1 }", "{ $.a = 1 ) }", "{ $.a IS 1 }", "{ " + strings.Repeat("(", maxDepth+1) + "$.a = 1" + strings.Repeat(")", maxDepth+1) + " }",
	} {
		if _, err := parsePattern(text); err == nil || !strings.Contains(err.Error(), "InvalidParameterException") {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range []string{`a "b c" ?d -e`, `{ $.a[0].b = "x*" && ($.c >= 1.5 || $.d NOT EXISTS) }`, "%a|b%", `{ $["x"] IS NULL }`, `{ $.*[*] != a }`} {
		f.Add(seed, `{"a":[{"b":"xy"}],"c":2}`)
	}
	f.Fuzz(func(_ *testing.T, text, message string) {
		if p, err := parsePattern(text); err == nil {
			p.matches(message)
		}
	})
}

func TestSubjects_NameGroupsAndStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		operation string
		in        any
		want      string
	}{
		{"PutLogEvents", &putInput{LogGroupName: "/g", LogStreamName: "s"}, "log-group:/g:log-stream:s"},
		{"CreateLogStream", &streamInput{LogGroupName: "/g", LogStreamName: "s"}, "log-group:/g:* or log-group:/g"},
		{"FilterLogEvents", &filterInput{LogGroupIdentifier: "arn:aws:logs:eu-west-1:1:log-group:/g:*"}, "log-group:/g:* or log-group:/g"},
		{"DescribeLogGroups", &describeGroupsInput{}, "log-group:*"},
	} {
		got := subjects(callOf(c.operation), c.in)
		text := strings.TrimPrefix(got[0].Resource, "arn:aws:logs:us-east-1:1:")
		if got[0].Also != "" {
			text += " or " + strings.TrimPrefix(got[0].Also, "arn:aws:logs:us-east-1:1:")
		}
		if len(got) != 1 || got[0].Action != "logs:"+c.operation || text != c.want {
			t.Errorf("%s: got %+v", c.operation, got)
		}
	}
}
