package telemetry

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// EgressCount is what a Function's guests have used of the network since the server began. Destinations have no series: guests choose them.
type EgressCount struct {
	Tenant, App, Stage, Function string

	Made, Failed, Refused int64 // connections
	Sent, Received        int64 // bytes, from and to guests
}

// SetEgress gives what these numbers are read from at each scrape. f may be called concurrently and leaves out Functions that connected
// to nothing.
func (m *Metrics) SetEgress(f func() []EgressCount) { m.egress.Store(&f) }

// egressCollector asks when scraped.
type egressCollector struct {
	m                  *Metrics
	connections, bytes *prometheus.Desc
}

func newEgressCollector(m *Metrics) egressCollector {
	return egressCollector{
		m: m,
		connections: prometheus.NewDesc("ebb_egress_connections_total", "Connections that functions asked for: made, failed, or refused by the egress setting.",
			append(functionNames[:4:4], "outcome"), nil),
		bytes: prometheus.NewDesc("ebb_egress_bytes_total", "Bytes that functions sent and received over connections that they asked for.",
			append(functionNames[:4:4], "direction"), nil),
	}
}

func (c egressCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.connections
	ch <- c.bytes
}

func (c egressCollector) Collect(ch chan<- prometheus.Metric) {
	f := c.m.egress.Load()
	if f == nil {
		return
	}
	counts := (*f)()
	// The same ones have series of their own at each scrape, or else their counters would jump.
	slices.SortFunc(counts, func(x, y EgressCount) int {
		return cmp.Or(cmp.Compare(x.Tenant, y.Tenant), cmp.Compare(x.App, y.App), cmp.Compare(x.Stage, y.Stage), cmp.Compare(x.Function, y.Function))
	})
	sum := map[functionLabels]EgressCount{}
	for _, n := range counts {
		k := functionLabels{n.Tenant, n.App, n.Stage, n.Function}
		if _, ok := sum[k]; !ok && len(sum) >= maxFunctions {
			k = functionLabels{"_other", "_other", "_other", "_other"}
		}
		s := sum[k]
		s.Made, s.Failed, s.Refused, s.Sent, s.Received = s.Made+n.Made, s.Failed+n.Failed, s.Refused+n.Refused, s.Sent+n.Sent, s.Received+n.Received
		sum[k] = s
	}
	for k, s := range sum {
		for outcome, n := range map[string]int64{"made": s.Made, "failed": s.Failed, "refused": s.Refused} {
			ch <- prometheus.MustNewConstMetric(c.connections, prometheus.CounterValue, float64(n), append(k.values(), outcome)...)
		}
		for direction, n := range map[string]int64{"sent": s.Sent, "received": s.Received} {
			ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(n), append(k.values(), direction)...)
		}
	}
}
