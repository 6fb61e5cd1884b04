package faults

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/testkit/fault"
	"github.com/ebb-run/ebb/internal/testkit/pgserver"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// changes tells the sink the key of each change of a table.
const changes = `
import http.client, os

def hello(event, context):
    for r in event["Records"]:
        conn = http.client.HTTPConnection(os.environ["SINK"], timeout=60)
        conn.request("POST", "/", r["eventName"] + "/" + r["dynamodb"]["Keys"]["id"]["S"])
        assert conn.getresponse().status == 200
`

// tabled is an App with a table of orders whose changes its Function sees.
func tabled(sink string) *app.App {
	a := deployment(sink)
	a.Resources = []app.Resource{{ID: "Orders", Kind: app.Table, Type: "AWS::DynamoDB::Table", Name: app.Lit("orders"), Properties: map[string]any{
		"AttributeDefinitions": []any{map[string]any{"AttributeName": "id", "AttributeType": "S"}}, "KeySchema": []any{map[string]any{"AttributeName": "id", "KeyType": "HASH"}},
		"BillingMode": "PAY_PER_REQUEST", "StreamSpecification": map[string]any{"StreamViewType": "NEW_IMAGE"},
	}}}
	a.Triggers = []app.Trigger{{ID: "Orders", Function: "work", Kind: "stream", Enabled: true, Source: app.Attr("Orders", "StreamArn"), Settings: map[string]any{"StartingPosition": "TRIM_HORIZON"}}}
	return a
}

// wired is a server whose AWS endpoint is known.
type wired struct {
	*node
	aws string
	key *api.NewKey
}

func (w *wired) dynamodb(t *testing.T, operation, body string) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.aws+"/", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	sign.Sign(r, []byte(body), sign.Credentials{AccessKey: w.key.AccessKeyID, Secret: w.key.SecretAccessKey}, "us-east-1", "dynamodb", time.Now())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", resp.StatusCode, answer)
	}
	return string(answer), err
}

// Three servers of a cluster keep their tables in one PostgreSQL. What is written through one is read through the others at once, counters count on
// all of them together, and each change runs the Function once. Two of them are killed: the last goes on with all of it.
func TestCluster_TablesAreEveryServers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts seven servers")
	}
	pg := pgserver.Start(t)
	_, urls := cluster(t)
	k := newSink(t)
	root := t.TempDir()
	dsn := pg.URL(pg.Database(t))
	begin := func(i int) *wired {
		l, err := net.Listen("tcp", "127.0.0.1:0") // found free, and given back
		if err != nil {
			t.Fatal(err)
		}
		w := &wired{aws: l.Addr().String()}
		_ = l.Close()
		flags := map[string]string{"data": filepath.Join(root, fmt.Sprint(i)), "egress": k.addr, "nats": strings.Join(urls, ","), "tables": dsn, "aws-listen": w.aws}
		until(t, "a server", func() (ok bool, err error) {
			w.node, err = tryStart(t, flags, &fault.Plan{})
			return err == nil, err
		})
		if w.key, err = w.CreateKey(t.Context(), api.KeyRequest{Name: fmt.Sprint("test", i), Role: "admin"}); err != nil {
			t.Fatal(err)
		}
		return w
	}
	first := begin(0)
	deploy(t, first.node, tabled(k.addr), changes)
	first.kill()
	var nodes []*wired
	for i := range 3 {
		if i > 0 { // their keys and code are the same
			for _, part := range []string{"FORMAT", "seal.key", "artifacts"} {
				if out, err := exec.Command("sh", "-c", `mkdir -p "$2" && cp -a "$1" "$2"`, "sh", filepath.Join(root, "0", part), filepath.Join(root, fmt.Sprint(i))).CombinedOutput(); err != nil {
					t.Fatalf("copy: %v\n%s", err, out)
				}
			}
		}
		nodes = append(nodes, begin(i))
	}
	const each = 20
	n := 0
	write := func(nodes []*wired) {
		for range each {
			id, by := fmt.Sprint(n), nodes[n%len(nodes)]
			if _, err := by.dynamodb(t, "PutItem", `{"TableName":"orders","Item":{"id":{"S":"`+id+`"}}}`); err != nil {
				t.Fatal(err)
			}
			got, err := nodes[(n+1)%len(nodes)].dynamodb(t, "GetItem", `{"TableName":"orders","Key":{"id":{"S":"`+id+`"}}}`)
			if err != nil || !strings.Contains(got, `"`+id+`"`) {
				t.Errorf("read through another: %s %v", got, err)
			}
			if _, err := by.dynamodb(t, "UpdateItem", `{"TableName":"orders","Key":{"id":{"S":"count"}},"UpdateExpression":"ADD c :one","ExpressionAttributeValues":{":one":{"N":"1"}}}`); err != nil {
				t.Fatal(err)
			}
			n++
		}
		for i := n - each; i < n; i++ {
			until(t, fmt.Sprint("the change ", i, " reaches the function"), reached(k, fmt.Sprint("INSERT/", i)))
		}
	}
	write(nodes)
	for i := range n {
		if ran, _ := k.seen(fmt.Sprint("INSERT/", i)); len(ran) != 1 {
			t.Errorf("the change %d ran the function %d times", i, len(ran))
		}
	}
	nodes[0].kill()
	write(nodes[1:])
	nodes[1].kill()
	write(nodes[2:])
	if got, err := nodes[2].dynamodb(t, "GetItem", `{"TableName":"orders","Key":{"id":{"S":"count"}}}`); err != nil || !strings.Contains(got, fmt.Sprintf(`"N":"%d"`, n)) {
		t.Errorf("counted %s, want %d; %v", got, n, err)
	}
	twice := 0
	for i := range n {
		if ran, _ := k.seen(fmt.Sprint("INSERT/", i)); len(ran) > 1 {
			twice++
		}
	}
	t.Logf("%d changes, all seen; %d more than once, after two kills", n, twice)
}
