package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// report is everything that was measured.
type report struct {
	Date    string            `json:"date"`
	Machine string            `json:"machine"`
	Took    float64           `json:"tookSeconds"`
	Others  float64           `json:"others"` // share of the processors that others took while rates were measured
	Guests  int               `json:"floorGuests"`
	Samples []Sample          `json:"samples"`
	NotRun  map[string]string `json:"notRun,omitempty"`
	Deploy  []Deploy          `json:"deploy,omitempty"`
	Up      Up                `json:"up"`
	Idle    []Idle            `json:"idle,omitempty"`
	Starts  int               `json:"starts,omitempty"`
	Cold    []*Cold           `json:"cold,omitempty"`
	Density []Density         `json:"density,omitempty"`
	Figures []*Figure         `json:"figures,omitempty"`
	Large   *AWSLarge         `json:"large,omitempty"`
	Queue   *EventQueue       `json:"queue,omitempty"`
	Targets []Target          `json:"targets"`

	rows [][]string
}

// Target is a figure to reach.
type Target struct {
	What  string  `json:"what"`
	Want  string  `json:"want"`
	Got   float64 `json:"got"`
	Shown string  `json:"shown"`
	Pass  bool    `json:"pass"`
}

// of collects a figure over a contender's repeats.
func (r *report) of(name string, f func(Sample) float64) []float64 {
	var v []float64
	for _, s := range r.Samples {
		if s.Contender == name {
			v = append(v, f(s))
		}
	}
	return v
}

// share is a contender's rate over that of bare Go in turns with it.
func share(s Sample) float64 { return s.Many.Rate / s.Base.Many.Rate }

// ofFloor is a contender's rate over that of its floor in turns with it; without any repeats where the floor did not run.
func (r *report) ofFloor(name string) []float64 {
	v := r.of(name, func(s Sample) float64 {
		if s.Floor.Rate == 0 {
			return 0
		}
		return s.Many.Rate / s.Floor.Rate
	})
	return slices.DeleteFunc(v, func(x float64) bool { return x == 0 })
}

// ratio compares two contenders, repeat by repeat. With bare Go it is the contender's own share.
func (r *report) ratio(name, other string) stat {
	if other == "bare" {
		return stats(r.of(name, share))
	}
	var v []float64
	for _, a := range r.Samples {
		for _, b := range r.Samples {
			if a.Contender == name && b.Contender == other && a.Repeat == b.Repeat {
				v = append(v, share(a)/share(b))
			}
		}
	}
	return stats(v)
}

// added is a latency over that of bare Go right after, in seconds.
func (r *report) added(name string, f func(own Sample, base Base) float64) stat {
	return stats(r.of(name, func(s Sample) float64 { return f(s, s.Base) }))
}

var header = []string{"contender", "req/s at 16", "of bare Go (spread)", "of floor", "CPU µs host + guests", "p50/p99 at 1, µs", "p50/p99 at 16, µs", "p50/p99 open 80 %, µs", "start to first 200", "cold request"}

// conclude makes the table's rows and judges the targets.
func (r *report) conclude(b *bench) {
	r.NotRun, r.Guests = b.absent, b.o.guests
	for _, c := range contenders() {
		if c.name != "bare" && !b.wanted(c.name) {
			continue
		}
		if why := b.absent[c.name]; why != "" {
			r.rows = append(r.rows, []string{c.what, "not run: " + strings.Join(strings.Fields(why), " ")})
			continue
		}
		r.rows = append(r.rows, r.row(c))
	}
	r.judge(b)
}

