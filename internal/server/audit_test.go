package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/audit"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/server"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

func (n *node) audit(t testing.TB, q api.AuditQuery) (list []api.AuditRecord) {
	t.Helper()
	if err := n.client.AuditRecords(t.Context(), q, nil, func(r api.AuditRecord) error { list = append(list, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

// sound says whether all logs verify.
func (n *node) sound(t testing.TB) {
	t.Helper()
	logs, err := n.client.VerifyAudit(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range logs {
		if len(r.Faults) > 0 {
			t.Errorf("log %s: %s", name, r.Faults)
		}
	}
}

func TestAudit_RecordsWhoChangedWhatAndNoValues(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	const canary = "the-secret-canary"
	a, _ := shop("shop", "dev", "")
	a.Resources = []app.Resource{{ID: "P", Kind: app.Foreign, Type: "AWS::SSM::Parameter", Properties: map[string]any{"Name": "/declared", "Type": "String", "Value": canary}}}
	a.Functions[0].Env = map[string]app.Value{"PASSWORD": app.Lit(canary)}
	n.mustDeployApp(t, a)
	operator, function := n.aws(t), n.function("shop")
	json := func(service, target, body string) request { return request{target, service, "POST", "/", target, body} }
	for _, c := range []*awsClient{operator, function} {
		who := "operator"
		if c == function {
			who = "function"
		}
		for _, r := range []request{
			json("ssm", "AmazonSSM.PutParameter", `{"Name":"/`+who+`","Type":"SecureString","Value":"`+canary+`","Description":"`+canary+`"}`),
			json("ssm", "AmazonSSM.PutParameter", `{"Name":"/`+who+`","Type":"SecureString","Value":"`+canary+`"}`), // there already: it fails
			json("secretsmanager", "secretsmanager.CreateSecret", `{"Name":"`+who+`","SecretString":"`+canary+`"}`),
			json("secretsmanager", "secretsmanager.PutSecretValue", `{"SecretId":"`+who+`","SecretString":"`+canary+`"}`),
			json("ssm", "AmazonSSM.DeleteParameter", `{"Name":"/`+who+`"}`),
			json("sqs", "AmazonSQS.CreateQueue", `{"QueueName":"`+who+`","Tags":{"t":"`+canary+`"}}`),
			json("sqs", "AmazonSQS.SendMessage", `{"QueueUrl":"`+who+`","MessageBody":"`+canary+`"}`),
			json("sqs", "AmazonSQS.PurgeQueue", `{"QueueUrl":"`+who+`"}`),
			{"bucket", "s3", "PUT", "/" + who + "-bucket", "", ""},
			{"object", "s3", "PUT", "/" + who + "-bucket/" + canary, "", canary},
			{"policy", "s3", "PUT", "/" + who + "-bucket?policy", "", `{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::` + who + `-bucket/*","Sid":"` + canary + `"}]}`},
			json("dynamodb", "DynamoDB_20120810.CreateTable", `{"TableName":"`+who+`-t","BillingMode":"PAY_PER_REQUEST","AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}],"KeySchema":[{"AttributeName":"id","KeyType":"HASH"}]}`),
			json("dynamodb", "DynamoDB_20120810.PutItem", `{"TableName":"`+who+`-t","Item":{"id":{"S":"`+canary+`"}}}`),
			json("events", "AWSEvents.PutRule", `{"Name":"`+who+`","EventPattern":"{\"source\":[\"`+canary+`\"]}"}`),
			{"topic", "sns", "POST", "/?Action=CreateTopic&Version=2010-03-31&Name=" + who, "", ""},
		} {
			c.send(t, r)
		}
	}
	k, err := n.client.CreateKey(t.Context(), api.KeyRequest{Name: "ci", Role: "deploy"})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.client.RevokeKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range n.audit(t, api.AuditQuery{}) {
		if text := fmt.Sprintf("%+v", r); strings.Contains(text, canary) || strings.Contains(text, k.Key[20:]) || strings.Contains(text, k.SecretAccessKey) {
			t.Errorf("a record holds what is secret: %s", text)
		}
		if r.Outcome != audit.Begun {
			got = append(got, strings.Join([]string{r.Log, strings.Fields(r.Who)[0], r.What, r.On[strings.LastIndexByte(r.On, ':')+1:], r.Outcome}, " "))
		}
	}
	want := []string{"changes local server:start ebb test done", "changes local deploy shop/dev done", "changes local key:create tests with the role admin done"}
	for _, log := range []string{"changes key operator", "functions function function"} {
		part := strings.Fields(log)
		at, who := part[0]+" "+part[1]+" ", part[2]
		want = append(want, at+"ssm:PutParameter parameter/"+who+" done", at+"ssm:PutParameter parameter/"+who+" failed: ParameterAlreadyExists", at+"secretsmanager:CreateSecret "+who+" done",
			at+"secretsmanager:PutSecretValue "+who+" done", at+"ssm:DeleteParameter parameter/"+who+" done", at+"sqs:CreateQueue "+who+" done", at+"sqs:PurgeQueue "+who+" done",
			at+"s3:CreateBucket "+who+"-bucket done", at+"s3:PutBucketPolicy "+who+"-bucket done", at+"dynamodb:CreateTable table/"+who+"-t done", at+"events:PutRule rule/"+who+" done", at+"sns:CreateTopic "+who+" done")
	}
	want = append(want, "changes local key:create ci with the role deploy done", "changes local key:revoke "+k.ID+" done", "changes local remove shop/dev done")
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, r := range n.audit(t, api.AuditQuery{App: "shop", Since: time.Now().Add(-time.Hour)}) {
		if r.App != "shop" {
			t.Errorf("of one app: %+v", r)
		}
	}
	n.sound(t)
}

func TestAudit_TellsRefusalsAndFollows(t *testing.T) {
	t.Parallel()
	n := openWith(t, filepath.Join(t.TempDir(), "data"), map[string]string{"iam": "enforce"})
	n.mustDeployApp(t, things())
	n.mustDeployApp(t, withRole("thief", "arn:aws:sqs:*:*:mine"))
	thief := n.function("thief")
	came := make(chan api.AuditRecord, 100)
	ready := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		_ = n.client.AuditRecords(ctx, api.AuditQuery{Follow: true, Denials: true}, func() { close(ready) }, func(r api.AuditRecord) error { came <- r; return nil })
	}()
	<-ready
	for range 50 {
		thief.send(t, request{"send", "sqs", "POST", "/", "AmazonSQS.SendMessage", `{"QueueUrl":"jobs","MessageBody":"m"}`}) // another app's
		thief.send(t, request{"list", "dynamodb", "POST", "/", "DynamoDB_20120810.ListTables", `{}`})                        // not its role's
		wrong := &awsClient{n, sign.Credentials{AccessKey: "AKIAWRONG", Secret: "wrong"}}                                    // nobody's
		wrong.send(t, request{"list", "dynamodb", "POST", "/", "DynamoDB_20120810.ListTables", `{}`})
	}
	resp, err := http.Get(n.APIURL() + "/v1/stacks")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	for _, want := range []string{
		"function thief-dev-hello sqs:SendMessage arn:aws:sqs:eu-west-1:" + account + ":jobs", "function thief-dev-hello dynamodb:ListTables *", "nobody aws:authenticate ", "nobody api: GET /v1/stacks 127.0.0.1",
	} {
		r := <-came
		if got := r.Who + " " + r.What + " " + r.On; got != want || r.Outcome != audit.Denied || r.Text == "" || r.Count > 1 {
			t.Errorf("got %q of %+v, want %q", got, r, want)
		}
	}
	// The others are counted, and written at the end at the latest.
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = open(t, n.dir)
	total := 0
	for _, r := range n.audit(t, api.AuditQuery{Denials: true}) {
		total += max(r.Count, 1)
	}
	if total != 151 {
		t.Errorf("the records stand for %d refusals, not 151", total)
	}
	n.sound(t)
}

// changeForever changes things until it is killed, and prints what was acknowledged after it was.
func changeForever(dir, round string) error {
	cfg, err := config.Load(config.Sources{Flags: map[string]string{"listen": "127.0.0.1:0", "data": dir}})
	if err != nil {
		return err
	}
	ctx := context.Background()
	s, err := server.Open(ctx, server.Options{Config: cfg, Version: "test", Log: slog.New(slog.DiscardHandler), Env: os.LookupEnv})
	if err != nil {
		return err
	}
	failed := make(chan error)
	go func() { failed <- s.Run(ctx) }()
	client := api.NewClient(s.APIURL(), s.Token())
	k, err := client.CreateKey(ctx, api.KeyRequest{Name: "round-" + round, Role: "admin"})
	if err != nil {
		return err
	}
	_, _ = os.Stdout.WriteString("ready\n")
	go func() {
		for i := 0; ; i++ {
			name := fmt.Sprintf("key-%s-%d", round, i)
			if _, err := client.CreateKey(ctx, api.KeyRequest{Name: name, Role: "read"}); err != nil {
				failed <- err
				return
			}
			_, _ = os.Stdout.WriteString("ack key:create " + name + " with the role read\n")
		}
	}()
	go func() {
		for i := 0; ; i++ {
			name := fmt.Sprintf("queue-%s-%d", round, i)
			body := `{"QueueName":"` + name + `"}`
			r, err := http.NewRequest(http.MethodPost, s.AWSURL(), strings.NewReader(body))
			if err == nil {
				r.Header.Set("X-Amz-Target", "AmazonSQS.CreateQueue")
				r.Header.Set("Content-Type", "application/x-amz-json-1.0")
				sign.Sign(r, []byte(body), sign.Credentials{AccessKey: k.AccessKeyID, Secret: k.SecretAccessKey}, "us-east-1", "sqs", time.Now())
				var resp *http.Response
				if resp, err = http.DefaultClient.Do(r); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					if _ = resp.Body.Close(); resp.StatusCode != 200 {
						err = errors.New(resp.Status)
					}
				}
			}
			if err != nil {
				failed <- err
				return
			}
			_, _ = os.Stdout.WriteString("ack sqs:CreateQueue arn:aws:sqs:us-east-1:" + account + ":" + name + "\n")
		}
	}()
	return <-failed
}

func TestAudit_EveryAcknowledgedChangeHasItsRecordAfterKill9(t *testing.T) {
	t.Parallel()
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	dir := filepath.Join(t.TempDir(), "data")
	var acked []string
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), changeDir+"="+dir, fmt.Sprintf("%s=%d", killRound, round))
		cmd.Stderr = os.Stderr
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(pipe)
		kill := sync.OnceFunc(func() {
			time.AfterFunc(time.Duration(100+rand.IntN(500))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		})
		for {
			line, err := in.ReadString('\n')
			if err != nil { // the last line may be cut off: then it was not heard of
				break
			}
			what, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			switch what {
			case "ready":
				kill()
			case "ack":
				acked = append(acked, rest)
			default:
				t.Fatalf("round %d: %s", round, line)
			}
		}
		_ = cmd.Wait()
	}
	n := open(t, dir)
	recorded, begun := map[string]bool{}, 0
	for _, r := range n.audit(t, api.AuditQuery{}) {
		if r.Outcome == audit.Done {
			recorded[r.What+" "+r.On] = true
		}
		if r.Outcome == audit.Begun {
			begun++
		}
	}
	lost := 0
	for _, one := range acked {
		if !recorded[one] {
			lost++
			t.Errorf("%s was acknowledged, and has no record", one)
		}
	}
	if len(acked) < rounds {
		t.Errorf("only %d changes were acknowledged", len(acked))
	}
	t.Logf("%d kills, %d acknowledged changes, %d begun, %d lost", rounds, len(acked), begun, lost)
	n.sound(t)
}
