package server_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/server"
	"github.com/ebb-run/ebb/internal/store"
)

const sawChanges = `exports.hello = async (e) => { for (const r of e.Records) console.log('saw ' + r.eventName + ' ' + r.dynamodb.Keys.id.S + ' ' + r.eventSourceARN + ' ' +
	(r.dynamodb.NewImage ? r.dynamodb.NewImage.n.N : '-')) };`

// withTable is an App with a table whose changes its Function sees.
func withTable(properties map[string]any) *app.App {
	a, _ := shop("shop", "dev", "")
	declared := map[string]any{
		"AttributeDefinitions": []any{map[string]any{"AttributeName": "id", "AttributeType": "S"}}, "KeySchema": []any{map[string]any{"AttributeName": "id", "KeyType": "HASH"}},
		"StreamSpecification": map[string]any{"StreamViewType": "NEW_AND_OLD_IMAGES"},
	}
	for k, v := range properties {
		declared[k] = v
	}
	a.Resources = []app.Resource{{ID: "Orders", Kind: app.Table, Type: "AWS::DynamoDB::Table", Name: app.Lit("orders"), Properties: declared}}
	a.Triggers = []app.Trigger{{Function: "hello", Kind: "stream", Enabled: true, Source: app.Attr("Orders", "StreamArn"), Settings: map[string]any{"StartingPosition": "TRIM_HORIZON"}}}
	return a
}

func (n *node) deployTable(t *testing.T, properties map[string]any) {
	t.Helper()
	_, tree := shop("shop", "dev", sawChanges)
	if _, err := n.deploy(t, withTable(properties), tree); err != nil {
		t.Fatalf("deploy: %v\n%s", err, n.log)
	}
}

func (n *node) put(t *testing.T, id string, number int) {
	t.Helper()
	it := store.Item{"id": store.Text(id), "n": store.Num(fmt.Sprint(number))}
	err := server.Tables(n.Server).Write(t.Context(), "default", []store.Change{{Table: "orders", Key: it, Apply: func(store.Item) (store.Item, error) { return it, nil }}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTables_AreMadeOnDeployAndTheirChangesRunFunctions(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	n.deployTable(t, nil)
	n.put(t, "a", 1)
	n.put(t, "a", 2)
	eventually(t, n, "the function sees two changes", func() bool {
		logs := n.logs(t)
		return strings.Contains(logs, "saw INSERT a arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/") && strings.Contains(logs, "saw MODIFY a")
	})
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}

	// What changed while nobody was there to see it is seen after a restart, and what was seen is not seen again.
	n = open(t, dir)
	n.put(t, "b", 3)
	eventually(t, n, "the function sees what came after the restart", func() bool { return strings.Contains(n.logs(t), "saw INSERT b") })
	if logs := n.logs(t); strings.Count(logs, "saw INSERT a ") != 1 {
		t.Errorf("what was seen before the stop is seen again:\n%s", logs)
	}

	// A redeploy keeps the items and makes what is new.
	n.deployTable(t, map[string]any{
		"AttributeDefinitions":   []any{map[string]any{"AttributeName": "id", "AttributeType": "S"}, map[string]any{"AttributeName": "n", "AttributeType": "N"}},
		"GlobalSecondaryIndexes": []any{map[string]any{"IndexName": "by-n", "KeySchema": []any{map[string]any{"AttributeName": "n", "KeyType": "HASH"}}, "Projection": map[string]any{"ProjectionType": "ALL"}}},
	})
	found := 0
	query := store.Query{Table: "orders", Index: "by-n", Hash: store.Num("3")}
	if err := server.Tables(n.Server).Query(t.Context(), "default", query, func(store.Item) bool { found++; return true }); err != nil || found != 1 {
		t.Errorf("the new index shows %d items; %v", found, err)
	}
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Tables(n.Server).Table(t.Context(), "default", "orders"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("after the stack is removed: %v", err)
	}
}
