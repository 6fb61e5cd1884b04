package server

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/state"
)

// An Artifact is needed as long as a kept Deployment names it, and while an Instance may still run from it.

// lastRun is how long an Instance may outlive its Deployment: the longest timeout of a Lambda function, and some.
const lastRun = 20 * time.Minute

// collectEvery bounds how often Artifacts are looked through.
const collectEvery = time.Minute

// trash decides which Artifacts may go.
type trash struct {
	wg     sync.WaitGroup
	needed sync.RWMutex // held for reading by who needs all that there are
	mu     struct {
		sync.Mutex
		seen    map[string]time.Time // digest -> when a Deployment with it was last made to serve, or stopped to
		serving map[state.StackKey][]string
		last    time.Time
		tidy    *time.Timer
	}
}

// used notes the Artifacts of what serves from now on; those it takes over from may run for a while.
func (t *trash) used(d *state.Deployment) {
	var digests []string
	for _, u := range d.Units {
		digests = append(append(digests, u.Code, u.Opt, u.Supplied), u.Layers...)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.replaceLocked(d.Stack, digests)
}

// gone notes that a Stack serves no more.
func (t *trash) gone(k state.StackKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.replaceLocked(k, nil)
}

func (t *trash) replaceLocked(k state.StackKey, digests []string) {
	if t.mu.seen == nil {
		t.mu.seen, t.mu.serving = map[string]time.Time{}, map[state.StackKey][]string{}
	}
	now := time.Now()
	for _, digest := range t.mu.serving[k] {
		t.mu.seen[digest] = now
	}
	t.mu.serving[k] = digests
	for digest, at := range t.mu.seen {
		if now.Sub(at) > lastRun {
			delete(t.mu.seen, digest)
		}
	}
}

// running says which Artifacts Instances may run from.
func (t *trash) running() map[string]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]bool{}
	for digest, at := range t.mu.seen {
		if time.Since(at) <= lastRun {
			out[digest] = true
		}
	}
	for _, digests := range t.mu.serving {
		for _, digest := range digests {
			out[digest] = true
		}
	}
	return out
}

// collectSoon removes Artifacts that nothing needs, beside what goes on, unless that was done a moment ago.
func (s *Server) collectSoon() {
	s.tidySoon()
	s.trash.mu.Lock()
	due := time.Since(s.trash.mu.last) >= collectEvery
	if due {
		s.trash.mu.last = time.Now()
	}
	s.trash.mu.Unlock()
	if due {
		s.trash.wg.Go(func() {
			if err := s.collect(context.Background()); err != nil {
				s.o.Log.Warn("artifacts that nothing needs are left", "error", err)
			}
		})
	}
}

// collect removes Artifacts that nothing needs, unless somebody needs all.
func (s *Server) collect(ctx context.Context) error {
	if !s.trash.needed.TryLock() {
		return nil // the next deploy or start has it done
	}
	defer s.trash.needed.Unlock()
	kept, err := s.state.Artifacts(ctx)
	if err != nil {
		return err
	}
	running := s.trash.running()
	needed := func(digest string) bool { return kept[digest] || running[digest] }
	if err := s.collectCompiled(needed); err != nil {
		return err
	}
	_, err = s.artifacts.Collect(needed)
	return err
}

// tidyAfter is how long after the last deploy memory is given back.
const tidyAfter = time.Second

// tidySoon gives memory back to the system once deploys have ended. Reading an App leaves several times its size as garbage, which an
// idle Node would keep: nothing runs there that would make Go collect it.
func (s *Server) tidySoon() {
	s.trash.mu.Lock()
	defer s.trash.mu.Unlock()
	if s.trash.mu.tidy == nil {
		s.trash.mu.tidy = time.AfterFunc(tidyAfter, debug.FreeOSMemory)
		return
	}
	s.trash.mu.tidy.Reset(tidyAfter)
}

// close waits for what goes on.
func (t *trash) close() error {
	t.mu.Lock()
	if t.mu.tidy != nil {
		t.mu.tidy.Stop()
	}
	t.mu.Unlock()
	t.wg.Wait()
	return nil
}
