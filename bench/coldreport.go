package main

import (
	"fmt"
	"io"
	"slices"
)

// quantile is a figure of a row, in ms.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return 1e3 * s[min(len(s)-1, int(q*float64(len(s))))]
}

func part(c *Cold, f func(coldParts) float64) string {
	var v []float64
	for _, p := range c.Parts {
		v = append(v, f(p))
	}
	if len(v) == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", quantile(v, 0.5))
}

// has reports whether a handler was to be measured.
func (r *report) has(h handler) bool {
	return slices.ContainsFunc(r.Cold, func(c *Cold) bool { return c.Handler == h.name })
}

// concludeCold compares with the targets.
func (r *report) concludeCold() {
	add := func(what string, got, most float64, unit string) {
		r.Targets = append(r.Targets, Target{What: what, Want: fmt.Sprintf("at most %g %s", most, unit), Got: got, Shown: fmt.Sprintf("%.1f %s", got, unit), Pass: got > 0 && got <= most})
	}
	for _, h := range handlers() {
		if !r.has(h) {
			continue
		}
		own, served := r.coldOf(h.name, wayEbb), r.coldOf(h.name, wayServe)
		p50 := quantile(own.All, 0.5)
		if h.target > 0 {
			add(h.what+": cold start, p50, without pools", p50, h.target, "ms")
		}
		if h.pooled > 0 && h.pooled != h.target {
			add(h.what+": cold start, p50, readied", quantile(r.coldOf(h.name, wayStem).All, 0.5), h.pooled, "ms")
		}
		if stem := r.coldOf(h.name, wayStem); len(stem.All) > 0 {
			p50 = quantile(stem.All, 0.5) // what is served comes from there too
		}
		if over := quantile(served.All, 0.5) - p50; p50 > 0 && len(served.All) > 0 {
			r.Targets = append(r.Targets, Target{What: h.what + ": added end to end, p50", Want: "at most 2 ms", Got: over, Shown: fmt.Sprintf("%.1f ms", over), Pass: over <= 2})
		}
	}
	for _, d := range r.Density {
		if d.Handler == "python" && d.NotRun == "" {
			add(fmt.Sprintf("%d idle Python Instances, frozen: %v", d.Instances, d.Frozen), d.Guests+d.Host, 600, "MiB")
		}
	}
}

func (r *report) printCold(w io.Writer, markdown bool) {
	fmt.Fprintf(w, "\n%s, %s; %d cold starts of each;\nms from the assignment, or the request, to the first byte of the answer; other programs took %.0f %% of the processors meanwhile\n\n",
		r.Date, r.Machine, r.Starts, r.Others*100)
	for _, h := range handlers() {
		if !r.has(h) {
			continue
		}
		rows := [][]string{{h.what, "p50", "p95", "prepare, queue", "sandbox", "runtime init", "handler init", "invoke"}}
		for _, way := range []string{wayBare, wayPlain, wayEbb, wayStem, wayServe, wayBwrap, wayCrun} {
			c := r.coldOf(h.name, way)
			if c.NotRun != "" {
				rows = append(rows, []string{way, "not run: " + c.NotRun})
				continue
			}
			rows = append(rows, []string{way, fmt.Sprintf("%.1f", quantile(c.All, 0.5)), fmt.Sprintf("%.1f", quantile(c.All, 0.95)),
				part(c, func(p coldParts) float64 { return p.Queue }), part(c, func(p coldParts) float64 { return p.Sandbox }),
				part(c, func(p coldParts) float64 { return p.Runtime }), part(c, func(p coldParts) float64 { return p.Handler }),
				part(c, func(p coldParts) float64 { return p.Invoke })})
		}
		table(w, markdown, rows)
	}
	if len(r.Density) > 0 {
		rows := [][]string{{"idle Instances", "guests, PSS", "each", "ebb, more", "together", "machine's memory", "frozen"}}
		for _, d := range r.Density {
			what := fmt.Sprintf("%d %s", d.Instances, d.Handler)
			if d.NotRun != "" {
				rows = append(rows, []string{what, "not run: " + d.NotRun})
				continue
			}
			rows = append(rows, []string{what, fmt.Sprintf("%.0f MiB", d.Guests), fmt.Sprintf("%.2f MiB", d.Guests/float64(d.Instances)),
				fmt.Sprintf("%.0f MiB", d.Host), fmt.Sprintf("%.0f MiB", d.Guests+d.Host), fmt.Sprintf("%.0f MiB", d.Machine), fmt.Sprint(d.Frozen)})
		}
		table(w, markdown, rows)
	}
	r.printTargets(w, markdown)
}
