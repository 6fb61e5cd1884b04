package server_test

import (
	"errors"
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

// So it does with topics and subscriptions of an app without triggers.
func TestRun_CatchesUpWithTopicsThatWereNotRegistered(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	a, tree := shop("shop", "dev", says("one"))
	a.Resources = []app.Resource{
		resource("T", "AWS::SNS::Topic", map[string]any{"TopicName": "t"}), resource("Q", "AWS::SQS::Queue", map[string]any{"QueueName": "q"}),
		resource("S", "AWS::SNS::Subscription", map[string]any{"Protocol": "sqs", "Endpoint": app.Attr("Q", "Arn"), "TopicArn": app.Attr("T", "Ref")}),
	}
	if d, err := n.deploy(t, a, tree); err != nil || len(d.Warnings) > 0 {
		t.Fatal(d, err)
	}
	name := "trigger/default/shop/dev/S/queue"
	if rule(t, n, name) == nil {
		t.Fatal("a deploy does not register its subscription")
	}
	if err := errors.Join(server.LoseSubscription(t.Context(), n.Server, name), server.LoseTopic(t.Context(), n.Server, "t")); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the subscription is lost", func() bool { return rule(t, n, name) == nil })
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	eventually(t, n, "the subscription is registered", func() bool { return rule(t, n, name) != nil })
	n.note(t, "t", api.TopicMessage{Message: "x"})
	eventually(t, n, "the queue has the message", func() bool { return len(inQueue(t, n, "q")) == 1 })
}