func (r *report) row(c contender) []string {
	rate := stats(r.of(c.name, func(s Sample) float64 { return s.Many.Rate }))
	row := []string{c.what, fmt.Sprintf("%.0f", rate.mid)}
	if c.name == "bare" {
		row = append(row, "1", "")
	} else {
		x := r.ratio(c.name, "bare")
		row = append(row, fmt.Sprintf("%.3f (%.3f-%.3f)", x.mid, x.lo, x.hi))
		if y := stats(r.ofFloor(c.name)); y.mid > 0 {
			row = append(row, fmt.Sprintf("%.2f (%.2f-%.2f)", y.mid, y.lo, y.hi))
		} else {
			row = append(row, "")
		}
	}
	host, guests := stats(r.of(c.name, func(s Sample) float64 { return s.HostCPU })), stats(r.of(c.name, func(s Sample) float64 { return s.GuestCPU }))
	row = append(row, fmt.Sprintf("%.0f + %.0f", host.mid*1e6, guests.mid*1e6))
	for _, pick := range []func(Sample) (own, base Load){
		func(s Sample) (Load, Load) { return s.One, s.Base.One },
		func(s Sample) (Load, Load) { return s.Many, s.Base.Many },
		func(s Sample) (Load, Load) { return s.Open, s.Base.Open },
	} {
		sign := "%+.0f / %+.0f"
		if c.name == "bare" {
			sign = "%.0f / %.0f"
		}
		over := func(f func(Load) float64) float64 {
			return stats(r.of(c.name, func(s Sample) float64 {
				own, base := pick(s)
				if c.name == "bare" {
					return f(own)
				}
				return f(own) - f(base)
			})).mid * 1e6
		}
		row = append(row, fmt.Sprintf(sign, over(func(l Load) float64 { return l.P50 }), over(func(l Load) float64 { return l.P99 })))
	}
	row = append(row, seconds(stats(r.of(c.name, func(s Sample) float64 { return s.First }))))
	if cold := stats(r.of(c.name, func(s Sample) float64 { return s.Cold })); cold.mid > 0 {
		return append(row, seconds(cold))
	}
	return append(row, "")
}

func seconds(s stat) string { return fmt.Sprintf("%.0f ms (%.0f-%.0f)", s.mid*1e3, s.lo*1e3, s.hi*1e3) }

// judge compares what was measured with the targets.
func (r *report) judge(b *bench) {
	has := func(names ...string) bool {
		for _, n := range names {
			if len(r.of(n, func(s Sample) float64 { return 1 })) == 0 || b.absent[n] != "" {
				return false
			}
		}
		return true
	}
	atLeast := func(what string, want, got float64) {
		r.Targets = append(r.Targets, Target{what, fmt.Sprintf("at least %.2f", want), got, fmt.Sprintf("%.3f", got), got >= want})
	}
	atMost := func(what, unit string, want, got float64) {
		r.Targets = append(r.Targets, Target{what, fmt.Sprintf("at most %g %s", want, unit), got, fmt.Sprintf("%.1f %s", got, unit), got <= want})
	}
	ahead := func(what string, got float64) {
		r.Targets = append(r.Targets, Target{what, "more than 1", got, fmt.Sprintf("%.2f times", got), got > 1})
	}
	for _, x := range []struct {
		name, what string
		bare       float64
		p50        float64
	}{{"ebb-node", "Node", 0.20, 300}, {"ebb-go", "Go", 0.08, 500}} {
		if !has(x.name) {
			continue
		}
		atLeast(x.what+": rate at 16 connections, of bare Go", x.bare, r.ratio(x.name, "bare").mid)
		if v := r.ofFloor(x.name); len(v) > 0 {
			atLeast(x.what+": rate at 16 connections, of the floor", 0.85, stats(v).mid)
		}
		atMost(x.what+": added p50 at one connection", "µs", x.p50, r.added(x.name, func(s Sample, base Base) float64 { return s.One.P50 - base.One.P50 }).mid*1e6)
	}
	for _, peer := range []string{"functions-framework", "serverless-offline"} {
		if has("ebb-node", peer) {
			ahead("Node: rate at 16 connections, of "+peer, r.ratio("ebb-node", peer).mid)
		}
	}
	if len(r.Up.Fresh) > 0 {
		atMost("ebb up ready, empty data directory", "s", 1, stats(r.Up.Fresh).mid)
	}
	if len(r.Idle) == 3 {
		none, crowded, restarted := r.Idle[0], r.Idle[1], r.Idle[2]
		atMost(fmt.Sprintf("%d idle functions add, just deployed", crowd), "MB", 8, (crowded.PSS-none.PSS)*1.048576)
		atMost(fmt.Sprintf("%d idle functions add, after a restart", crowd), "MB", 8, (restarted.PSS-none.PSS)*1.048576)
		// A connection of the control API that is closing may still count.
		atMost(fmt.Sprintf("%d idle functions add", crowd), "goroutines", 4, float64(max(crowded.Goroutines, restarted.Goroutines)-none.Goroutines))
		atMost(fmt.Sprintf("%d idle functions add", crowd), "processes", 0, float64(max(crowded.Processes, restarted.Processes)-none.Processes))
	}
}

