package telemetry

import (
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Outcome is how an Invocation ended.
type Outcome uint8

// The outcomes.
const (
	Succeeded Outcome = iota
	FailedHandler
	FailedInit
	FailedTimeout
	FailedExit
	FailedMemory
	FailedResponse
	Canceled // the caller went away
	Refused  // throttled, or no Instance could be had
	Faulted  // a fault of ebb
	numOutcomes
)

// String gives the label's value.
func (o Outcome) String() string {
	names := [numOutcomes]string{"success", "handler", "init", "timeout", "exit", "memory", "response", "canceled", "refused", "fault"}
	if o >= numOutcomes {
		o = Faulted
	}
	return names[o]
}

// maxFunctions bounds the functions that have series of their own; those beyond share one named "_other".
const maxFunctions = 10_000

// InstanceCount is how many Instances of a Function are in a state.
type InstanceCount struct {
	Tenant, App, Stage, Function string
	State                        string // "starting", "idle", "busy", "draining"
	N                            int
}

// Metrics are the server's numbers, in a registry of their own. Its methods may be called concurrently.
type Metrics struct {
	reg         *prometheus.Registry
	invocations *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	firstByte   *prometheus.HistogramVec
	coldStarts  *prometheus.CounterVec
	initTime    *prometheus.HistogramVec
	coldPhases  *prometheus.HistogramVec
	queueTime   *prometheus.HistogramVec
	throttles   *prometheus.CounterVec
	deploys     *prometheus.CounterVec
	aws         *prometheus.CounterVec
	passed      *prometheus.CounterVec
	passedBytes *prometheus.CounterVec
	build       *prometheus.GaugeVec
	gateway     [6]prometheus.Counter // by the status's first digit; 0 is anything else
	gatewayTime prometheus.Histogram
	instances   atomic.Pointer[func() []InstanceCount]
	provisioned atomic.Pointer[func() []ProvisionedCount]
	egress      atomic.Pointer[func() []EgressCount]
	logDrops    atomic.Pointer[func() uint64]
	audit       atomic.Pointer[func() map[string]uint64]
	functions   struct {
		sync.Mutex
		live map[functionLabels]struct{} // those with series
	}
}

type functionLabels struct{ tenant, app, stage, function string }

var functionNames = []string{"tenant", "app", "stage", "function"} // never written

// NewMetrics returns Metrics with nothing counted.
func NewMetrics() *Metrics {
	m := &Metrics{reg: prometheus.NewRegistry()}
	m.functions.live = map[functionLabels]struct{}{}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "ebb", Name: name, Help: help}, labels)
		m.reg.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "ebb", Name: name, Help: help, Buckets: buckets}, functionNames)
		m.reg.MustRegister(v)
		return v
	}
	m.invocations = counter("invocations_total", "Invocations that ended, by outcome.", append(functionNames[:4:4], "outcome")...)
	m.coldStarts = counter("cold_starts_total", "Invocations that waited for an Init.", functionNames...)
	m.throttles = counter("throttles_total", "Invocations refused for want of concurrency.", functionNames...)
	m.deploys = counter("deploys_total", "Deployments, by result.", "result")
	m.duration = histogram("invocation_duration_seconds", "Time in the handler.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300})
	m.firstByte = histogram("first_byte_seconds", "Time in the handler until a streamed answer began.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30})
	m.initTime = histogram("init_duration_seconds", "Time of an Instance's Init.",
		[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10})
	m.coldPhases = prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "ebb", Name: "cold_start_phase_seconds",
		Help: "Where the time of cold starts went.", Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5}}, append(functionNames[:4:4], "phase"))
	m.reg.MustRegister(m.coldPhases)
	m.queueTime = histogram("queue_duration_seconds", "Time an Invocation waited for an Instance that was not there.",
		[]float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10})
	requests := counter("gateway_requests_total", "HTTP requests answered, by class of status.", "status")
	for i, class := range []string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		m.gateway[i] = requests.WithLabelValues(class)
	}
	m.gatewayTime = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "ebb", Name: "gateway_request_duration_seconds", Help: "Time from a request's head to its answer's end.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	})
	m.aws = counter("aws_requests_total", "Requests of AWS's clients that were answered, by service, operation and class of status.", "service", "operation", "status")
	m.passed = counter("aws_passed_requests_total", "Requests of functions for services of the real AWS, by service and class of status.", "service", "status")
	m.passedBytes = counter("aws_passed_bytes_total", "Bytes of the bodies of those, sent and received.", "service", "direction")
	m.build = prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "ebb", Name: "build_info", Help: "What runs."},
		[]string{"version", "goversion", "goos", "goarch"})
	m.reg.MustRegister(newAuditCollector(m), m.gatewayTime, m.build, instanceCollector{m, prometheus.NewDesc("ebb_instances",
		"Instances by state.", append(functionNames[:4:4], "state"), nil)},
		newProvisionedCollector(m), newEgressCollector(m),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "ebb", Name: "log_records_dropped_total",
			Help: "Lines of function logs that could not be kept."}, m.droppedLogs),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics in Prometheus's formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{Registry: m.reg, MaxRequestsInFlight: 4})
}

