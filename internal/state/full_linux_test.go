package state_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/state"
)

// A small file system of its own is filled up to the last byte while Deployments are written.
func TestStore_AFullDiskIsSaidAndLosesNothing(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("cannot mount a file system here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	dir := filepath.Join(disk, "nats")
	open := func() (*nats.Conn, *state.Store) {
		c, err := nats.Open(t.Context(), nats.Options{Dir: dir, MaxStore: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		s, err := state.Open(t.Context(), c.JetStream(), state.Options{Key: testKey, History: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return c, s
	}
	c, s := open()
	fill(t, filepath.Join(disk, "ballast"), 64<<10)
	var acked []string
	var failed error
	for i := range 10_000 {
		d := deployment(stack, fmt.Sprint(i))
		start := time.Now()
		if failed = s.Put(context.Background(), d); failed != nil {
			t.Logf("after %d deployments, %v: %v", i, time.Since(start), failed)
			if time.Since(start) > 5*time.Second {
				t.Error("the call hung")
			}
			break
		}
		acked = append(acked, d.ID)
	}
	for range 3 {
		if errs.CodeOf(failed) != errs.Unavailable || !strings.Contains(errs.HintOf(failed), "disk") {
			t.Fatalf("got %v (hint %q)", failed, errs.HintOf(failed))
		}
		failed = s.Put(context.Background(), deployment(stack, "more"))
	}
	if err := c.Healthy(); !strings.Contains(fmt.Sprint(err), "no space left") || !strings.Contains(err.Error(), dir) || errs.HintOf(err) == "" {
		t.Errorf("health: %v", err)
	}
	_ = c.Close()
	if err := c.Healthy(); err == nil {
		t.Error("a closed store is healthy")
	}
	if c, err := nats.Open(t.Context(), nats.Options{Dir: dir, MaxStore: 1 << 30}); errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("opened on a full disk: %v", err)
		_ = c.Close()
	}
	if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
		t.Fatal(err)
	}
	c, s = open()
	defer c.Close()
	for _, id := range acked {
		if _, err := s.Deployment(t.Context(), stack, id); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
	if len(acked) == 0 {
		t.Error("nothing was written")
	}
	put(t, s, stack, "goes on")
}

// What is open goes on by itself when there is room again, and knows what it was told.
func TestStore_GoesOnWhenTheDiskHasRoomAgain(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("cannot mount a file system here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	c, err := nats.Open(t.Context(), nats.Options{Dir: filepath.Join(disk, "nats"), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := state.Open(t.Context(), c.JetStream(), state.Options{Key: testKey, History: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var acked []string
	for round := range 3 {
		ballast := filepath.Join(disk, "ballast")
		fill(t, ballast, 0)
		for i := 0; ; i++ {
			d := deployment(stack, fmt.Sprint(round, " ", i))
			if err := s.Put(t.Context(), d); err != nil {
				break
			}
			acked = append(acked, d.ID)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		limit := time.Now().Add(time.Minute)
		for d := deployment(stack, fmt.Sprint("again ", round)); ; {
			err := s.Put(t.Context(), d)
			if err == nil {
				acked = append(acked, d.ID)
				break
			}
			if errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" {
				t.Errorf("got %v", err)
			}
			if time.Now().After(limit) {
				t.Fatalf("round %d: it does not go on: %v", round, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	// It takes writes a moment before it has looked at all that it has.
	for limit := time.Now().Add(time.Minute); c.Healthy() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal(c.Healthy())
		}
	}
	for _, id := range acked {
		if _, err := s.Deployment(t.Context(), stack, id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// fill takes all room but the given number of bytes.
func fill(t *testing.T, path string, but int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var n int64
	for block := make([]byte, 4096); ; n += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	if err := f.Truncate(max(0, n-but)); err != nil {
		t.Fatal(err)
	}
}
