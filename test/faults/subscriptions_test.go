package faults

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/testkit/fault"
)

// own is a Subscription of what has a type, that tells the sink each event's data behind a word.
func own(name, typ, word string, k *sink) api.SubscriptionSpec {
	filters, err := json.Marshal(map[string]any{"exact": map[string]string{"type": typ}})
	if err != nil {
		panic(err) // strings
	}
	return api.SubscriptionSpec{
		Name: name, Bus: "own", Filters: filters, Endpoint: "http://" + k.addr, Retry: &api.SubscriptionRetry{Attempts: 1000, MinBackoff: "10ms", MaxBackoff: "1s"},
		InputTransformer: &api.InputTransformer{Paths: map[string]string{"n": "$.detail"}, Template: word + "/<n>"},
	}
}

func (n *node) put(t *testing.T, s api.SubscriptionSpec) error {
	t.Helper()
	doc, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.PutSubscription(t.Context(), s.Name, doc, false)
	return err
}

func (n *node) emit(t *testing.T, typ, number string) error {
	t.Helper()
	data, err := json.Marshal(number)
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Publish(t.Context(), "own", &event.Event{ID: number, Source: "/faults", Type: typ, Data: data})
	return err
}

func reached(k *sink, n string) func() (bool, error) {
	return func() (bool, error) {
		ran, _ := k.seen(n)
		return len(ran) > 0, nil
	}
}

// What somebody puts on one server of a cluster holds on all of them, and stays when that server is killed.
func TestCluster_SubscriptionsAreEveryServers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts six servers")
	}
	_, urls := cluster(t)
	k := newSink(t)
	nodes := over(t, k, urls)
	until(t, "put on the first", func() (bool, error) { err := nodes[0].put(t, own("a", "t", "a", k)); return err == nil, err })
	until(t, "published on the second", func() (bool, error) { err := nodes[1].emit(t, "t", "1"); return err == nil, err })
	until(t, "it is delivered", reached(k, "a/1"))
	until(t, "changed on the second", func() (bool, error) { err := nodes[1].put(t, own("a", "t", "b", k)); return err == nil, err })
	until(t, "published on the first", func() (bool, error) { err := nodes[0].emit(t, "t", "2"); return err == nil, err })
	until(t, "it is delivered as changed", reached(k, "b/2"))
	nodes[0].kill() // who owns what it could take
	until(t, "published on the third", func() (bool, error) { err := nodes[2].emit(t, "t", "3"); return err == nil, err })
	until(t, "it is delivered by another", reached(k, "b/3"))
	until(t, "another is put", func() (bool, error) { err := nodes[1].put(t, own("c", "t", "c", k)); return err == nil, err })
	until(t, "deleted on the third", func() (bool, error) {
		err := nodes[2].DeleteSubscription(t.Context(), "a")
		if errs.CodeOf(err) == errs.NotFound { // an answer was lost
			err = nil
		}
		return err == nil, err
	})
	for _, n := range nodes[1:] {
		if _, err := n.Subscription(t.Context(), "a", 0); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("after its deletion: %v", err)
		}
	}
	until(t, "published on the second", func() (bool, error) { err := nodes[1].emit(t, "t", "4"); return err == nil, err })
	until(t, "the other takes it", reached(k, "c/4"))
	for _, n := range []string{"a/2", "a/3", "b/4", "c/3"} {
		if ran, _ := k.seen(n); len(ran) > 0 {
			t.Errorf("%s was delivered", n)
		}
	}
}

// A Subscription stands once its put was acknowledged, and takes every event that was acknowledged after that, however often the server is killed.
func TestKill_SubscriptionsStandAndLoseNothing(t *testing.T) {
	k := newSink(t)
	flags := map[string]string{"data": filepath.Join(t.TempDir(), "data"), "egress": k.addr}
	want := map[string]bool{} // what has to arrive
	stand := map[string]bool{}
	const rounds, each = 5, 40
	for r := range rounds {
		n := start(t, flags, &fault.Plan{})
		name := fmt.Sprint("s", r)
		until(t, "put", func() (bool, error) { err := n.put(t, own(name, fmt.Sprint("t", r), name, k)); return err == nil, err })
		stand[name] = true
		var mu sync.Mutex
		var wg sync.WaitGroup
		half := make(chan struct{})
		for g := range 4 {
			wg.Go(func() {
				for i := range each {
					to := i % (r + 1)
					number := fmt.Sprintf("%d-%d-%d", r, g, i)
					for n.emit(t, fmt.Sprint("t", to), number) != nil { // the same again is a duplicate
						select {
						case <-n.done:
							return
						case <-time.After(time.Millisecond):
						}
					}
					mu.Lock()
					want[fmt.Sprintf("s%d/%s", to, number)] = true
					mu.Unlock()
					if g == 0 && i == each/2 {
						close(half)
					}
				}
			})
		}
		select {
		case <-half:
		case <-n.done:
			t.Fatalf("the server has ended\n%s", n.said)
		}
		n.kill()
		wg.Wait()
	}
	n := start(t, flags, &fault.Plan{})
	lost := 0
	for number := range want {
		until(t, number, reached(k, number))
	}
	until(t, "nothing waits", func() (bool, error) {
		list, err := n.Subscriptions(t.Context())
		for _, s := range list {
			delete(stand, s.Own)
			if s.Pending > 0 {
				return false, err
			}
			lost += s.Dead
		}
		return true, err
	})
	if len(stand) > 0 || lost > 0 {
		t.Errorf("gone: %v; dead letters: %d", stand, lost)
	}
	t.Logf("%d acknowledged in %d rounds, all delivered", len(want), rounds)
}
