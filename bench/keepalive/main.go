// Command keepalive replays a trace against ebb's keep-alive policies and prints cold starts against memory kept for nothing.
//
// The trace is generated from published distributions (trace.go says which); time is simulated, and what decides is the engine's own
// policy code. As in the paper's own simulation, an app is one Instance: an Invocation that comes while one runs is warm.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
)

// policy is a keep-alive policy.
type policy struct {
	name    string
	learned bool
	keep    time.Duration // fixed, or where nothing is learned
}

func policies() []policy {
	var list []policy
	for _, m := range []int{5, 10, 20, 60} {
		list = append(list, policy{fmt.Sprintf("fixed %d min", m), false, time.Duration(m) * time.Minute})
	}
	for _, m := range []int{5, 10, 20, 60, 240} {
		list = append(list, policy{fmt.Sprintf("learned, else %d min", m), true, time.Duration(m) * time.Minute})
	}
	return list
}

// tally is what became of one app.
type tally struct {
	calls, cold, ahead int
	idle               time.Duration // that an Instance was kept without work
}

func replay(a app, p policy, within time.Duration) tally {
	var t tally
	var known engine.IdleTimes
	end := time.Duration(-1) // of the last Invocation
	rest := func(idle time.Duration) (warm bool) {
		w := engine.Windows{Keep: p.keep}
		if p.learned {
			w = known.Windows(p.keep)
		}
		t.idle += min(idle, w.Linger())
		warm = idle < w.Linger()
		if w.Prewarm > 0 && idle >= w.Prewarm {
			t.ahead++
			t.idle += min(idle-w.Prewarm, w.Ahead())
			warm = warm || idle < w.Prewarm+w.Ahead()
		}
		return warm
	}
	a.arrivals(within, func(at time.Duration) {
		t.calls++
		switch {
		case end < 0:
			t.cold++
		case at >= end:
			if !rest(at - end) {
				t.cold++
			}
			known.Note(at - end)
		}
		end = max(end, at+a.run)
	})
	if end >= 0 && end < within {
		rest(within - end)
	}
	return t
}

// result is a line of the table.
type result struct {
	policy
	half, most, all float64 // cold starts in per cent: of the app at the median, at the 75th percentile, of all Invocations
	memory          float64 // GB h kept for nothing
	ahead           float64 // Instances started ahead, of all Invocations
}

func run(apps []app, p policy, within time.Duration) result {
	out := make([]tally, len(apps))
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			for j := k; j < len(apps); j += 4 {
				out[j] = replay(apps[j], p, within)
			}
		})
	}
	wg.Wait()
	r := result{policy: p}
	var shares []float64
	var sum tally
	for k, t := range out {
		r.memory += t.idle.Hours() * apps[k].memory / 1024
		sum.calls, sum.cold, sum.ahead = sum.calls+t.calls, sum.cold+t.cold, sum.ahead+t.ahead
		if t.calls > 0 {
			shares = append(shares, 100*float64(t.cold)/float64(t.calls))
		}
	}
	slices.Sort(shares)
	if len(shares) > 0 {
		r.half, r.most = shares[len(shares)/2], shares[len(shares)*3/4]
		r.all = 100 * float64(sum.cold) / float64(sum.calls)
		r.ahead = 100 * float64(sum.ahead) / float64(sum.calls)
	}
	return r
}

func report(w io.Writer, list []result) {
	k := slices.IndexFunc(list, func(r result) bool { return r.name == "fixed 10 min" })
	base := cmp.Or(list[k].memory, 1)
	fmt.Fprintf(w, "%-22s  %-10s  %-10s  %-10s  %-13s  %s\n", "policy", "cold, p50", "cold, p75", "cold, all", "memory, GB h", "of fixed 10 min")
	for _, r := range list {
		fmt.Fprintf(w, "%-22s  %6.1f %%    %6.1f %%    %6.2f %%    %9.0f      %.2f\n", r.name, r.half, r.most, r.all, r.memory, r.memory/base)
	}
}

func main() {
	n := flag.Int("apps", 4000, "apps of the trace")
	days := flag.Int("days", 14, "days of simulated time")
	seed := flag.Uint64("seed", 1, "of the trace")
	flag.Parse()
	began := time.Now()
	apps := draw(*n, *seed)
	var list []result
	for _, p := range policies() {
		list = append(list, run(apps, p, time.Duration(*days)*24*time.Hour))
	}
	fmt.Printf("%d apps, %d days, seed %d\n\n", *n, *days, *seed)
	report(os.Stdout, list)
	fmt.Printf("\ntook %.0f s\n", time.Since(began).Seconds())
}
