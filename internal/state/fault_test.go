package state_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/state"
)

func TestStore_AnswersWhenTheServerIsGone(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	d := put(t, s, stack, "a")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	// Calls are in flight while the server closes.
	for range 4 {
		wg.Go(func() {
			for {
				if err := s.Put(context.Background(), deployment(stack, "b")); err != nil {
					want(t, err, errs.Unavailable)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	_ = c.Close()
	close(stop)
	calls := map[string]func() error{
		"Put":        func() error { return s.Put(context.Background(), deployment(stack, "c")) },
		"Deployment": func() error { _, err := s.Deployment(context.Background(), stack, d.ID); return err },
		"Current":    func() error { _, err := s.Current(context.Background(), stack); return err },
		"SetCurrent": func() error { _, err := s.SetCurrent(context.Background(), stack, d.ID, 0); return err },
		"History":    func() error { _, err := s.History(context.Background(), stack); return err },
		"Stacks":     func() error { _, err := s.Stacks(context.Background()); return err },
		"Artifacts":  func() error { _, err := s.Artifacts(context.Background()); return err },
		"Remove":     func() error { return s.Remove(context.Background(), stack) },
		"Watch":      func() error { return s.Watch(context.Background(), func(state.StackKey, state.Pointer) {}) },
	}
	done := make(chan string, len(calls))
	for name, f := range calls {
		go func() {
			if err := f(); errs.CodeOf(err) != errs.Unavailable {
				t.Errorf("%s: %v", name, err)
			}
			done <- name
		}()
	}
	deadline := time.After(30 * time.Second)
	for range calls {
		select {
		case name := <-done:
			delete(calls, name)
		case <-deadline:
			t.Fatalf("hanging: %d calls", len(calls))
		}
	}
	wg.Wait()
}

func TestStore_EndsWithTheContext(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Stacks(ctx)
	if !errors.Is(err, context.Canceled) || errs.CodeOf(err) != errs.Canceled {
		t.Error(err)
	}
	err = s.Put(ctx, deployment(stack, "x"))
	want(t, err, errs.Canceled)
}

func TestStacks_ListsAThousandFast(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	kv, err := c.JetStream().KeyValue(t.Context(), "ebb_state")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < 1000; i += 8 {
				if _, err := kv.Put(t.Context(), fmt.Sprintf("default.current.app%d.dev", i), []byte(`{"format":1,"deployment":"x"}`)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	start := time.Now()
	got, err := s.Stacks(t.Context())
	took := time.Since(start)
	if err != nil || len(got) != 1000 {
		t.Fatal(len(got), err)
	}
	t.Logf("1,000 stacks in %v", took)
	if took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	names, _ := c.JetStream().Stream(t.Context(), "KV_ebb_state")
	if info, err := names.Info(t.Context()); err != nil || info.State.Consumers != 0 {
		t.Errorf("%d consumers left, %v", info.State.Consumers, err)
	}
}

func TestFault_NoRoomIsSaid(t *testing.T) {
	t.Parallel()
	c, err := nats.Open(t.Context(), nats.Options{Dir: t.TempDir(), MaxStore: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s, err := state.Open(t.Context(), c.JetStream(), state.Options{Key: testKey})
	if err != nil {
		t.Fatal(err)
	}
	d := put(t, s, stack, "kept")
	for i := 0; ; i++ {
		err := s.Put(t.Context(), deployment(stack, fmt.Sprint(i)))
		if err == nil && i < 1000 {
			continue
		}
		want(t, err, errs.Unavailable)
		if !strings.Contains(errs.HintOf(err), "disk") {
			t.Errorf("hint %q of %v", errs.HintOf(err), err)
		}
		break
	}
	if _, err := s.Deployment(t.Context(), stack, d.ID); err != nil {
		t.Error(err)
	}
}

func TestWatch_TellsEveryChange(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	d := put(t, s, stack, "a")
	p, err := s.SetCurrent(t.Context(), stack, d.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	type change struct {
		k state.StackKey
		p state.Pointer
	}
	got := make(chan change, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, func(k state.StackKey, p state.Pointer) { got <- change{k, p} }) }()
	next := func() change {
		t.Helper()
		select {
		case c := <-got:
			return c
		case <-time.After(10 * time.Second):
			t.Fatal("no change seen")
			return change{}
		}
	}
	if c := next(); c != (change{stack, p}) {
		t.Errorf("got %+v", c)
	}
	if p, err = s.SetCurrent(t.Context(), stack, d.ID, p.Seq); err != nil {
		t.Fatal(err)
	}
	if c := next(); c != (change{stack, p}) {
		t.Errorf("got %+v", c)
	}
	if err := s.Remove(t.Context(), stack); err != nil {
		t.Fatal(err)
	}
	if c := next(); c != (change{k: stack}) {
		t.Errorf("got %+v", c)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	go func() { done <- s.Watch(t.Context(), func(state.StackKey, state.Pointer) {}) }()
	_ = c.Close()
	select {
	case err := <-done:
		want(t, err, errs.Unavailable)
	case <-time.After(10 * time.Second):
		t.Error("watch hangs on a closed connection")
	}
}
