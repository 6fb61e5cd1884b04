package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ebb-run/ebb/internal/store"
)

// Of the callers of one name one leads at a time; another name is another lead.
func leads(t *testing.T, s store.Tables) {
	var group sync.WaitGroup
	var leading, led atomic.Int32
	for range 4 {
		group.Go(func() {
			err := s.Lead(t.Context(), "one", func(ctx context.Context) error {
				if leading.Add(1) != 1 {
					t.Error("two lead at once")
				}
				// Another name does not wait for this one.
				err := s.Lead(ctx, "other", func(context.Context) error { return errNo })
				leading.Add(-1)
				led.Add(1)
				return err
			})
			if !errors.Is(err, errNo) {
				t.Errorf("err = %v", err)
			}
		})
	}
	group.Wait()
	if led.Load() != 4 {
		t.Errorf("%d of 4 led", led.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Lead(ctx, "one", func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: %v", err)
	}
}
