package wire_test

import (
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/wire/sts"
	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

func TestHandler_AnswersWhoCalls(t *testing.T) {
	t.Parallel()
	e := wiretest.New(t, sts.New())
	resp, body := e.Form(t, "sts", "/", "Action=GetCallerIdentity&Version=2011-06-15")
	if resp.StatusCode != 200 || !strings.Contains(body, "<Account>"+wiretest.Account+"</Account>") || !strings.Contains(body, "<GetCallerIdentityResult>") {
		t.Error(resp.Status, body)
	}
}

func TestHandler_NamesWhatIsNotHere(t *testing.T) {
	t.Parallel()
	e := wiretest.New(t, sts.New())
	for _, c := range []struct {
		name, service, target, form string
		status                      int
		want                        string
	}{
		{"operation that is not here yet", "sts", "", "Action=AssumeRole", 400, "<Code>InvalidAction</Code><Message>ebb does not have the operation AssumeRole of STS yet"},
		{"operation that nobody has", "sts", "", "Action=Frobnicate", 400, "The operation Frobnicate of STS is not known"},
		{"service", "glue", "AWSGlue.GetTable", "", 400, `{"__type":"UnknownOperationException","message":"ebb does not have the service glue GetTable"}`},
		{"service of forms", "ec2", "", "Action=RunInstances", 400, "<Code>InvalidAction</Code><Message>ebb does not have the service ec2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var status int
			var body string
			if c.target != "" {
				resp, b := e.JSON(t, c.service, c.target, "{}")
				status, body = resp.StatusCode, b
			} else {
				resp, b := e.Form(t, c.service, "/", c.form)
				status, body = resp.StatusCode, b
			}
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	t.Cleanup(func() {
		if got := e.Refused(); len(got) != 4 {
			t.Errorf("told of %q", got)
		}
	})
}
