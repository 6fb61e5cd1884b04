package bus

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// slowStream gives one block, when it may.
type slowStream struct {
	jetstream.Stream
	asked atomic.Int64
	begun chan struct{} // takes each call
	may   chan struct{} // closed when calls may return
}

func (s *slowStream) GetMsg(ctx context.Context, seq uint64, _ ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	s.asked.Add(1)
	s.begun <- struct{}{}
	if seq != 1 {
		return nil, jetstream.ErrMsgNotFound
	}
	select {
	case <-s.may:
		return &jetstream.RawStreamMsg{Data: appendBlock(nil, []item{{kind: kindSend, body: []byte("x")}})}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestBlocks_AreReadOnceForAllThatWait(t *testing.T) {
	t.Parallel()
	s := &slowStream{begun: make(chan struct{}, 100), may: make(chan struct{})}
	b := newBlocks(s)
	first, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var leader error
	wait.Go(func() { _, leader = b.items(first, 1) })
	<-s.begun
	for range 20 {
		wait.Go(func() {
			if items, err := b.items(t.Context(), 1); err != nil || len(items) != 1 || string(items[0].body) != "x" {
				t.Errorf("%v, %v", items, err)
			}
		})
	}
	// Who reads for the others leaves; one of them goes on.
	cancel()
	<-s.begun
	close(s.may)
	wait.Wait()
	if !errors.Is(leader, context.Canceled) {
		t.Errorf("the one that left got %v", leader)
	}
	if n := s.asked.Load(); n != 2 {
		t.Errorf("read %d times, want 2", n)
	}
	if _, err := b.items(t.Context(), 1); err != nil || s.asked.Load() != 2 {
		t.Errorf("it is not kept: %v", err)
	}
	if _, err := b.items(t.Context(), 7); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("what is gone gives %v", err)
	}
}

// Data that are not what was written, or not all of it, are not given.
func TestLoad_RefusesWhatIsNotWhatWasWritten(t *testing.T) {
	t.Parallel()
	data := []byte("what was written")
	b := newBlocks(&slowStream{begun: make(chan struct{}, 100)})
	b.keep(5, []item{{kind: kindChunk, body: data[:6]}, {kind: kindSend, body: data[6:]}, {kind: kindChunk, body: data[6:]}}, 100)
	good := dataRef{size: len(data), sum: sha256.Sum256(data), chunks: []spot{{5, 0}, {5, 2}}}
	if got, err := b.load(t.Context(), &good); err != nil || string(got) != string(data) {
		t.Fatalf("got %q, %v", got, err)
	}
	for name, bad := range map[string]func(r *dataRef){
		"another sum":    func(r *dataRef) { r.sum[0]++ },
		"too short":      func(r *dataRef) { r.chunks = r.chunks[:1] },
		"too long":       func(r *dataRef) { r.chunks = append(r.chunks, r.chunks...) },
		"another order":  func(r *dataRef) { r.chunks = []spot{{5, 2}, {5, 0}} },
		"no chunk":       func(r *dataRef) { r.chunks = []spot{{5, 0}, {5, 1}} },
		"no such item":   func(r *dataRef) { r.chunks = []spot{{5, 0}, {5, 9}} },
		"a purged block": func(r *dataRef) { r.chunks = []spot{{5, 0}, {4, 0}} },
	} {
		r := good
		r.chunks = slices.Clone(good.chunks)
		bad(&r)
		if got, err := b.load(t.Context(), &r); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}
