package main

import (
	"fmt"
	"io"
)

// concludeAWS compares with the targets.
func (r *report) concludeAWS() {
	median := func(contender, figure string) (float64, bool) {
		v := r.figure(contender, figure).Values
		return stats(v).mid, len(v) > 0 && r.NotRun[contender] == ""
	}
	add := func(what, want, shown string, got float64, pass bool) {
		r.Targets = append(r.Targets, Target{What: what, Want: want, Got: got, Shown: shown, Pass: pass})
	}
	for _, t := range []struct {
		what, figure string
		want         float64
		most         bool
	}{
		{"DynamoDB PutItem, durable, 32 callers", figPutItem, 4000, false},
		{"DynamoDB GetItem, p50", figGetItem, 0.4e-3, true},
		{"S3, put of 1 MB, 8 callers", figPutBytes, 300, false},
		{"S3, get of 1 MB, 8 callers", figGetBytes, 300, false},
		{"SQS send, receive and delete, durable, 16 callers", figMessage, 1500, false},
	} {
		got, ok := median(ebbServed, t.figure)
		if !ok {
			continue
		}
		bound, pass := "at least ", got >= t.want
		if t.most {
			bound, pass = "at most ", got <= t.want
		}
		add(t.what, bound+figureText(t.figure, t.want), figureText(t.figure, got), got, pass)
	}
	for _, p := range awsPeers()[1:] {
		for _, figure := range []string{figPutItem, figPutBytes, figMessage} {
			ebb, one := median(ebbServed, figure)
			peer, two := median(p.name, figure)
			if !one || !two || p.name != "moto" && p.name != "dynalite" { // the others show what durability costs
				continue
			}
			add(fmt.Sprintf("%s: ebb beside %s", figure, p.name), "at least 5 times", fmt.Sprintf("%.1f times", ebb/peer), ebb/peer, ebb >= 5*peer)
		}
	}
	l := r.Large
	if l == nil || l.NotRun != "" {
		return
	}
	if l.Items > 0 {
		add(fmt.Sprintf("DynamoDB Query of 20 of %d items, p50", l.Items), "at most 0.80 ms", figureText(figQuery, l.Query), l.Query, l.Query <= 0.8e-3)
	}
	if l.Bytes > 0 {
		add(fmt.Sprintf("S3, peak of memory with an object of %d MiB", l.Bytes>>20), "below 100 MB", fmt.Sprintf("%.0f MiB", l.Peak), l.Peak, l.Peak*(1<<20) < 100e6)
	}
}

func (r *report) printAWS(w io.Writer, markdown bool) {
	repeats := 0
	for _, f := range r.Figures {
		repeats = max(repeats, len(f.Values))
	}
	fmt.Fprintf(w, "\n%s, %s; median of %d repeats (spread); other programs took %.0f %% of the processors meanwhile\n\n", r.Date, r.Machine, repeats, r.Others*100)
	figures := []string{figPutItem, figGetItem, figQuery, figPutBytes, figGetBytes, figMessage}
	rows := [][]string{{"contender", "PutItem, 32 callers", "GetItem, p50", "Query of 20, p50", "put of 1 MB, 8 callers", "get", "send, receive, delete, 16 callers"}}
	for _, p := range awsPeers() {
		if why := r.NotRun[p.name]; why != "" {
			rows = append(rows, []string{p.what, "not run: " + why})
			continue
		}
		row := []string{p.what}
		for _, figure := range figures {
			row = append(row, r.figure(p.name, figure).text())
		}
		rows = append(rows, row)
	}
	table(w, markdown, rows)
	ratios := [][]string{append([]string{"ebb as a multiple of"}, rows[0][1:]...)}
	for _, p := range awsPeers()[1:] {
		if r.NotRun[p.name] != "" || r.NotRun[ebbServed] != "" {
			continue
		}
		row := []string{p.name}
		for _, figure := range figures {
			row = append(row, ratio(r.figure(ebbServed, figure).Values, r.figure(p.name, figure).Values, figure == figGetItem || figure == figQuery))
		}
		ratios = append(ratios, row)
	}
	if len(ratios) > 1 {
		table(w, markdown, ratios)
	}
	if l := r.Large; l != nil {
		rows := [][]string{{"much", "written", "read", "peak of memory"}}
		switch {
		case l.NotRun != "":
			rows = append(rows, []string{"ebb", "not run: " + l.NotRun})
		default:
			if l.Items > 0 {
				rows = append(rows, []string{fmt.Sprintf("table of %d items", l.Items), fmt.Sprintf("%.0f/s", l.Loaded), "20 in " + figureText(figQuery, l.Query), ""})
			}
			if l.Bytes > 0 {
				rows = append(rows, []string{fmt.Sprintf("object of %d MiB", l.Bytes>>20), fmt.Sprintf("%.0f MB/s", l.Put), fmt.Sprintf("%.0f MB/s", l.Get), fmt.Sprintf("%.0f MiB", l.Peak)})
			}
		}
		table(w, markdown, rows)
	}
	r.printTargets(w, markdown)
}

// ratio is how many times as fast the first is, repeat by repeat.
func ratio(ours, theirs []float64, latency bool) string {
	n := min(len(ours), len(theirs))
	if n == 0 {
		return ""
	}
	var all []float64
	for i := range n {
		x := ours[i] / theirs[i]
		if latency {
			x = 1 / x
		}
		all = append(all, x)
	}
	s := stats(all)
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.mid, s.lo, s.hi)
}
