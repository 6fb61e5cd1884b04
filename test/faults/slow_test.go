package faults

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/testkit/fault"
)

// neighbours are handlers beside the one that works: one hangs until its deadline, one always throws.
const neighbours = `
import time

def hang(event, context):
    tell("hangs/" + event["detail"]["n"])
    time.sleep(3600)

def broken(event, context):
    tell("throws/" + event["detail"]["n"])
    raise Exception("always")
`

// three is an App whose three Functions take the same events.
func three(sink string) *app.App {
	a := &app.App{Name: "faults", Stage: "dev", Region: "us-east-1"}
	for _, f := range []struct{ key, handler string }{{"work", "handler.hello"}, {"hang", "handler.hang"}, {"broken", "handler.broken"}} {
		a.Functions = append(a.Functions, app.Function{Key: f.key, Name: "faults-dev-" + f.key, ID: f.key, Runtime: "python3.11", Handler: f.handler, MemoryMB: 128, TimeoutSec: 120,
			Env: map[string]app.Value{"SINK": app.Lit(sink)}})
		a.Triggers = append(a.Triggers, app.Trigger{ID: "Rule", Function: f.key, Kind: "eventBridge", Enabled: true,
			Settings: map[string]any{"EventPattern": map[string]any{"source": []any{"/faults"}}}})
	}
	return a
}

// Of three functions that take the same events one hangs and one throws. The third gets each event while no more than a few are on their way, as it does
// without them; what it has to wait for is not their end: when it has had all, hardly one of those that hang has ended.
func TestSlow_TargetsHoldUpOnlyThemselves(t *testing.T) {
	t.Parallel()
	events, window := 400, 8
	if testing.Short() {
		events = 100
	}
	k := newSink(t)
	n := start(t, map[string]string{"data": filepath.Join(t.TempDir(), "data"), "egress": k.addr}, &fault.Plan{})
	deploy(t, n, three(k.addr), handler+neighbours)
	handled := func() (worked, hung, threw int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for number := range k.mu.ran {
			switch {
			case strings.HasPrefix(number, "hangs/"):
				hung++
			case strings.HasPrefix(number, "throws/"):
				threw++
			default:
				worked++
			}
		}
		return worked, hung, threw
	}
	for i := range events {
		if i == events/2 { // now they hold what they can get
			until(t, "many hang", func() (bool, error) { _, hung, _ := handled(); return hung >= 12, nil })
		}
		e := &event.Event{ID: fmt.Sprint(i), Source: "/faults", Type: "numbered", DataContentType: "application/json", Data: fmt.Appendf(nil, `{"n":"%d"}`, i)}
		if _, err := n.Publish(t.Context(), "", e); err != nil {
			t.Fatal(err)
		}
		until(t, "the one that works follows", func() (bool, error) {
			worked, hung, threw := handled()
			if worked > i-window {
				return true, nil
			}
			return false, fmt.Errorf("%d published, %d worked, %d hang, %d threw", i+1, worked, hung, threw)
		})
	}
	until(t, "all of the one that works", func() (bool, error) { worked, _, _ := handled(); return worked == events, nil })
	list, err := n.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]api.SubscriptionInfo{}
	for _, sub := range list {
		by[sub.Function] = sub
	}
	_, hung, threw := handled()
	t.Logf("of %d events all were worked on, %d hang, %d threw; ended: %d, %d, %d", events, hung, threw,
		by["faults-dev-work"].Done, by["faults-dev-hang"].Done+by["faults-dev-hang"].Dead, by["faults-dev-broken"].Done+by["faults-dev-broken"].Dead)
	if hung == 0 || threw == 0 {
		t.Errorf("%d hang and %d threw: the neighbours did not run", hung, threw)
	}
	if done := by["faults-dev-hang"].Done; done > 0 || by["faults-dev-broken"].Done > 0 {
		t.Errorf("%d of those that hang have succeeded, %d of those that throw", done, by["faults-dev-broken"].Done)
	}
	n.kill() // else it would wait for those that hang
}
