package engine

import (
	"math"
	"slices"
	"time"
)

// The hybrid histogram policy of Shahrad et al., "Serverless in the Wild: Characterizing and Optimizing the Serverless
// Workload at a Large Cloud Provider", USENIX ATC 2020, section 4.2. Differences:
//
//   - Until leastIdleTimes are known the standard keep-alive holds; the paper leaves open how many are too few.
//   - The standard keep-alive is the operator's own, where the paper's is the histogram's range of four hours.
//   - Idle times beyond the range are forecast as the median of the last few, where these lie close together, instead of
//     by ARIMA: a fit of that costs milliseconds and a library, for under one per cent of the paper's invocations.
//   - An Instance to be stopped at once stays for linger, as retries and people come again soon.
//   - Counts are halved when one is full, so that what was long ago weighs less; the paper's production policy keeps a
//     histogram per day.
//   - A deploy keeps what was learned; a restart of ebb does not.
const (
	bucket      = time.Minute
	buckets     = 240  // four hours
	headAt      = 0.05 // the share of idle times that may be shorter than the pre-warm window
	tailAt      = 0.99 // the share that the keep-alive window covers
	margin      = 0.10
	leastSpread = 2.0 // coefficient of variation of the counts below which the histogram says nothing
	mostOut     = 0.5 // share of idle times out of bounds above which the histogram is not asked
	farMargin   = 0.15
	farTimes    = 8
	leastFar    = 4
	farUnit     = time.Minute
	linger      = 10 * time.Second
	fullCount   = math.MaxUint16

	leastIdleTimes = 10
)

// Basis says what Windows rest on.
type Basis uint8

// The bases.
const (
	Standard  Basis = iota // nothing is known, or what is known says nothing
	Histogram              // idle times fall where others did
	Forecast               // they are longer than the histogram's range, and alike
)

// String names the basis.
func (b Basis) String() string {
	return [...]string{"standard", "histogram", "forecast"}[min(b, Forecast)]
}

// Windows say when an Instance is worth its memory. Both count from when the Unit's last Invocation ended.
type Windows struct {
	Prewarm time.Duration // until then none is; 0 means that Instances are kept from the start
	Keep    time.Duration // and from then on none is
	Basis   Basis
}

// Linger is how long an Instance is kept that has run and is idle.
func (w Windows) Linger() time.Duration {
	if w.Prewarm > 0 {
		return min(linger, w.Prewarm)
	}
	return w.Keep
}

// Ahead is how long an Instance is kept that was started when Prewarm was over.
func (w Windows) Ahead() time.Duration { return w.Keep - w.Prewarm }

// IdleTimes are how long a Unit ran nothing between two Invocations, as a histogram of 512 bytes. The zero value knows none.
// It is not safe for concurrent use.
type IdleTimes struct {
	counts [buckets]uint16
	far    [farTimes]uint16 // the last idle times out of bounds, in farUnit; a ring
	fars   uint32           // how many there were
	known  uint32           // the sum of counts
	out    uint32           // idle times out of bounds, halved with counts
	square uint64           // the sum of the squares of counts
}

// Note adds an idle time.
func (t *IdleTimes) Note(idle time.Duration) {
	k := max(idle, 0) / bucket
	if k >= buckets {
		t.far[t.fars%farTimes] = uint16(min(idle/farUnit, math.MaxUint16))
		t.fars++
		if t.out++; t.out >= fullCount {
			t.age()
		}
		return
	}
	c := t.counts[k]
	t.counts[k]++
	t.known++
	t.square += 2*uint64(c) + 1
	if t.counts[k] == fullCount {
		t.age()
	}
}

func (t *IdleTimes) age() {
	t.known, t.square = 0, 0
	for k := range t.counts {
		c := t.counts[k] / 2
		t.counts[k] = c
		t.known += uint32(c)
		t.square += uint64(c) * uint64(c)
	}
	t.out /= 2
}

// Windows gives what follows from the idle times; standard is the keep-alive where nothing does.
func (t *IdleTimes) Windows(standard time.Duration) Windows {
	w := Windows{Keep: standard}
	all := t.known + t.out
	switch {
	case float64(t.out) > mostOut*float64(all):
		return t.forecast(w)
	case t.known < leastIdleTimes || t.spread() < leastSpread:
		return w
	}
	head := time.Duration(t.percentile(headAt)) * bucket   // the bucket's begin
	tail := time.Duration(t.percentile(tailAt)+1) * bucket // the bucket's end
	return Windows{
		Prewarm: time.Duration(float64(head) * (1 - margin)),
		Keep:    time.Duration(float64(tail) * (1 + margin)),
		Basis:   Histogram,
	}
}

// spread is the coefficient of variation of the counts: high where idle times are alike, low where they are anything.
func (t *IdleTimes) spread() float64 {
	mean := float64(t.known) / buckets
	variance := float64(t.square)/buckets - mean*mean
	return math.Sqrt(max(variance, 0)) / mean
}

// percentile is the bucket in which the share q of the idle times is reached.
func (t *IdleTimes) percentile(q float64) int {
	need := uint32(math.Ceil(q * float64(t.known)))
	var sum uint32
	for k, c := range t.counts {
		if sum += uint32(c); sum >= max(need, 1) {
			return k
		}
	}
	return buckets - 1
}

// forecast expects the next idle time to be like the last ones out of bounds, where these are alike.
func (t *IdleTimes) forecast(w Windows) Windows {
	n := min(t.fars, farTimes)
	if n < leastFar {
		return w
	}
	last := t.far // a copy
	sorted := last[:n]
	slices.Sort(sorted)
	middle := float64(sorted[n/2])
	if float64(sorted[0]) < middle*(1-farMargin) || float64(sorted[n-1]) > middle*(1+farMargin) {
		return w
	}
	expected := time.Duration(middle) * farUnit
	return Windows{
		Prewarm: time.Duration(float64(expected) * (1 - farMargin)),
		Keep:    time.Duration(float64(expected+farUnit) * (1 + farMargin)),
		Basis:   Forecast,
	}
}
