package main

import (
	"math"
	"math/rand/v2"
	"time"
)

// The trace is drawn from what "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020) publishes of Azure Functions in July 2019.
// Where a figure shows a curve the points named here lie on it, with straight lines between them.

// perDay are points of the distribution of apps over their invocations a day (figure 5a, eight orders of magnitude; section 3.3: 45 %
// of the apps are invoked once an hour or less, 81 % once a minute or less).
var perDay = []struct{ share, log10 float64 }{
	{0, -1}, {0.45, math.Log10(24)}, {0.81, math.Log10(24 * 60)}, {0.99, 6}, {1, 7},
}

// Shares of apps by the coefficient of variation of their inter-arrival times (figure 6, all apps: about a fifth at 0, few near 1,
// some 40 % above 1).
const (
	sharePeriodic = 0.20 // CV 0: one timer
	shareRegular  = 0.32 // CV 0.1 to 0.9: several timers, or people's habits
	sharePoisson  = 0.08 // CV 1
	// the rest is bursty: CV 1.5 to 8
)

// Execution time in seconds: log-normal (figure 7, fit of the average: log mean -0.38, sigma 2.36).
const (
	runMean  = -0.38
	runSigma = 2.36
	runMost  = 10 * time.Minute // Azure's own bound
)

// Memory in MB: Burr XII (figure 8, fit of the average: c 11.652, k 0.221, lambda 107.083).
const (
	memC, memK, memScale = 11.652, 0.221, 107.083
	memMost              = 1536 // Azure's own bound
)

// app is one application of the trace.
type app struct {
	seed   uint64
	mean   float64 // seconds between arrivals
	cv     float64
	run    time.Duration
	memory float64 // MB
}

// mostPerDay cuts the rate: what is called every few seconds is warm under any policy.
const mostPerDay = 5000

func draw(n int, seed uint64) []app {
	rnd := rand.New(rand.NewPCG(seed, 0))
	apps := make([]app, n)
	for k := range apps {
		a := app{seed: rnd.Uint64()}
		a.mean = 86400 / min(rate(rnd.Float64()), mostPerDay)
		switch u := rnd.Float64(); {
		case u < sharePeriodic:
			a.cv = 0
		case u < sharePeriodic+shareRegular:
			a.cv = 0.1 + 0.8*rnd.Float64()
		case u < sharePeriodic+shareRegular+sharePoisson:
			a.cv = 1
		default:
			a.cv = 1.5 + 6.5*rnd.Float64()
		}
		a.run = min(time.Duration(math.Exp(runMean+runSigma*rnd.NormFloat64())*float64(time.Second)), runMost)
		a.memory = min(memScale*math.Pow(math.Pow(1-rnd.Float64(), -1/memK)-1, 1/memC), memMost)
		apps[k] = a
	}
	return apps
}

// rate is the invocations a day below which the share lies.
func rate(share float64) float64 {
	for k := 1; k < len(perDay); k++ {
		if a, b := perDay[k-1], perDay[k]; share <= b.share {
			return math.Pow(10, a.log10+(b.log10-a.log10)*(share-a.share)/(b.share-a.share))
		}
	}
	return math.Pow(10, perDay[len(perDay)-1].log10)
}

// arrivals calls f at each arrival within the time.
func (a app) arrivals(within time.Duration, f func(at time.Duration)) {
	rnd := rand.New(rand.NewPCG(a.seed, 1))
	sigma2 := math.Log(1 + a.cv*a.cv)
	for at := a.mean * rnd.Float64(); at < within.Seconds(); {
		f(time.Duration(at * float64(time.Second)))
		switch a.cv {
		case 0:
			at += a.mean
		case 1:
			at += a.mean * rnd.ExpFloat64()
		default: // log-normal, with the mean and the variation asked for
			at += a.mean * math.Exp(-sigma2/2+math.Sqrt(sigma2)*rnd.NormFloat64())
		}
	}
}