// SetBuild says which version runs.
func (m *Metrics) SetBuild(version string) {
	m.build.Reset()
	m.build.WithLabelValues(version, runtime.Version(), runtime.GOOS, runtime.GOARCH).Set(1)
}

// SetInstances gives what the instances by state are read from at each scrape. f may be called concurrently.
func (m *Metrics) SetInstances(f func() []InstanceCount) { m.instances.Store(&f) }

// SetLogDrops gives what the number of lost log records is read from, Logs.Dropped.
func (m *Metrics) SetLogDrops(f func() uint64) { m.logDrops.Store(&f) }

func (m *Metrics) droppedLogs() float64 {
	if f := m.logDrops.Load(); f != nil {
		return float64((*f)())
	}
	return 0
}

// GatewayRequest counts an answered HTTP request.
func (m *Metrics) GatewayRequest(status int, took time.Duration) {
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	m.gateway[class].Inc()
	m.gatewayTime.Observe(took.Seconds())
}

// AWSRequest counts an answered request of an AWS client. Service and operation are of those that are here, or empty.
func (m *Metrics) AWSRequest(service, operation string, status int) {
	m.aws.WithLabelValues(service, operation, fmt.Sprintf("%dxx", status/100)).Inc()
}

// AWSPassed counts a request for a service of the real AWS, with the bytes of its bodies.
func (m *Metrics) AWSPassed(service string, status int, sent, received int64) {
	m.passed.WithLabelValues(service, fmt.Sprintf("%dxx", status/100)).Inc()
	m.passedBytes.WithLabelValues(service, "sent").Add(float64(sent))
	m.passedBytes.WithLabelValues(service, "received").Add(float64(received))
}

// Deploy counts a deployment by its result, one of few words: "deployed", "failed", "rolled_back".
func (m *Metrics) Deploy(result string) { m.deploys.WithLabelValues(result).Inc() }

// instanceCollector asks for the counts when scraped: nothing is kept up to date in between.
type instanceCollector struct {
	m    *Metrics
	desc *prometheus.Desc
}

func (c instanceCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

func (c instanceCollector) Collect(ch chan<- prometheus.Metric) {
	f := c.m.instances.Load()
	if f == nil {
		return
	}
	// Several Revisions of a Function count as one.
	type key struct {
		f     functionLabels
		state string
	}
	sum := map[key]int{}
	for _, n := range (*f)() {
		sum[key{functionLabels{n.Tenant, n.App, n.Stage, n.Function}, n.State}] += n.N
	}
	for k, n := range sum {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n),
			k.f.tenant, k.f.app, k.f.stage, k.f.function, k.state)
	}
}
