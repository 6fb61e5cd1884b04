package telemetry

import "github.com/prometheus/client_golang/prometheus"

// SetAudit gives what the numbers of audit records are read from at each scrape, by log. f may be called concurrently.
func (m *Metrics) SetAudit(f func() map[string]uint64) { m.audit.Store(&f) }

// auditCollector asks when scraped.
type auditCollector struct {
	m       *Metrics
	records *prometheus.Desc
}

func newAuditCollector(m *Metrics) auditCollector {
	return auditCollector{m, prometheus.NewDesc("ebb_audit_records_total", "Records that this node has written to its audit logs since it began.", []string{"log"}, nil)}
}

func (c auditCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.records }

func (c auditCollector) Collect(ch chan<- prometheus.Metric) {
	f := c.m.audit.Load()
	if f == nil {
		return
	}
	for log, n := range (*f)() {
		ch <- prometheus.MustNewConstMetric(c.records, prometheus.CounterValue, float64(n), log)
	}
}
