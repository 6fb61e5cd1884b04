package server

import (
	"context"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// workOf begins the record of a Batch of messages, and gives the trace and the hops of its Invocation: the trace is that of the first message.
func workOf(id string, m *mapping, b *invocation.Batch) (trace string, hops int, w bus.Work) {
	w = bus.Work{ID: id, Name: m.function, Queue: m.Queue, Start: time.Now()}
	seen := map[bus.TraceID]bool{}
	for i := range b.Items {
		e := b.Items[i].Event
		hops = max(hops, bus.HopsOf(e))
		one := bus.TraceOfMessage(e)
		if i == 0 {
			trace = one
		}
		w.Messages = append(w.Messages, e.ID)
		if t, ok := bus.ParseTrace(one); ok && !seen[t] {
			seen[t] = true
			w.Traces = append(w.Traces, t)
		}
	}
	w.Trace = trace
	return trace, hops, w
}

// worked writes how the Invocation of a Batch of messages went. Records of streams belong to no trace.
func (s *Server) worked(w bus.Work, v invocation.Verdict) {
	if w.Queue == "" {
		return
	}
	w.Took, w.Failed = time.Since(w.Start), v.Failed
	if v.Err != nil {
		w.Error = v.Err.Error()
	}
	s.record(w)
}

// notes are what is being written of Invocations.
type notes struct {
	mu struct {
		sync.Mutex
		closed bool
		n      int
		open   map[string]time.Time // IDs of what is being written, or was until then
	}
	wait sync.WaitGroup
}

const (
	// mostNotes is how many are being written at most; with a log that is slower, others are left out.
	mostNotes = 512
	// noteSeen is how long after its writing a note may be missing in what is being read.
	noteSeen = 2 * time.Second
)

// write notes something in the background.
func (n *notes) write(ids []string, f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed || n.mu.n >= mostNotes {
		return
	}
	n.mu.n++
	if n.mu.open == nil {
		n.mu.open = map[string]time.Time{}
	}
	for _, id := range ids {
		n.mu.open[id] = time.Time{}
	}
	n.wait.Go(func() {
		f()
		n.written(ids)
	})
}

func (n *notes) written(ids []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.n--
	now := time.Now()
	for _, id := range ids {
		n.mu.open[id] = now.Add(noteSeen)
	}
	looked := 0
	for id, until := range n.mu.open { // some of them, so that as many go as come
		if !until.IsZero() && now.After(until) {
			delete(n.mu.open, id)
		}
		if looked++; looked > 2*len(ids)+2 {
			break
		}
	}
}

// add lists what is being written.
func (n *notes) add(to map[string]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for id, until := range n.mu.open {
		if until.IsZero() || now.Before(until) {
			to[id] = true
		}
	}
}

// close waits for those that are being written, and takes no more.
func (n *notes) close() error {
	n.mu.Lock()
	n.mu.closed = true
	n.mu.Unlock()
	n.wait.Wait()
	return nil
}

// record writes a Work to the event log, without waiting for it: what is lost of it in a crash is how an Invocation went, not that it was.
func (s *Server) record(w bus.Work) {
	w.Start = w.Start.UTC()
	s.sink.notes.write(append([]string{w.ID}, w.Messages...), func() {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		if err := s.events.bus.Note(ctx, w); err != nil && errs.CodeOf(err) != errs.Unavailable {
			s.o.Log.Debug("an invocation is not noted in the event log", "invocation", w.ID, "error", err)
		}
	})
}
