package engine_test

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/ebb-run/ebb/internal/engine"
)

func TestIdleTimes_Windows(t *testing.T) {
	t.Parallel()
	const standard = 5 * time.Minute
	every := func(n int, d ...time.Duration) (out []time.Duration) {
		for range n {
			out = append(out, d...)
		}
		return out
	}
	var anything []time.Duration
	for k := range 480 {
		anything = append(anything, time.Duration(k%240)*time.Minute)
	}
	for _, c := range []struct {
		name string
		idle []time.Duration
		want engine.Windows
	}{
		{"nothing known", nil, engine.Windows{Keep: standard}},
		{"too little known", every(9, 30*time.Minute), engine.Windows{Keep: standard}},
		{"every 30 minutes", every(10, 30*time.Minute), engine.Windows{Prewarm: 27 * time.Minute, Keep: 34*time.Minute + 6*time.Second, Basis: engine.Histogram}},
		{"all the time", every(1000, time.Second), engine.Windows{Keep: 66 * time.Second, Basis: engine.Histogram}},
		{"short, now and then long: the tail covers it", append(every(97, time.Second), every(3, 59*time.Minute)...),
			engine.Windows{Keep: 66 * time.Minute, Basis: engine.Histogram}},
		{"under a hundredth is not covered", append(every(999, time.Second), 59*time.Minute), engine.Windows{Keep: 66 * time.Second, Basis: engine.Histogram}},
		{"anything says nothing", anything, engine.Windows{Keep: standard}},
		{"the last bucket", every(20, 239*time.Minute+59*time.Second),
			engine.Windows{Prewarm: time.Duration(0.9 * float64(239*time.Minute)), Keep: 264 * time.Minute, Basis: engine.Histogram}},
		{"a few out of bounds do not count", append(every(20, 30*time.Minute), every(20, 9*time.Hour)...),
			engine.Windows{Prewarm: 27 * time.Minute, Keep: 34*time.Minute + 6*time.Second, Basis: engine.Histogram}},
		{"mostly out of bounds, alike", every(4, 5*time.Hour), engine.Windows{Prewarm: 255 * time.Minute, Keep: time.Duration(1.15 * float64(301*time.Minute)), Basis: engine.Forecast}},
		{"mostly out of bounds, too few", every(3, 5*time.Hour), engine.Windows{Keep: standard}},
		{"mostly out of bounds, unlike", every(4, 5*time.Hour, 9*time.Hour), engine.Windows{Keep: standard}},
		{"only the last ones out of bounds are asked", append(every(8, 20*time.Hour), every(8, 6*time.Hour)...),
			engine.Windows{Prewarm: 306 * time.Minute, Keep: time.Duration(1.15 * float64(361*time.Minute)), Basis: engine.Forecast}},
		{"a clock that went back", every(10, -time.Hour), engine.Windows{Keep: 66 * time.Second, Basis: engine.Histogram}},
		{"years", every(4, 10*365*24*time.Hour), engine.Windows{Prewarm: time.Duration(0.85 * float64(65535*time.Minute)), Keep: time.Duration(1.15 * float64(65536*time.Minute)), Basis: engine.Forecast}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var it engine.IdleTimes
			for _, d := range c.idle {
				it.Note(d)
			}
			if got := it.Windows(standard); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestIdleTimes_FollowAChangeAndNeverOverflow(t *testing.T) {
	t.Parallel()
	var it engine.IdleTimes
	for range 200_000 {
		it.Note(90 * time.Minute)
	}
	for range 200_000 * 99 {
		it.Note(time.Second)
	}
	if got := it.Windows(time.Minute); got.Keep != 66*time.Second || got.Prewarm != 0 {
		t.Errorf("%+v: what was long ago still holds", got)
	}
	for range 1 << 20 {
		it.Note(5 * time.Hour)
	}
	if got := it.Windows(time.Minute); got.Basis != engine.Forecast {
		t.Errorf("%+v after a change to beyond the range", got)
	}
}

func TestIdleTimes_CostLittle(t *testing.T) { // not parallel: it counts allocations
	if n := unsafe.Sizeof(engine.IdleTimes{}); n > 576 {
		t.Errorf("%d bytes", n)
	}
	it := &engine.IdleTimes{}
	if n := testing.AllocsPerRun(1000, func() { it.Note(time.Hour); _ = it.Windows(time.Minute) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever is noted, the windows make sense.
func FuzzIdleTimes(f *testing.F) {
	f.Add(uint64(1), uint16(30), int64(time.Hour))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, most int64) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var it engine.IdleTimes
		for range n {
			it.Note(time.Duration(rnd.Int64N(max(most, 1))))
		}
		w := it.Windows(time.Minute)
		if w.Prewarm < 0 || w.Keep <= w.Prewarm || w.Linger() <= 0 || w.Ahead() <= 0 || w.Linger() > w.Keep {
			t.Errorf("%+v", w)
		}
	})
}
