package main

import (
	"fmt"
	"io"
	"strings"
)

func figureText(figure string, v float64) string {
	switch figure {
	case figLatency, figWorst, figGetItem, figQuery:
		return fmt.Sprintf("%.2f ms", v*1e3)
	case figPutBytes, figGetBytes:
		return fmt.Sprintf("%.0f MB/s", v)
	}
	if strings.HasSuffix(figure, "CPU") {
		return fmt.Sprintf("%.0f µs", v*1e6)
	}
	return fmt.Sprintf("%.0f/s", v)
}

// text is a median with its spread, or empty.
func (f *Figure) text() string {
	if len(f.Values) == 0 {
		return ""
	}
	s := stats(f.Values)
	lo, hi := figureText(f.Figure, s.lo), figureText(f.Figure, s.hi)
	if len(f.Values) == 1 {
		return figureText(f.Figure, s.mid)
	}
	trim := func(t string) string {
		for i := range t {
			if t[i] == ' ' || t[i] == '/' {
				return t[:i]
			}
		}
		return t
	}
	return fmt.Sprintf("%s (%s-%s)", figureText(f.Figure, s.mid), trim(lo), trim(hi))
}

// concludeEvents compares with the targets.
func (r *report) concludeEvents() {
	median := func(contender, figure string) (float64, bool) {
		v := r.figure(contender, figure).Values
		return stats(v).mid, len(v) > 0 && r.NotRun[contender] == ""
	}
	for _, t := range []struct {
		what, contender, figure string
		want                    float64
	}{
		{"durable publish over HTTP to handler start, p50", ebbServed, figLatency, 3e-3},
		{"durable publishes over HTTP, 8 callers", ebbServed, figEight, 2000},
		{"durable publishes over HTTP, 256 callers", ebbServed, figMost, 15_000},
		{"durable publishes to the bus, 8 callers", ebbBus, figEight, 2000},
		{"durable publishes to the bus, 256 callers", ebbBus, figMost, 15_000},
		{"single events over HTTP to the end of a Go handler", ebbServed, figSingle, 1000},
		{"events in batches of 10 over HTTP to the end of a Go handler", ebbServed, figTens, 5000},
	} {
		got, ok := median(t.contender, t.figure)
		if !ok {
			continue
		}
		x := Target{What: t.what, Want: "at least " + figureText(t.figure, t.want), Got: got, Shown: figureText(t.figure, got), Pass: got >= t.want}
		if t.figure == figLatency {
			x.Want, x.Pass = "at most "+figureText(t.figure, t.want), got <= t.want
		}
		r.Targets = append(r.Targets, x)
	}
	if q := r.Queue; q != nil && q.NotRun == "" {
		r.Targets = append(r.Targets,
			Target{What: fmt.Sprintf("ebb with %d queued events, peak of memory", q.Events), Want: "at most 512 MiB", Got: q.Peak, Shown: fmt.Sprintf("%.0f MiB", q.Peak), Pass: q.Peak <= 512},
			Target{What: fmt.Sprintf("restart with %d queued events, ready", q.Events), Want: "at most 5 s", Got: q.Ready, Shown: fmt.Sprintf("%.2f s", q.Ready), Pass: q.Ready <= 5},
			Target{What: fmt.Sprintf("restart with %d queued events, end of the first handler", q.Events), Want: "at most 5 s", Got: q.First, Shown: fmt.Sprintf("%.2f s", q.First), Pass: q.First <= 5})
	}
}

func (r *report) printEvents(w io.Writer, markdown bool) {
	repeats := 0
	for _, f := range r.Figures {
		repeats = max(repeats, len(f.Values))
	}
	fmt.Fprintf(w, "\n%s, %s; events of about 256 bytes; median of %d repeats (spread); other programs took %.0f %% of the processors meanwhile\n\n", r.Date, r.Machine, repeats, r.Others*100)
	rows := [][]string{{"contender", "publish to handler, p50", "p99", "publishes, 8 callers", "256 callers", "CPU each", "to handlers, singly", "CPU each", "in tens", "CPU each"}}
	for _, c := range eventContenders() {
		if why := r.NotRun[c.name]; why != "" {
			rows = append(rows, []string{c.what, "not run: " + why})
			continue
		}
		row := []string{c.what}
		for _, figure := range []string{figLatency, figWorst, figEight, figMost, figMostCPU, figSingle, figSingleCPU, figTens, figTensCPU} {
			row = append(row, r.figure(c.name, figure).text())
		}
		rows = append(rows, row)
	}
	table(w, markdown, rows)
	if q := r.Queue; q != nil {
		rows := [][]string{{"queued events", "published", "peak of memory (with a tenth)", "on disk", "restart to ready", "to the end of the first handler", "memory then"}}
		if q.NotRun != "" {
			rows = append(rows, []string{fmt.Sprint(q.Events), "not run: " + q.NotRun})
		} else {
			rows = append(rows, []string{fmt.Sprint(q.Events), fmt.Sprintf("%.0f/s", q.Rate), fmt.Sprintf("%.0f MiB (%.0f)", q.Peak, q.Tenth), fmt.Sprintf("%d MiB", q.LogBytes>>20),
				fmt.Sprintf("%.2f s", q.Ready), fmt.Sprintf("%.2f s", q.First), fmt.Sprintf("%.0f MiB", q.Restart)})
		}
		table(w, markdown, rows)
	}
	r.printTargets(w, markdown)
}
