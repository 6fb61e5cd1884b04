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
		{"service", "glue", "AWSGlue.GetTable", "", 400, `{"__type":"UnknownOperationException","message":"ebb does not have the service glue: GetTable was refused"}`},
		{"service of forms", "ec2", "", "Action=RunInstances", 400, "<Response><Errors><Error><Code>InvalidAction</Code><Message>ebb does not have the service ec2: RunInstances was refused"},
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

// Clients show the text of a refusal only in the form that they read.
func TestHandler_RefusesServicesInTheirForm(t *testing.T) {
	t.Parallel()
	e := wiretest.New(t, sts.New())
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	for _, c := range []struct {
		name, service, method, path string
		head                        map[string]string
		body                        string
		status                      int
		errorType, want             string
	}{
		{"mail by forms", "ses", "POST", "/", form, "Action=SendEmail", 400, "", "<Code>InvalidAction</Code><Message>ebb does not have the service SES (ses): SendEmail was refused</Message>"},
		{"mail by REST", "ses", "POST", "/v2/email/outbound-emails", nil, "{}", 404, "UnknownOperationException", `"Message":"ebb does not have the service SES (ses): POST /v2/email/outbound-emails was refused"`},
		{"metrics by JSON", "monitoring", "POST", "/", map[string]string{"X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData"}, "{}", 400, "",
			`{"__type":"UnknownOperationException","message":"ebb does not have the service CloudWatch (monitoring): PutMetricData was refused"}`},
		{"metrics by CBOR", "monitoring", "POST", "/service/GraniteServiceVersion20100801/operation/PutMetricData", map[string]string{"Smithy-Protocol": "rpc-v2-cbor", "Content-Type": "application/cbor"}, "\xa0", 400, "",
			"\xa2f__typex\x19UnknownOperationExceptiongmessagexPebb does not have the service CloudWatch (monitoring): PutMetricData was refused"},
		{"state machines", "states", "POST", "/", map[string]string{"X-Amz-Target": "AWSStepFunctions.StartExecution"}, "{}", 400, "", `Step Functions (states): StartExecution was refused"`},
		{"REST with XML", "route53", "GET", "/2013-04-01/hostedzone", nil, "", 404, "", "<ErrorResponse><Error><Type>Sender</Type><Code>UnknownOperationException</Code><Message>ebb does not have the service route53: GET /2013-04-01/hostedzone was refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			resp, body := e.Do(t, c.service, c.method, c.path, c.head, c.body)
			if resp.StatusCode != c.status || !strings.Contains(body, c.want) || resp.Header.Get("X-Amzn-Errortype") != c.errorType {
				t.Errorf("%d %s %q, want %q", resp.StatusCode, resp.Header.Get("X-Amzn-Errortype"), body, c.want)
			}
		})
	}
}
