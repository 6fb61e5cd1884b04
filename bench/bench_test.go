package main

import (
	"io"
	"strings"
	"testing"
)

func TestParse_RefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args string
		want string // in the error; empty for none
	}{
		"nothing":           {"", ""},
		"contenders":        {"-only bare,ebb-go", ""},
		"another contender": {"-only nobody", `no contender "nobody"`},
		"an argument":       {"quick", `unexpected argument "quick"`},
		"no repeats":        {"-repeats 0", "at least 1"},
		"too short":         {"-duration 1ms", "at least 50ms"},
		"two parts":         {"-cold -events", "one of"},
		"odd numbers":       {"-events -queued 1500", "thousands"},
		"brokers":           {"-events -only ebb,redis", ""},
		"another broker":    {"-events -only bare", `no contender "bare"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(strings.Fields(row.args), io.Discard)
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

func sample(name string, repeat int, rate, base float64) Sample {
	return Sample{Contender: name, Repeat: repeat, One: Load{P50: 1.1e-4}, Many: Load{Rate: rate},
		Base: Base{One: Load{P50: 1e-5}, Many: Load{Rate: base}}}
}

func TestReport_ComparesWithinRepeats(t *testing.T) {
	t.Parallel()
	// The machine is three times as fast in the second repeat; the ratio is the same in both.
	r := &report{Samples: []Sample{
		sample("bare", 0, 100, 100), sample("ebb-node", 0, 30, 100), sample("floor-node", 0, 60, 200),
		sample("floor-node", 1, 90, 300), sample("ebb-node", 1, 90, 300), sample("bare", 1, 300, 300),
	}}
	if s := r.ratio("ebb-node", "bare"); s.lo < 0.299 || s.hi > 0.301 {
		t.Errorf("ratio %+v, want 0.3 in both repeats", s)
	}
	r.Samples[1].Floor, r.Samples[4].Floor = Load{Rate: 30}, Load{Rate: 90}
	if s := stats(r.ofFloor("ebb-node")); s.lo < 0.99 || s.hi > 1.01 {
		t.Errorf("ratio to the floor %+v, want 1 in both repeats", s)
	}
	if v := r.ofFloor("floor-node"); len(v) > 0 {
		t.Errorf("ratio %v to a floor that did not run", v)
	}
	b := &bench{absent: map[string]string{}, o: options{only: []string{"ebb-node"}}}
	r.conclude(b)
	verdicts := map[string]bool{}
	for _, x := range r.Targets {
		verdicts[x.What] = x.Pass
	}
	if !verdicts["Node: rate at 16 connections, of bare Go"] || !verdicts["Node: added p50 at one connection"] {
		t.Errorf("targets %+v, want both of Node's reached", r.Targets)
	}
}

func TestReport_PrintsNoFiguresOfWhatDidNotRun(t *testing.T) {
	t.Parallel()
	r := &report{Samples: []Sample{sample("bare", 0, 100, 100), sample("ebb-node", 0, 30, 100)}}
	r.conclude(&bench{absent: map[string]string{"ebb-node": "an answer was wrong"}, o: options{only: []string{"ebb-node"}}})
	var out strings.Builder
	r.print(&out, false)
	if !strings.Contains(out.String(), "not run: an answer was wrong") || strings.Contains(out.String(), "0.300") || len(r.Targets) > 0 {
		t.Errorf("printed:\n%s", out.String())
	}
}

func TestStats_GiveMedianAndSpread(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		in   []float64
		want stat
	}{
		"none": {nil, stat{}}, "one": {[]float64{2}, stat{2, 2, 2}}, "odd": {[]float64{3, 1, 2}, stat{2, 1, 3}}, "even": {[]float64{4, 1, 2, 3}, stat{2.5, 1, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := stats(row.in); got != row.want {
				t.Errorf("%+v, want %+v", got, row.want)
			}
		})
	}
}
