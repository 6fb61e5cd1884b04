package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/testkit/fault"
)

// fill leaves no byte free.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10, 1} {
		for block := make([]byte, size); ; {
			if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A disk that is full to the last byte refuses what is new with a code and a mend, while functions are called as before; when there is room it goes on
// by itself, and all that was acknowledged has ended.
func TestDisk_FullRefusesAndLosesNothing(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("ebb-test", disk, "tmpfs", 0, "size=128m"); err != nil {
		t.Skipf("cannot mount a small disk (needs root): %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	k := newSink(t)
	n := start(t, map[string]string{"data": filepath.Join(disk, "data"), "egress": k.addr}, &fault.Plan{})
	deploy(t, n, deployment(k.addr), handler)
	s := newSender(1 << 30)
	s.mu.pace = 10 * time.Millisecond
	s.mu.wrong = map[string]error{}
	s.begin(0, n)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	ways := []string{viaAsync, viaRule, viaQueue}
	for _, way := range ways {
		wg.Go(func() { s.run(ctx, way) })
	}
	until(t, "some are acknowledged", func() (bool, error) {
		return len(s.numbers(viaAsync)) > 20 && len(s.numbers(viaRule)) > 20 && len(s.numbers(viaQueue)) > 20, nil
	})
	for round := range 2 {
		ballast := filepath.Join(disk, "ballast")
		s.mu.Lock()
		s.mu.error = nil
		s.mu.Unlock()
		fill(t, ballast)
		until(t, "a refusal", func() (bool, error) { return s.refusal() != nil, nil })
		if got, err := n.Invoke(t.Context(), function, fmt.Appendf(nil, `{"n":"direct/%d"}`, round), ""); err != nil || !strings.Contains(string(got.Payload), "direct") {
			t.Errorf("a call while the disk is full: %+v, %v", got, err)
		}
		have := map[string]int{}
		for _, way := range ways {
			have[way] = len(s.numbers(way))
		}
		t.Logf("round %d: acknowledged %v, then %v", round, have, s.refusal())
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		from := time.Now()
		for _, way := range ways {
			until(t, way+" goes on", func() (bool, error) { return len(s.numbers(way)) > have[way]+20, nil })
			t.Logf("%s goes on after %v", way, time.Since(from))
		}
	}
	stop()
	wg.Wait()
	s.mu.Lock()
	for _, err := range s.mu.wrong {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("refused with %v", err)
		}
	}
	s.mu.Unlock()
	t.Logf("%+v", *count(t, n, s, k, []*fault.Plan{{Point: "full"}})["full"])
}
