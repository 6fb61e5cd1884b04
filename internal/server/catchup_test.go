package server_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/server"
)

// rule gives the Subscription of a Trigger, where it stands.
func rule(t *testing.T, n *node, name string) *api.SubscriptionInfo {
	t.Helper()
	list, err := n.client.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

func TestRun_CatchesUpWithTriggersThatWereNotRegistered(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	a, tree := shop("shop", "dev", says("one"))
	a.Triggers = []app.Trigger{{ID: "Rule", Function: a.Functions[0].Key, Kind: "eventBridge", Enabled: true, Settings: map[string]any{"EventPattern": map[string]any{"source": []any{"a"}}}}}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	name := "trigger/default/shop/dev/Rule/" + a.Functions[0].Key
	if rule(t, n, name) == nil {
		t.Fatal("a deploy does not register its trigger")
	}
	lose := func() {
		t.Helper()
		if err := server.LoseSubscription(t.Context(), n.Server, name); err != nil {
			t.Fatal(err)
		}
		for limit := time.Now().Add(time.Minute); rule(t, n, name) != nil; {
			if time.Now().After(limit) {
				t.Fatal("the subscription stays")
			}
		}
	}
	lose() // as a kill right after the pointer has moved leaves it
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	for limit := time.Now().Add(time.Minute); rule(t, n, name) == nil; {
		if time.Now().After(limit) {
			t.Fatalf("after a restart the trigger is not registered\n%s", n.log)
		}
	}
}
