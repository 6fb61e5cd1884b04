package server

import (
	"time"

	"github.com/ebb-run/ebb/internal/bus"
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