// print writes the tables for people.
func (r *report) print(w io.Writer, markdown bool) {
	fmt.Fprintf(w, "\n%s, %s; median of %d repeats (spread); the floor has %d guests;\nlatencies of bare Go absolute, the others' added to it; other programs took %.0f %% of the processors meanwhile\n\n",
		r.Date, r.Machine, len(r.of("bare", func(Sample) float64 { return 1 })), r.Guests, r.Others*100)
	table(w, markdown, append([][]string{header}, r.rows...))
	if len(r.Deploy) > 0 {
		rows := [][]string{{"deploy to first 200", "new app", "changed app"}}
		for _, d := range r.Deploy {
			again := ""
			if d.Again > 0 {
				again = fmt.Sprintf("%.0f ms", d.Again*1e3)
			}
			rows = append(rows, []string{d.Kind, fmt.Sprintf("%.0f ms", d.First*1e3), again})
		}
		table(w, markdown, rows)
	}
	if len(r.Up.Fresh) > 0 {
		table(w, markdown, [][]string{{"ebb up until ready, Node", "median (spread)"},
			{"empty data directory", seconds(stats(r.Up.Fresh))}, {"second run", seconds(stats(r.Up.Again))}})
	}
	if len(r.Idle) > 0 {
		rows := [][]string{{"idle ebb serve", "PSS", "RSS", "goroutines", "processes below"}}
		for _, i := range r.Idle {
			rows = append(rows, []string{i.What, fmt.Sprintf("%.1f MiB", i.PSS), fmt.Sprintf("%.1f MiB", i.RSS), fmt.Sprint(i.Goroutines), fmt.Sprint(i.Processes)})
		}
		table(w, markdown, rows)
	}
	r.printTargets(w, markdown)
}

func (r *report) printTargets(w io.Writer, markdown bool) {
	rows := [][]string{{"target", "want", "got", ""}}
	for _, t := range r.Targets {
		verdict := "MISS"
		if t.Pass {
			verdict = "PASS"
		}
		rows = append(rows, []string{t.What, t.Want, t.Shown, verdict})
	}
	table(w, markdown, rows)
	fmt.Fprintf(w, "took %.0f s\n", r.Took)
}

// table aligns rows, the first of which is the head.
func table(w io.Writer, markdown bool, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			if len(row) == len(rows[0]) { // a shorter row is a remark
				width[i] = max(width[i], utf8.RuneCountInString(cell))
			}
		}
	}
	for n, row := range rows {
		cells := make([]string, len(rows[0]))
		for i := range cells {
			if i < len(row) {
				cells[i] = row[i]
			}
			cells[i] += strings.Repeat(" ", max(0, width[i]-utf8.RuneCountInString(cells[i])))
		}
		line := strings.Join(cells, "  ")
		if markdown {
			line = "| " + strings.Join(cells, " | ") + " |"
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
		if n == 0 && markdown {
			fmt.Fprintln(w, "|"+strings.Repeat(" --- |", len(cells)))
		}
	}
	fmt.Fprintln(w)
}

// save writes the report as JSON.
func (r *report) save(name string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
