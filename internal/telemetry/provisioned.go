package telemetry

import "github.com/prometheus/client_golang/prometheus"

// ProvisionedCount is what Instances that are kept, or started before they are asked for, do for a Function.
type ProvisionedCount struct {
	Tenant, App, Stage, Function string

	Asked, Ready, InUse int    // Instances: to be kept; of these past Init; of these busy
	Spilled             uint64 // Invocations that came when all kept Instances were taken
	Ahead               uint64 // Instances started because a call was expected
}

// SetProvisioned gives what these numbers are read from at each scrape. f may be called concurrently and leaves out Functions
// without any.
func (m *Metrics) SetProvisioned(f func() []ProvisionedCount) { m.provisioned.Store(&f) }

// provisionedCollector asks when scraped: Functions without provisioned Instances have no series.
type provisionedCollector struct {
	m                         *Metrics
	instances, spilled, ahead *prometheus.Desc
}

func newProvisionedCollector(m *Metrics) provisionedCollector {
	return provisionedCollector{
		m: m,
		instances: prometheus.NewDesc("ebb_provisioned_instances", "Instances that are kept initialised: asked for, ready, in use.",
			append(functionNames[:4:4], "state"), nil),
		spilled: prometheus.NewDesc("ebb_provisioned_spillover_total", "Invocations that came when all provisioned Instances were taken.", functionNames, nil),
		ahead:   prometheus.NewDesc("ebb_started_ahead_total", "Instances started because a call was expected.", functionNames, nil),
	}
}

func (c provisionedCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.instances
	ch <- c.spilled
	ch <- c.ahead
}

func (c provisionedCollector) Collect(ch chan<- prometheus.Metric) {
	f := c.m.provisioned.Load()
	if f == nil {
		return
	}
	// Several Revisions of a Function count as one; their totals are of the Function already.
	sum := map[functionLabels]ProvisionedCount{}
	for _, n := range (*f)() {
		k := functionLabels{n.Tenant, n.App, n.Stage, n.Function}
		s := sum[k]
		s.Asked, s.Ready, s.InUse = s.Asked+n.Asked, s.Ready+n.Ready, s.InUse+n.InUse
		s.Spilled, s.Ahead = max(s.Spilled, n.Spilled), max(s.Ahead, n.Ahead)
		sum[k] = s
	}
	for k, s := range sum {
		for state, n := range map[string]int{"asked": s.Asked, "ready": s.Ready, "in_use": s.InUse} {
			ch <- prometheus.MustNewConstMetric(c.instances, prometheus.GaugeValue, float64(n), append(k.values(), state)...)
		}
		ch <- prometheus.MustNewConstMetric(c.spilled, prometheus.CounterValue, float64(s.Spilled), k.values()...)
		ch <- prometheus.MustNewConstMetric(c.ahead, prometheus.CounterValue, float64(s.Ahead), k.values()...)
	}
}
