package telemetry

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// FunctionMetrics are the numbers of one Function. It is a handle: cheap until the Function is called, then without a look-up by
// label. Handles of one Function count together. Its methods may be called concurrently.
type FunctionMetrics struct {
	m        *Metrics
	labels   functionLabels
	outcomes [numOutcomes]atomic.Pointer[prometheus.Counter]
	duration atomic.Pointer[prometheus.Observer]
	first    atomic.Pointer[prometheus.Observer]
	cold     atomic.Pointer[coldMetrics]
	queue    atomic.Pointer[prometheus.Observer]
	throttle atomic.Pointer[prometheus.Counter]
}

// coldMetrics are what a cold start counts.
type coldMetrics struct {
	starts prometheus.Counter
	init   prometheus.Observer
	phases [numPhases]prometheus.Observer
}

// The phases of a cold start.
const (
	phaseQueue = iota
	phaseSandbox
	phaseRuntime
	phaseHandler
	numPhases
)

var phaseNames = [numPhases]string{"queue", "sandbox", "runtime_init", "handler_init"} // never written

// ColdStart says where the time of one went.
type ColdStart struct {
	Queue   time.Duration // until its Instance was begun
	Sandbox time.Duration // until its guest ran
	Init    time.Duration // until that was ready
	Handler time.Duration // of Init: the user's own code; 0 when not known
}

// Function returns the handle for a Function.
func (m *Metrics) Function(tenant, app, stage, function string) *FunctionMetrics {
	return &FunctionMetrics{m: m, labels: functionLabels{tenant, app, stage, function}}
}

// RemoveFunction drops the series of a Function that is no longer deployed. Handles that are left count nowhere, unless for
// something they have not counted before.
func (m *Metrics) RemoveFunction(tenant, app, stage, function string) {
	l := functionLabels{tenant, app, stage, function}
	m.functions.Lock()
	_, known := m.functions.live[l]
	delete(m.functions.live, l)
	m.functions.Unlock()
	if !known {
		return
	}
	v := l.values()
	for o := range numOutcomes {
		m.invocations.DeleteLabelValues(append(v[:4:4], o.String())...)
	}
	m.duration.DeleteLabelValues(v...)
	m.firstByte.DeleteLabelValues(v...)
	m.coldStarts.DeleteLabelValues(v...)
	m.initTime.DeleteLabelValues(v...)
	for _, name := range phaseNames {
		m.coldPhases.DeleteLabelValues(append(v[:4:4], name)...)
	}
	m.queueTime.DeleteLabelValues(v...)
	m.throttles.DeleteLabelValues(v...)
}

func (l functionLabels) values() []string { return []string{l.tenant, l.app, l.stage, l.function} }

// admit returns the labels to count under.
func (f *FunctionMetrics) admit() []string {
	m := f.m
	m.functions.Lock()
	defer m.functions.Unlock()
	if _, ok := m.functions.live[f.labels]; !ok {
		if len(m.functions.live) >= maxFunctions {
			return functionLabels{"_other", "_other", "_other", "_other"}.values()
		}
		m.functions.live[f.labels] = struct{}{}
	}
	return f.labels.values()
}

// Invocation counts one that ended, and the time it had in the handler.
func (f *FunctionMetrics) Invocation(o Outcome, took time.Duration) {
	if o >= numOutcomes {
		o = Faulted
	}
	c := f.outcomes[o].Load()
	if c == nil {
		n := f.m.invocations.WithLabelValues(append(f.admit(), o.String())...)
		c = &n
		f.outcomes[o].Store(c)
	}
	(*c).Inc()
	observe(f, &f.duration, f.m.duration, took)
}

// ColdStart counts an Invocation that waited for an Init.
func (f *FunctionMetrics) ColdStart(s ColdStart) {
	c := f.cold.Load()
	if c == nil {
		v := f.admit()
		c = &coldMetrics{starts: f.m.coldStarts.WithLabelValues(v...), init: f.m.initTime.WithLabelValues(v...)}
		for k, name := range phaseNames {
			c.phases[k] = f.m.coldPhases.WithLabelValues(append(v[:4:4], name)...)
		}
		f.cold.Store(c)
	}
	c.starts.Inc()
	c.init.Observe(s.Init.Seconds())
	c.phases[phaseQueue].Observe(s.Queue.Seconds())
	c.phases[phaseSandbox].Observe(s.Sandbox.Seconds())
	if s.Handler > 0 {
		c.phases[phaseRuntime].Observe((s.Init - s.Handler).Seconds())
		c.phases[phaseHandler].Observe(s.Handler.Seconds())
	}
}

// Queued counts the time that an Invocation waited because no Instance was free.
func (f *FunctionMetrics) Queued(waited time.Duration) {
	observe(f, &f.queue, f.m.queueTime, waited)
}

// FirstByte counts the time in the handler until a streamed answer began.
func (f *FunctionMetrics) FirstByte(after time.Duration) {
	observe(f, &f.first, f.m.firstByte, after)
}

// Throttled counts an Invocation that was refused for want of concurrency.
func (f *FunctionMetrics) Throttled() {
	c := f.throttle.Load()
	if c == nil {
		n := f.m.throttles.WithLabelValues(f.admit()...)
		c = &n
		f.throttle.Store(c)
	}
	(*c).Inc()
}

// observe adds to a histogram that is looked up the first time.
func observe(f *FunctionMetrics, p *atomic.Pointer[prometheus.Observer], vec *prometheus.HistogramVec, d time.Duration) {
	o := p.Load()
	if o == nil {
		n := vec.WithLabelValues(f.admit()...)
		o = &n
		p.Store(o)
	}
	(*o).Observe(d.Seconds())
}
