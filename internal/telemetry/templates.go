package telemetry

import "github.com/prometheus/client_golang/prometheus"

// TemplateCounts are what programs that are held ready for Instances do.
type TemplateCounts struct {
	Ready   int
	Bytes   int64  // of memory, that these use
	Started uint64 // Instances that came from one
}

// SetTemplates gives what the counts of templates are read from at each scrape. f may be called concurrently. It is called once.
func (m *Metrics) SetTemplates(f func() TemplateCounts) {
	gauge := func(name, help string, value func(TemplateCounts) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(f()) })
	}
	m.reg.MustRegister(
		gauge("ebb_templates_ready", "Programs that are held ready to become Instances.", func(c TemplateCounts) float64 { return float64(c.Ready) }),
		gauge("ebb_templates_bytes", "Memory of programs that are held ready.", func(c TemplateCounts) float64 { return float64(c.Bytes) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "ebb_template_starts_total", Help: "Instances that came from a program that was ready."},
			func() float64 { return float64(f().Started) }))
}
