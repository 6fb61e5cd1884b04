package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

// The trace has the shape that the paper gives.
func TestDraw_HasThePublishedShape(t *testing.T) {
	t.Parallel()
	apps := draw(20_000, 3)
	share := func(f func(app) bool) float64 {
		n := 0
		for _, a := range apps {
			if f(a) {
				n++
			}
		}
		return float64(n) / float64(len(apps))
	}
	for _, c := range []struct {
		name string
		got  float64
		want float64
	}{
		{"once an hour or less", share(func(a app) bool { return a.mean >= 3600 }), 0.45},
		{"once a minute or less", share(func(a app) bool { return a.mean >= 60 }), 0.81},
		{"on one timer", share(func(a app) bool { return a.cv == 0 }), 0.20},
		{"more variable than chance", share(func(a app) bool { return a.cv > 1 }), 0.40},
		{"run under a second", share(func(a app) bool { return a.run < time.Second }), 0.56},
		{"at most 170 MB", share(func(a app) bool { return a.memory <= 170 }), 0.70},
	} {
		if math.Abs(c.got-c.want) > 0.02 {
			t.Errorf("%s: %.3f of the apps, want %.2f", c.name, c.got, c.want)
		}
	}
}

func TestReplay_KnowsWhatIsWarm(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	half := app{seed: 1, mean: 1800, run: time.Second, memory: 1024}
	for _, c := range []struct {
		name   string
		app    app
		policy policy
		cold   int
		idle   time.Duration
	}{
		{"fixed, too short", half, policy{keep: 10 * time.Minute}, 48, 8 * time.Hour},
		{"fixed, long enough", half, policy{keep: time.Hour}, 1, day},
		{"learned", half, policy{learned: true, keep: 10 * time.Minute}, 11, 4 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := replay(c.app, c.policy, day)
			if got.calls != 48 || got.cold != c.cold || (got.idle-c.idle).Abs() > 40*time.Minute {
				t.Errorf("%+v, want %d cold and %v", got, c.cold, c.idle)
			}
		})
	}
}

func TestRun_IsTheSameForTheSameSeed(t *testing.T) {
	t.Parallel()
	p := policies()
	a, b := run(draw(50, 9), p[len(p)-1], 24*time.Hour), run(draw(50, 9), p[len(p)-1], 24*time.Hour)
	if a != b || !slices.Contains(p, a.policy) {
		t.Errorf("%+v and %+v", a, b)
	}
}
