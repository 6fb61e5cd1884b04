package nats_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/nats"
)

func TestCopy_HoldsWhatWasAcknowledgedUnderLoad(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir())
	kv, err := c.JetStream().CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b", History: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "LOG", Subjects: []string{"log"}, DenyDelete: true}); err != nil {
		t.Fatal(err)
	}
	const writers = 4
	var logged, ended atomic.Int64
	var put [writers]atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			pad := make([]byte, 20_000) // blocks get full
			for i := int64(1); ended.Load() == 0; i++ {
				if _, err := c.JetStream().Publish(t.Context(), "log", pad); err != nil {
					t.Error(err)
					return
				}
				logged.Add(1)
				if _, err := kv.Put(t.Context(), fmt.Sprint("k", w), fmt.Append(nil, i)); err != nil {
					t.Error(err)
					return
				}
				put[w].Store(i)
			}
		})
	}
	for round := range 5 {
		for seen := logged.Load(); logged.Load() < seen+200 && !t.Failed(); runtime.Gosched() {
		}
		wantLog := logged.Load()
		var want [writers]int64
		for w := range writers {
			want[w] = put[w].Load()
		}
		to := filepath.Join(t.TempDir(), "copy")
		release := c.Hold()
		err := c.Copy(t.Context(), to)
		release()
		release() // again does nothing
		if err != nil {
			t.Fatal(err)
		}
		if err := nats.Check(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		got := open(t, to)
		s, err := got.JetStream().Stream(t.Context(), "LOG")
		if err != nil {
			t.Fatal(err)
		}
		if n := int64(s.CachedInfo().State.Msgs); n < wantLog {
			t.Errorf("round %d: the copy has %d records, %d were acknowledged", round, n, wantLog)
		}
		copied, err := got.JetStream().KeyValue(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		for w := range writers {
			var n int64
			e, err := copied.Get(t.Context(), fmt.Sprint("k", w))
			if err == nil {
				_, err = fmt.Sscan(string(e.Value()), &n)
			}
			if err != nil || n < want[w] {
				t.Errorf("round %d: key %d is %d (%v), %d was acknowledged", round, w, n, err, want[w])
			}
		}
		_ = got.Close()
	}
	ended.Store(1)
	wg.Wait()
	if err := c.Healthy(); err != nil {
		t.Error(err)
	}
}
