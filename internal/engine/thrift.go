package engine

import (
	"runtime"
	"time"
)

// A start costs processor time: on a machine whose processors all have work it is taken from the Invocations that run, and where these
// wait for a processor themselves, one more Instance answers nothing sooner and holds memory. So there a pool that has an Instance for
// each processor starts one at a time, and rests as long as the start took. What waits for other things than processors leaves the
// machine unsaturated, and is not held up; beside others who saturate it, it grows more slowly.

// thriftLocked bounds the starts that wantLocked asks for.
func (p *pool) thriftLocked(now time.Time, want int, again time.Duration) (int, time.Duration) {
	if want <= p.mu.starting || p.mu.serving < runtime.GOMAXPROCS(0) || !p.e.machine.saturated(int64(now.Sub(p.e.epoch))) {
		return want, again
	}
	if p.mu.starting > 0 {
		return p.mu.starting, again
	}
	if left := p.mu.lastStart.Add(p.mu.lastTook).Sub(now); left > 0 {
		return 0, min(left, max(again, crowdLook))
	}
	return 1, again
}
