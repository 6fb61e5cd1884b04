package identity

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Throttle bounds failed authentications by source. A key that is right passes whatever its source has done before: guessing
// 256 bits is hopeless at any rate, so what is bounded is the noise in the log, not the chance, and nobody who shares an address
// with a stranger is locked out by him. Its methods may be called concurrently.
type Throttle struct {
	now func() time.Time
	mu  struct {
		sync.Mutex
		sources map[netip.Prefix]bucket
	}
}

type bucket struct {
	left float64
	at   time.Time
}

const (
	throttleBurst   = 10              // failures at once
	throttleEvery   = 6 * time.Second // one further
	throttleSources = 10_000          // remembered
)

// NewThrottle returns a Throttle. now is the clock.
func NewThrottle(now func() time.Time) *Throttle {
	t := &Throttle{now: now}
	t.mu.sources = map[netip.Prefix]bucket{}
	return t
}

// Failed counts a failure from the remote address, and says whether it is within the bound, else how long to wait.
func (t *Throttle) Failed(remote string) (wait time.Duration, ok bool) {
	src, now := source(remote), t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	b, known := t.mu.sources[src]
	if !known {
		if len(t.mu.sources) >= throttleSources {
			t.forget(now)
		}
		b = bucket{left: throttleBurst, at: now}
	}
	b.left = min(throttleBurst, b.left+float64(now.Sub(b.at))/float64(throttleEvery))
	b.at = now
	if ok = b.left >= 1; ok {
		b.left--
	}
	t.mu.sources[src] = b
	return time.Duration((1 - b.left) * float64(throttleEvery)), ok
}

// forget makes room for many, so that it is seldom: first those whose bucket is full again, else anyone. mu is held.
func (t *Throttle) forget(now time.Time) {
	for s, b := range t.mu.sources {
		if now.Sub(b.at) >= throttleBurst*throttleEvery {
			delete(t.mu.sources, s)
		}
	}
	for s := range t.mu.sources {
		if len(t.mu.sources) <= throttleSources/2 {
			return
		}
		delete(t.mu.sources, s)
	}
}

// source is an IPv4 address, or the network of 64 bits that an IPv6 host can choose its address from.
func source(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // both fit
	return p
}
