package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
)

func (b *backend) PutSubscription(_ context.Context, name string, doc []byte, parts bool) (*api.SubscriptionInfo, error) {
	if name == "none" {
		return nil, errs.New(errs.NotFound, "there is no queue q")
	}
	info := &api.SubscriptionInfo{Name: "own/default/" + name, Own: name, State: api.SubscriptionActive, Target: string(doc)}
	if parts {
		info.State = api.SubscriptionResting
	}
	return info, b.fault
}

func (b *backend) Subscription(_ context.Context, name string, dead int) (*api.SubscriptionDetail, error) {
	d := &api.SubscriptionDetail{SubscriptionInfo: api.SubscriptionInfo{Name: name, Dead: dead}, Spec: &api.SubscriptionSpec{Queue: "q"}}
	return d, b.fault
}

func (b *backend) DeleteSubscription(_ context.Context, name string) error {
	if name == "none" {
		return errs.New(errs.NotFound, "there is no subscription none")
	}
	return b.fault
}

func (b *backend) RedriveDeliveries(_ context.Context, c api.DeliveryChoice) (int, error) {
	return len(c.IDs) + len(c.Subscription), b.fault
}

func TestSubscriptions_ArePutShownRedrivenAndDeleted(t *testing.T) {
	t.Parallel()
	n := open(t)
	ctx := t.Context()
	doc := "{ \"queue\":\n\"q\" }" // byte for byte, so that places in it are right
	if got, err := n.client.PutSubscription(ctx, "a.b", []byte(doc), false); err != nil || got.Own != "a.b" || got.Target != doc || got.State != api.SubscriptionActive {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := n.client.PutSubscription(ctx, "a", []byte(doc), true); err != nil || got.State != api.SubscriptionResting {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := n.client.PutSubscription(ctx, "none", []byte(doc), true); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("%v", err)
	}
	whole := "trigger/default/shop/dev/Rule/work" // slashes and all
	if got, err := n.client.Subscription(ctx, whole, 7); err != nil || got.Name != whole || got.Dead != 7 || got.Spec.Queue != "q" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := n.client.DeleteSubscription(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := n.client.DeleteSubscription(ctx, "none"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("%v", err)
	}
	if got, err := n.client.RedriveDeliveries(ctx, api.DeliveryChoice{Subscription: "abc", IDs: []string{"1"}}); err != nil || got != 4 {
		t.Errorf("%d, %v", got, err)
	}
	for path, body := range map[string]string{
		"PUT /v1/subscriptions/big":      strings.Repeat(" ", api.MaxSubscription+1),
		"GET /v1/subscriptions/x?dead=y": "",
		"POST /v1/redrives":              `{"id":"x"}`,
	} {
		method, path, _ := strings.Cut(path, " ")
		if got := n.call(t, method, path, body, nil); got.status != http.StatusBadRequest && got.status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s %s: %d", method, path, got.status)
		}
	}
}
