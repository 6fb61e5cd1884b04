package engine

import "time"

// An Instance that has been Idle for a while is frozen, so that timers and threads of guests that nobody calls cost nothing, and
// thawed by whoever is granted it. Granting waits for nothing: it is serve that thaws, outside of all locks. instance.iced is set under
// pool.mu while the Instance is idle and belongs, from the grant on, to those who run on it; instance.ice orders the calls of the
// Sandbox, so that a Freeze that was decided on before a grant never comes after its Thaw.

// freezeEvery bounds how often pools are looked at for what to freeze.
const freezeEvery = 100 * time.Millisecond

// freezeAfterOf is how long an Instance of the Unit is Idle before it is frozen; 0 means never.
func (e *Engine) freezeAfterOf(u *Unit) time.Duration {
	if e.o.FreezeAfter < 0 || !u.Driver.Traits().Freezable {
		return 0
	}
	return e.o.FreezeAfter
}

// freeze freezes the Instances that have been Idle for long enough and says when the next one will be. One at a time, as a Freeze
// ends the look at those that came after it.
func (p *pool) freeze(now time.Time) (left time.Duration, some bool) {
	if p.freezeAfter <= 0 || p.idleN.Load() == 0 {
		return 0, false
	}
	for {
		i, left := p.nextToFreeze(now)
		if i == nil {
			return left, left > 0
		}
		i.freeze()
	}
}

// nextToFreeze takes note of the Instance that has been Idle for the longest and is not frozen, when it is time; left is when it
// will be, or 0 when there is none.
func (p *pool) nextToFreeze(now time.Time) (i *instance, left time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.iced >= len(p.mu.idle) {
		return nil, 0
	}
	i = p.mu.idle[p.mu.iced]
	if left := i.idleSince.Add(p.freezeAfter).Sub(now); left > 0 {
		return nil, left
	}
	p.mu.iced++
	i.iced.Store(true)
	return i, 0
}

// freeze freezes the Sandbox, unless somebody was granted the Instance meanwhile. A Sandbox that does not freeze is as good as any.
func (i *instance) freeze() {
	i.ice <- struct{}{}
	defer func() { <-i.ice }()
	if !i.iced.Load() {
		return
	}
	if err := i.sandbox.Freeze(); err != nil && !i.gone() {
		i.pool.e.o.Log.Debug("an idle instance was not frozen", "unit", i.pool.unit.ID, "instance", i.id, "err", err)
	}
}

// thaw makes an Instance ready for work that was granted, or is to end: nobody decides on its Freeze any more.
func (i *instance) thaw() error {
	if !i.iced.Load() {
		return nil
	}
	i.ice <- struct{}{}
	defer func() { <-i.ice }()
	if err := i.sandbox.Thaw(); err != nil {
		i.pool.e.o.Log.Warn("a frozen instance does not thaw and is replaced", "unit", i.pool.unit.ID, "instance", i.id, "err", err)
		return err
	}
	i.iced.Store(false)
	return nil
}
