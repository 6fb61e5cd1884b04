package api

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
)

// However many call at once, their bodies together stay within the bound; all of them have their turn.
func TestIntake_BoundsWhatIsInMemory(t *testing.T) {
	t.Parallel()
	k := NewIntake(MostAsyncPayload)
	var now, most atomic.Int64
	var wait sync.WaitGroup
	for i := range 300 {
		wait.Go(func() {
			r := httptest.NewRequest("POST", "/", strings.NewReader(""))
			r.ContentLength = 1 << 20
			if i%50 == 0 {
				r.ContentLength = -1 // counts as the most
			}
			leave, err := k.enter(httptest.NewRecorder(), r, 20<<20)
			if err != nil {
				t.Error(err)
				return
			}
			size := r.ContentLength
			if size < 0 {
				size = 20 << 20
			}
			for n := now.Add(size); ; {
				old := most.Load()
				if old >= n || most.CompareAndSwap(old, n) {
					break
				}
			}
			now.Add(-size)
			leave()
		})
	}
	wait.Wait()
	if most.Load() > intakeBytes || k.mu.used != 0 || len(k.mu.queue) != 0 {
		t.Errorf("%d bytes at once; %d are left, %d wait", most.Load(), k.mu.used, len(k.mu.queue))
	}
}

func TestIntake_WhoLeavesTheQueueIsPassedOver(t *testing.T) {
	t.Parallel()
	k := NewIntake(MaxAsyncPayload)
	ctx := t.Context()
	if err := k.take(ctx, 2*intakeBytes); err != nil { // larger than all, and alone
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := k.take(gone, 1); errs.CodeOf(err) != errs.Throttled || errs.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
	in := make(chan error)
	go func() { in <- k.take(ctx, 5) }()
	k.give(2 * intakeBytes)
	if err := <-in; err != nil || k.mu.used != 5 {
		t.Errorf("%v, %d", err, k.mu.used)
	}
}
