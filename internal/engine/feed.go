package engine

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/invocation"
)

const (
	maxLine   = 256 << 10 // bytes of one Output line; a longer one is split
	tailLines = 20        // lines of Init kept for its error
	tailBytes = 4 << 10   // of one of them
	keepBuf   = 64 << 10  // a larger line buffer is not kept
)

// feed gives the Observer what happens to one Instance, in order. It is the io.Writer of the Sandbox's output, which it
// splits into lines and labels with the Invocation that runs, or else with the one that ran last: a guest may work on, or
// write, after its answer.
type feed struct {
	obs  Observer
	unit *Unit
	id   string // of the Instance

	mu struct {
		sync.Mutex
		state   State
		running []string // IDs
		last    string   // ID of the Invocation that ended last
		partial []byte   // a line that has not ended yet
		tail    []string // last lines, while Starting
	}
}

// change announces a state. Nothing but Stopped follows Draining.
func (f *feed) change(s State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changeLocked(s)
}

func (f *feed) changeLocked(s State) {
	if f.mu.state == s || f.mu.state == Stopped || f.mu.state == Draining && s != Stopped {
		return
	}
	if s != Starting {
		f.flushLocked()
	}
	f.mu.state = s
	f.obs.InstanceChanged(f.unit, f.id, s)
}

// begin announces that the Instance gets the Invocation; first is false when another Instance had got it before.
func (f *feed) begin(inv *invocation.Invocation, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flushLocked()
	f.changeLocked(Busy)
	if f.unit.Given != nil {
		f.unit.Given(f.id, inv)
	}
	if first {
		f.obs.InvocationStarted(f.unit, f.id, inv)
	}
	f.mu.running = append(f.mu.running, inv.ID)
}

// end announces that the Invocation is over; r is nil when another Instance will get it.
func (f *feed) end(id string, r *Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flushLocked()
	if k := slices.Index(f.mu.running, id); k >= 0 {
		f.mu.running = slices.Delete(f.mu.running, k, k+1)
	}
	if r != nil {
		f.mu.last = id
		f.obs.InvocationEnded(f.unit, *r)
	}
	if len(f.mu.running) == 0 {
		f.changeLocked(Idle)
	}
}

// failed announces an Invocation that waited for this Instance, which did not start.
func (f *feed) failed(inv *invocation.Invocation, first bool, r Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first {
		f.obs.InvocationStarted(f.unit, f.id, inv)
	}
	f.obs.InvocationEnded(f.unit, r)
}

// Write takes output of the guest.
func (f *feed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		k := bytes.IndexByte(p, '\n')
		room := maxLine - len(f.mu.partial)
		switch {
		case k >= 0 && k <= room:
			if len(f.mu.partial) == 0 {
				f.lineLocked(p[:k])
			} else {
				f.mu.partial = append(f.mu.partial, p[:k]...)
				f.cutLocked()
			}
			p = p[k+1:]
		case len(p) > room || k >= 0:
			f.mu.partial = append(f.mu.partial, p[:room]...)
			f.cutLocked()
			p = p[room:]
		default:
			f.mu.partial = append(f.mu.partial, p...)
			p = nil
		}
	}
	return n, nil
}

// flushLocked gives a line that has not ended yet.
func (f *feed) flushLocked() {
	if len(f.mu.partial) > 0 {
		f.cutLocked()
	}
}

func (f *feed) cutLocked() {
	f.lineLocked(f.mu.partial)
	if f.mu.partial = f.mu.partial[:0]; cap(f.mu.partial) > keepBuf {
		f.mu.partial = nil
	}
}

func (f *feed) lineLocked(line []byte) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	id := ""
	switch len(f.mu.running) {
	case 0:
		id = f.mu.last
	case 1:
		id = f.mu.running[0]
	}
	if f.mu.state == Starting {
		if len(f.mu.tail) == tailLines {
			f.mu.tail = slices.Delete(f.mu.tail, 0, 1)
		}
		f.mu.tail = append(f.mu.tail, string(line[:min(len(line), tailBytes)]))
	}
	f.obs.Output(f.unit, f.id, id, time.Now(), line)
}

// tail takes the last lines of Init; the last of them may lack its end.
func (f *feed) tail() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flushLocked()
	t := f.mu.tail
	f.mu.tail = nil
	return t
}
