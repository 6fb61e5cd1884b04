package server_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// awsClient signs requests with a key of the Node.
type awsClient struct {
	n     *node
	creds sign.Credentials
}

func (n *node) aws(t testing.TB) *awsClient {
	t.Helper()
	k, err := n.client.CreateKey(t.Context(), api.KeyRequest{Name: "tests", Role: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	return &awsClient{n, sign.Credentials{AccessKey: k.AccessKeyID, Secret: k.SecretAccessKey}}
}

// do sends one request. service may be "lambda", or with a target of the JSON protocol "ssm".
func (c *awsClient) do(t testing.TB, service, method, path string, header map[string]string, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, c.n.AWSURL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	sign.Sign(r, []byte(body), c.creds, "eu-west-1", service, time.Now())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

// json calls an operation of the JSON protocol and reads its answer.
func (c *awsClient) json(t testing.TB, service, target, body string, into any) (status int, text string) {
	t.Helper()
	resp, text := c.do(t, service, http.MethodPost, "/", map[string]string{"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}, body)
	if resp.StatusCode == http.StatusOK && into != nil {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return resp.StatusCode, text
}

func TestCalls_InvokeRunsAFunctionByEveryFormOfItsName(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir())
	n.mustDeploy(t, "shop", "dev", `exports.hello = async (e, c) => {
		console.log("line of", e.n);
		if (e.fail) throw new TypeError("bad " + e.n);
		return {n: e.n, id: c.awsRequestId, custom: c.clientContext && c.clientContext.custom, arn: c.invokedFunctionArn};
	};`)
	c := n.aws(t)
	for i, name := range []string{
		"shop-dev-hello", "hello", "shop-dev-hello:$LATEST", "123456789012:function:shop-dev-hello",
		"arn%3Aaws%3Alambda%3Aap-south-1%3A123456789012%3Afunction%3Ashop-dev-hello", "arn:aws:lambda:us-east-1:000000000000:function:shop-dev-hello:$LATEST",
	} {
		resp, body := c.do(t, "lambda", "POST", "/2015-03-31/functions/"+name+"/invocations", map[string]string{
			"X-Amz-Log-Type": "Tail", "X-Amz-Client-Context": base64.StdEncoding.EncodeToString([]byte(`{"custom":{"k":"v"}}`)),
		}, fmt.Sprintf(`{"n":%d}`, i))
		id := resp.Header.Get("X-Amzn-Requestid")
		log, _ := base64.StdEncoding.DecodeString(resp.Header.Get("X-Amz-Log-Result"))
		if resp.StatusCode != 200 || resp.Header.Get("X-Amz-Executed-Version") != "$LATEST" || !strings.Contains(body, fmt.Sprintf(`"n":%d,"id":"%s","custom":{"k":"v"}`, i, id)) ||
			!strings.HasPrefix(string(log), "START RequestId: "+id) || !strings.Contains(string(log), fmt.Sprint("line of ", i)) || !strings.Contains(string(log), "\nREPORT RequestId: "+id) {
			t.Errorf("%s: %s %s %v\n%s", name, resp.Status, body, resp.Header, log)
		}
	}
	resp, body := c.do(t, "lambda", "POST", "/2015-03-31/functions/hello/invocations", nil, `{"fail":true,"n":7}`)
	if resp.StatusCode != 200 || resp.Header.Get("X-Amz-Function-Error") != "Unhandled" || !strings.Contains(body, `"errorType":"TypeError","errorMessage":"bad 7"`) {
		t.Error(resp.Status, resp.Header, body)
	}
}

func TestCalls_InvokeKeepsWhatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir())
	n.mustDeploy(t, "shop", "dev", `exports.hello = async e => ({got: e.n});`)
	c := n.aws(t)
	for _, q := range []struct{ path, kind string }{{"/2015-03-31/functions/hello/invocations", "Event"}, {"/2014-11-13/functions/hello/invoke-async/", ""}} {
		header := map[string]string{}
		if q.kind != "" {
			header["X-Amz-Invocation-Type"] = q.kind
		}
		resp, body := c.do(t, "lambda", "POST", q.path, header, `{"n":5}`)
		if resp.StatusCode != 202 || body != "" {
			t.Fatal(resp.Status, body)
		}
		id := resp.Header.Get("X-Amzn-Requestid")
		eventually(t, n, "the invocation succeeds", func() bool {
			st, err := n.client.Invocation(t.Context(), id)
			return err == nil && st.State == "succeeded" && string(st.Result) == `{"got":5}`
		})
	}
	if resp, body := c.do(t, "lambda", "POST", "/2015-03-31/functions/hello/invocations", map[string]string{"X-Amz-Invocation-Type": "DryRun"}, ``); resp.StatusCode != 204 || body != "" {
		t.Error(resp.Status, body)
	}
}

func TestCalls_InvokeRefusesInLambdasWords(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir())
	n.mustDeploy(t, "shop", "dev", `exports.hello = async () => 1;`)
	c := n.aws(t)
	big := `"` + strings.Repeat("x", 6<<20) + `"`
	for _, q := range []struct {
		name, function string
		header         map[string]string
		body           string
		status         int
		code, message  string
	}{
		{"unknown", "nobody", nil, "{}", 404, "ResourceNotFoundException", "Function not found: arn:aws:lambda:eu-west-1:000000000000:function:nobody"},
		{"unknown alias", "shop-dev-hello:live", nil, "{}", 404, "ResourceNotFoundException", "Function not found: arn:aws:lambda:eu-west-1:000000000000:function:shop-dev-hello:live"},
		{"two qualifiers", "shop-dev-hello:a?Qualifier=b", nil, "{}", 400, "InvalidParameterValueException", "The derived qualifier from the function name does not match the specified qualifier."},
		{"no JSON", "hello", nil, "{oops", 400, "InvalidRequestContentException", "Could not parse request body into json: "},
		{"too large", "hello", nil, big, 413, "RequestTooLargeException", "Request must be smaller than 6291456 bytes for the InvokeFunction operation"},
		{"too large for later", "hello", map[string]string{"X-Amz-Invocation-Type": "Event"}, big[:1<<20] + `"`, 413, "RequestTooLargeException", "Request must be smaller than 1048576 bytes for the InvokeFunction operation"},
		{"type", "hello", map[string]string{"X-Amz-Invocation-Type": "Later"}, "{}", 400, "ValidationException", "Member must satisfy enum value set"},
		{"context", "hello", map[string]string{"X-Amz-Client-Context": "e30"}, "{}", 400, "InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object."},
	} {
		t.Run(q.name, func(t *testing.T) {
			path, query, _ := strings.Cut(q.function, "?")
			path = "/2015-03-31/functions/" + path + "/invocations"
			if query != "" {
				path += "?" + query
			}
			resp, body := c.do(t, "lambda", "POST", path, q.header, q.body)
			if resp.StatusCode != q.status || resp.Header.Get("X-Amzn-Errortype") != q.code || !strings.Contains(body, q.message) {
				t.Errorf("%s %v %s", resp.Status, resp.Header, body)
			}
		})
	}
}

func TestCalls_TellWhatIsDeployed(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir())
	a, tree := shop("shop", "dev", `exports.hello = async (e, c) => c.invokedFunctionArn;`)
	a.Functions[0].Tags = map[string]string{"team": "blue"}
	a.Resources = []app.Resource{
		{ID: "Live", Kind: app.Foreign, Type: "AWS::Lambda::Alias", Properties: map[string]any{"Name": "live", "FunctionName": app.Attr("HelloLambdaFunction", "Ref")}},
		{ID: "Jobs", Kind: app.Queue, Type: "AWS::SQS::Queue", Name: app.Lit("jobs")},
	}
	a.Triggers = []app.Trigger{{ID: "T", Function: "hello", Kind: "sqs", Enabled: true, Source: app.Attr("Jobs", "Arn"), Settings: map[string]any{"BatchSize": 3}}}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	c := n.aws(t)
	get := func(path string, into any) {
		t.Helper()
		resp, body := c.do(t, "lambda", "GET", path, nil, "")
		if err := json.Unmarshal([]byte(body), into); resp.StatusCode != 200 || err != nil {
			t.Fatalf("%s: %s %s", path, resp.Status, body)
		}
	}
	type configuration struct {
		FunctionName, FunctionArn, Runtime, Handler, Version, CodeSha256, State string
		MemorySize, Timeout                                                     int
		CodeSize                                                                int64
		Environment                                                             struct{ Variables map[string]string }
	}
	var f struct {
		Configuration configuration
		Tags          map[string]string
	}
	get("/2015-03-31/functions/shop-dev-hello", &f)
	if g := f.Configuration; g.FunctionArn != "arn:aws:lambda:eu-west-1:000000000000:function:shop-dev-hello" || g.Runtime != "nodejs20.x" || g.MemorySize != 256 ||
		g.CodeSize == 0 || len(g.CodeSha256) != 44 || g.State != "Active" || g.Environment.Variables["STAGE"] != "dev" || f.Tags["team"] != "blue" {
		t.Errorf("%+v", f)
	}
	var list struct {
		Functions, Versions []configuration
		Aliases             []struct{ Name, FunctionVersion string }
		EventSourceMappings []struct {
			UUID, EventSourceArn, State string
			BatchSize                   int
		}
	}
	get("/2015-03-31/functions/", &list)
	get("/2015-03-31/functions/hello/versions", &list)
	get("/2015-03-31/functions/hello/aliases", &list)
	get("/2015-03-31/event-source-mappings/?FunctionName=shop-dev-hello", &list)
	if len(list.Functions) != 1 || len(list.Versions) != 2 || len(list.Aliases) != 1 || list.Aliases[0].Name != "live" || len(list.EventSourceMappings) != 1 {
		t.Fatalf("%+v", list)
	}
	if m := list.EventSourceMappings[0]; m.BatchSize != 3 || m.State != "Enabled" || !strings.HasSuffix(m.EventSourceArn, ":jobs") {
		t.Errorf("%+v", m)
	}
	var one struct{ UUID string }
	get("/2015-03-31/event-source-mappings/"+list.EventSourceMappings[0].UUID, &one)
	resp, body := c.do(t, "lambda", "POST", "/2015-03-31/functions/hello/invocations?Qualifier=live", nil, "")
	if resp.StatusCode != 200 || resp.Header.Get("X-Amz-Executed-Version") != "1" || !strings.HasSuffix(body, `:shop-dev-hello:live"`) {
		t.Error(resp.Status, body, resp.Header)
	}
	if resp, body := c.do(t, "lambda", "DELETE", "/2015-03-31/functions/hello", nil, ""); resp.StatusCode != 404 || !strings.Contains(body, "ebb does not have the operation DeleteFunction of Lambda yet") {
		t.Error(resp.Status, body)
	}
}

func TestCalls_StreamAnAnswerAsItComes(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir())
	n.mustDeploy(t, "shop", "dev", `exports.hello = awslambda.streamifyResponse(async (e, out) => { out.write("one,"); out.write(e.n); out.end(); });`)
	c := n.aws(t)
	resp, body := c.do(t, "lambda", "POST", "/2021-11-15/functions/hello/response-streaming-invocations", nil, `{"n":"two"}`)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/vnd.amazon.eventstream" || !strings.Contains(body, "one,") || !strings.Contains(body, "two") ||
		strings.Index(body, "PayloadChunk") > strings.Index(body, "InvokeComplete") || strings.Contains(body, "ErrorCode") {
		t.Errorf("%s %v %q", resp.Status, resp.Header, body)
	}
}
