package process

import (
	"fmt"
	"sync"

	"github.com/ebb-run/ebb/internal/errs"
)

// ice is whether a Sandbox is frozen. Its lock is held while that changes, and no other one is taken for longer than a look.
type ice struct {
	sync.Mutex
	frozen bool
	barred bool // it is being stopped, or has ended
}

// Freeze stops everything inside.
func (b *box) Freeze() error {
	b.ice.Lock()
	defer b.ice.Unlock()
	b.mu.Lock()
	alive := b.mu.phase == running && !b.mu.over && !b.mu.stopping
	b.mu.Unlock()
	switch {
	case b.ice.barred || !alive:
		return errs.New(errs.Conflict, "freeze sandbox %s: it does not run", b.spec.ID)
	case b.ice.frozen:
		return nil
	}
	if err := b.fence.freeze(); err != nil {
		return fmt.Errorf("freeze sandbox %s: %w", b.spec.ID, err)
	}
	b.ice.frozen = true
	return nil
}

// Thaw lets it go on.
func (b *box) Thaw() error {
	b.ice.Lock()
	defer b.ice.Unlock()
	return b.thawLocked()
}

// thawLocked wants ice.
func (b *box) thawLocked() error {
	if !b.ice.frozen || b.ice.barred {
		return nil
	}
	if err := b.fence.thaw(); err != nil {
		return fmt.Errorf("thaw sandbox %s: %w", b.spec.ID, err)
	}
	b.ice.frozen = false
	return nil
}

// unfreeze is called before the Sandbox is stopped: a guest that gets the time to end must be able to. One that does not is killed
// frozen.
func (b *box) unfreeze(graceful bool) {
	b.ice.Lock()
	defer b.ice.Unlock()
	if graceful {
		_ = b.thawLocked() // what stays frozen is killed
	}
	b.ice.barred = true
}
