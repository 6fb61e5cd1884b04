package wiretest

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/nats"
)

// Bus runs one over an embedded store until the test ends.
func Bus(t testing.TB, o bus.Options) *bus.Bus {
	t.Helper()
	dir := t.TempDir()
	conn, err := nats.Open(t.Context(), nats.Options{Dir: filepath.Join(dir, "nats")})
	if err != nil {
		t.Fatal(err)
	}
	o.Dir, o.Alone = filepath.Join(dir, "index"), true
	b, err := bus.Open(t.Context(), conn.JetStream(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := errors.Join(b.Close(), conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}
