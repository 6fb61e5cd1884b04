package bus

import (
	"context"
	"errors"
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
