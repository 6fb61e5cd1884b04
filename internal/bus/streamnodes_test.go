package bus_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/invocation"
)

func TestStream_WorksFromANodeThatIsNotTheOwner(t *testing.T) {
	t.Parallel()
	owner, other := pair(t)
	for _, s := range []string{"s", "second", "third"} { // of two Partitions
		other.stream(t, bus.Stream{Name: s, Shards: 2})
		r := other.add(t, s, "k:1", "k:2")[0]
		if got := other.shardData(t, s, r.Shard, 1); !slices.Equal(got, []string{"k:1", "k:2"}) { // who put them sees them
			t.Errorf("got %q", got)
		}
		until(t, "another node to see them", func() (bool, error) {
			return slices.Equal(owner.shardData(t, s, r.Shard, 1), []string{"k:1", "k:2"}), nil
		})
		it := other.iterator(t, s, r.Shard, bus.Start{From: bus.Latest})
		owner.add(t, s, "k:3")
		until(t, "what another node put", func() (bool, error) {
			g, err := other.GetRecords(t.Context(), it, bus.Get{})
			it = g.Next
			return slices.Equal(data(g.Records), []string{"k:3"}), err
		})
		if err := other.DeleteStream(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

// One Node polls, whoever asks; when it goes, the other goes on from where it was, and what was done does not come again.
func TestStreamMapping_MovesWithTheOwner(t *testing.T) {
	t.Parallel()
	owner, other := pair(t)
	other.stream(t, bus.Stream{Name: "s", Shards: 3})
	var mu sync.Mutex
	got := map[string]int{}
	var order []string
	all := func(node string) *consumer {
		return &consumer{answer: func(b *invocation.Batch, _ int) invocation.Verdict {
			mu.Lock()
			defer mu.Unlock()
			for _, it := range b.Items {
				got[string(it.Event.Data)]++
				order = append(order, string(it.Event.Data))
			}
			return invocation.Verdict{}
		}}
	}
	one, two := all("owner"), all("other")
	stop := owner.pollStream(t, bus.StreamMapping{Batch: 3}, one)
	other.pollStream(t, bus.StreamMapping{Batch: 3}, two)
	put := func(from int) {
		for i := from; i < from+20; i++ {
			other.add(t, "s", fmt.Sprintf("k%d:%d", i%4, i))
		}
	}
	n := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(got)
	}
	put(0)
	until(t, "the first", func() (bool, error) { return n() == 20, nil })
	if len(one.bodies()) > 0 && len(two.bodies()) > 0 {
		t.Error("two nodes poll the stream")
	}
	stop() // what it did is kept
	owner.stop()
	until(t, "a new owner", func() (bool, error) { return true, other.Sync(t.Context()) })
	put(20)
	until(t, "the rest", func() (bool, error) { return n() == 40, nil })
	mu.Lock()
	defer mu.Unlock()
	last := map[byte]int{}
	for _, s := range order {
		var k, i int
		if _, err := fmt.Sscanf(s, "k%d:%d", &k, &i); err != nil || i <= last[byte(k)] && last[byte(k)] > 0 || got[s] != 1 {
			t.Errorf("%s came after %d, %d times", s, last[byte(k)], got[s])
		}
		last[byte(k)] = i
	}
}
