package process

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// pretended is a stem without a Sandbox.
type pretended struct {
	over  chan struct{} // closed by die
	quit  chan struct{} // closed by claim or end
	once  atomic.Bool
	ended *atomic.Int32
}

func (c *pretended) watch() {
	select {
	case <-c.over:
	case <-c.quit:
	}
}

func (c *pretended) stop() {
	if c.once.CompareAndSwap(false, true) {
		close(c.quit)
	}
}

func (c *pretended) claim() bool {
	c.stop()
	select {
	case <-c.over:
		return false
	default:
		return true
	}
}
func (c *pretended) end()         { c.stop(); c.ended.Add(1) }
func (c *pretended) bytes() int64 { return 10 }

type nursery struct {
	*stems
	made    []*pretended
	ended   atomic.Int32
	dropped atomic.Int32
	spared  atomic.Int32
	broken  atomic.Bool
	tried   atomic.Int32
}

func newNursery(budget int64) *nursery {
	n := &nursery{}
	n.stems = &stems{budget: budget, drop: func(*fence) { n.dropped.Add(1) }}
	n.stems.mu.pools = map[string]*stemPool{}
	n.sow = func(k *seed, f *fence) (cell, error) {
		time.Sleep(time.Second / 2)
		if f != nil {
			n.spared.Add(1)
		}
		n.tried.Add(1)
		if n.broken.Load() {
			return nil, errors.New("broken")
		}
		c := &pretended{over: make(chan struct{}), quit: make(chan struct{}), ended: &n.ended}
		n.made = append(n.made, c)
		return c, nil
	}
	return n
}

func kind(name string) *seed {
	k := &seed{template: sandbox.Template{Name: name, Command: []string{"/bin/" + name}}}
	k.name()
	return k
}

func (n *nursery) wants(t *testing.T, what string, ready int) {
	t.Helper()
	synctest.Wait()
	if got, bytes := n.held(); got != ready || bytes != int64(10*ready) {
		t.Errorf("%s: %d are ready with %d bytes, want %d", what, got, bytes, ready)
	}
}

func TestStems_AreAsManyAsWereWantedLately(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(1000)
		defer n.close()
		k := kind("a")
		n.wants(t, "before", 0)
		if n.take(k) != nil {
			t.Error("one was there at once")
		}
		time.Sleep(stemPause / 2)
		n.wants(t, "not at once", 0)
		time.Sleep(2 * time.Second)
		n.wants(t, "after the first", 1)
		for range 3 {
			n.take(k)
		}
		time.Sleep(5 * time.Second)
		n.wants(t, "after four in a minute", 4)
		for range 20 {
			n.take(k)
		}
		time.Sleep(5 * time.Second)
		n.wants(t, "after many", mostStems)
		time.Sleep(3 * stemWindow)
		n.wants(t, "after a quiet time", 1)
		if n.take(kind("b")) != nil {
			t.Error("another kind was given")
		}
		time.Sleep(stemKeep - 3*stemWindow - 20*time.Second)
		n.wants(t, "just before they expire", 2)
		time.Sleep(stemWindow + 30*time.Second)
		n.wants(t, "when the first has expired", 1)
		time.Sleep(4 * stemWindow)
		n.wants(t, "when all have", 0)
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.mu.pools) != 0 {
			t.Errorf("%d pools are left", len(n.mu.pools))
		}
	})
}

func TestStems_KeepToTheirBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(35)
		defer n.close()
		for range 4 {
			n.take(kind("a"))
		}
		time.Sleep(5 * time.Second)
		n.wants(t, "of one kind", 3)
		n.take(kind("b"))
		n.take(kind("b"))
		time.Sleep(5 * time.Second)
		n.wants(t, "of two", 3)
		if n.take(kind("b")) == nil {
			t.Error("what was asked for last had to make room for what was before")
		}
		off := newNursery(0)
		off.take(kind("a"))
		time.Sleep(5 * time.Second)
		off.wants(t, "none allowed", 0)
	})
}

func TestStems_ThatEndAreReplacedMoreAndMoreSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(1000)
		defer n.close()
		n.take(kind("a"))
		time.Sleep(2 * time.Second)
		n.wants(t, "first", 1)
		close(n.made[0].over)
		n.wants(t, "it has ended", 0)
		if n.take(kind("a")) != nil {
			t.Error("one that has ended was given")
		}
		time.Sleep(10 * time.Second)
		n.wants(t, "replaced", 1+1) // two were asked for
		n.broken.Store(true)
		n.take(kind("a"))
		n.take(kind("a"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if made := len(n.made); made != 3 {
			t.Errorf("%d were made", made)
		}
		if tried := n.tried.Load(); tried > 20 {
			t.Errorf("%d were tried in ten minutes", tried)
		}
	})
}

func TestStems_UseFencesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNursery(1000)
		k := kind("a")
		n.take(k)
		time.Sleep(2 * time.Second)
		if n.take(k) == nil {
			t.Fatal("none was ready")
		}
		n.recycle(k, &fence{})
		n.recycle(k, &fence{})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n.spared.Load() != 1 || n.dropped.Load() != 1 {
			t.Errorf("%d used again, %d dropped; want one each", n.spared.Load(), n.dropped.Load())
		}
		n.take(k)
		n.recycle(k, &fence{})
		n.close()
		made := len(n.made)
		if n.dropped.Load()+n.spared.Load() != 3 || int(n.ended.Load()) != made-2 {
			t.Errorf("%d used again, %d dropped, %d of %d ended", n.spared.Load(), n.dropped.Load(), n.ended.Load(), made)
		}
		if n.take(k) != nil {
			t.Error("one was given after close")
		}
		n.close()
	})
}
