package cron_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/cron"
)

// wall is a minute of local time.
type wall struct {
	minute, hour, day, month, weekday, year int
	last                                    int // day of the month
}

func wallOf(t time.Time) wall {
	y, m, d := t.Date()
	return wall{t.Minute(), t.Hour(), d, int(m), int(t.Weekday()), y, time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day()}
}

// walked are expressions beside plain tests of the same meaning, which share nothing with how the package works.
var walked = map[string]func(w wall) bool{
	"* * * * *":            func(wall) bool { return true },
	"cron(0/20 * * * ? *)": func(w wall) bool { return w.minute%20 == 0 },
	"30 2 * * *":           func(w wall) bool { return w.minute == 30 && w.hour == 2 },
	"cron(5 0,23 ? * MON-FRI *)": func(w wall) bool {
		return w.minute == 5 && (w.hour == 0 || w.hour == 23) && w.weekday > 0 && w.weekday < 6
	},
	"15 1-3 13 * FRI": func(w wall) bool {
		return w.minute == 15 && w.hour >= 1 && w.hour <= 3 && (w.day == 13 || w.weekday == 5)
	},
	"0 0 */10 2-11/3 1": func(w wall) bool {
		return w.minute == 0 && w.hour == 0 && w.day%10 == 1 && w.month%3 == 2 && w.weekday == 1
	},
	"cron(59 23 L * ? *)": func(w wall) bool { return w.minute == 59 && w.hour == 23 && w.day == w.last },
	"cron(45 1 ? 3,10,11 SUN#1 *)": func(w wall) bool {
		return w.minute == 45 && w.hour == 1 && slices.Contains([]int{3, 10, 11}, w.month) && w.weekday == 0 && w.day <= 7
	},
	"cron(0 0 ? * 1L *)": func(w wall) bool { return w.minute == 0 && w.hour == 0 && w.weekday == 0 && w.day > w.last-7 },
	"cron(0 12 15W * ? *)": func(w wall) bool {
		return w.minute == 0 && w.hour == 12 && (w.day == 15 && w.weekday > 0 && w.weekday < 6 || w.day == 14 && w.weekday == 5 || w.day == 16 && w.weekday == 1)
	},
	"cron(0 0-23/5 ? * SAT-MON 2019/2)": func(w wall) bool {
		return w.minute == 0 && w.hour%5 == 0 && (w.weekday == 6 || w.weekday < 2) && w.year >= 2019 && w.year%2 == 1
	},
}

// Every minute of some years, in zones whose clocks changed by an hour, by half of one, at midnight, and not at all: Next and Last give what looking at
// the clock each minute gives, where a minute that comes again does not count.
func TestSchedule_AgreesWithLookingAtTheClock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		zone     string
		from, to int
	}{
		{"UTC", 2019, 2020}, {"Europe/Berlin", 2019, 2021}, {"America/New_York", 2025, 2026}, {"Australia/Lord_Howe", 2018, 2020},
		{"Asia/Kathmandu", 1985, 1987}, {"America/Sao_Paulo", 2017, 2020}, {"Pacific/Apia", 2011, 2013}, {"Africa/Casablanca", 2019, 2020},
	} {
		t.Run(c.zone, func(t *testing.T) {
			t.Parallel()
			loc, err := time.LoadLocation(c.zone)
			if err != nil {
				t.Fatal(err)
			}
			begin, end := time.Date(c.from, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(c.to, 1, 1, 0, 0, 0, 0, time.UTC)
			want := walk(begin, end, loc)
			for expr := range walked {
				s, err := cron.Parse(expr, c.zone)
				if err != nil {
					t.Fatal(err)
				}
				check(t, expr, s, want[expr], begin, end)
			}
		})
	}
}

// walk gives the slots in [begin, end).
func walk(begin, end time.Time, loc *time.Location) map[string][]time.Time {
	want := map[string][]time.Time{}
	var newest time.Time // latest local time that was shown, as if of UTC
	for at := begin.AddDate(0, 0, -3); at.Before(end); at = at.Add(time.Minute) {
		l := at.In(loc)
		shown := time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
		if !shown.After(newest) {
			continue
		}
		newest = shown
		if at.Before(begin) {
			continue
		}
		w := wallOf(l)
		for expr, match := range walked {
			if match(w) {
				want[expr] = append(want[expr], at)
			}
		}
	}
	return want
}

func check(t *testing.T, expr string, s *cron.Schedule, want []time.Time, begin, end time.Time) {
	t.Helper()
	prev := time.Time{}
	at := begin.Add(-time.Nanosecond)
	for i, w := range want {
		// Of every minute some are enough, and those beside a gap.
		if len(want) > 20_000 && i%53 > 1 && w.Sub(prev) <= 20*time.Minute {
			prev, at = w, w
			continue
		}
		if at = s.Next(at); !at.Equal(w) {
			t.Fatalf("%s: slot %d is %v, want %v", expr, i, at, w)
		}
		if i > 0 {
			if last := s.Last(w.Add(-time.Nanosecond)); !last.Equal(prev) {
				t.Fatalf("%s: before %v was %v, want %v", expr, w, last, prev)
			}
			if mid := s.Next(prev.Add(w.Sub(prev) / 2)); !mid.Equal(w) {
				t.Fatalf("%s: after the middle to %v comes %v", expr, w, mid)
			}
			if mid := s.Last(prev.Add(w.Sub(prev) / 2)); !mid.Equal(prev) {
				t.Fatalf("%s: before the middle from %v was %v", expr, prev, mid)
			}
		}
		if last := s.Last(w); i%97 == 0 && !last.Equal(w) {
			t.Fatalf("%s: the newest at %v is %v", expr, w, last)
		}
		prev = w
	}
	if next := s.Next(at); next.Before(end) {
		t.Fatalf("%s: there is one more, %v", expr, next)
	}
}

func TestSchedule_WithinCountsRatesFromTheStart(t *testing.T) {
	t.Parallel()
	day := func(h, m, s int) time.Time { return time.Date(2026, 3, 29, h, m, s, 0, time.UTC) }
	parse := func(expr string) *cron.Schedule {
		s, err := cron.Parse(expr, "Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		expr             string
		start, end, from time.Time
		want             string
		last             string
	}{
		{"rate(5 minutes)", day(10, 2, 3), time.Time{}, day(0, 0, 0), "10:02:03 10:07:03 10:12:03", ""},
		{"rate(5 minutes)", day(10, 2, 3).Add(time.Second / 2), time.Time{}, day(0, 0, 0), "10:02:03 10:07:03 10:12:03", ""},
		{"rate(5 minutes)", day(10, 2, 3), day(10, 7, 3), day(10, 2, 2), "10:02:03 10:07:03", ""},
		{"rate(5 minutes)", day(10, 2, 3), time.Time{}, day(10, 2, 3), "10:07:03 10:12:03 10:17:03", "10:02:03"},
		{"rate(5 minutes)", day(10, 2, 3), day(10, 9, 0), day(12, 0, 0), "", "10:07:03"},
		{"0 * * * *", day(10, 0, 0), day(11, 30, 0), day(0, 0, 0), "10:00:00 11:00:00", ""},
		{"0 * * * *", day(10, 0, 1), day(11, 0, 0), day(20, 0, 0), "", "11:00:00"},
		{"at(2026-03-29T12:00:00)", day(10, 0, 1), time.Time{}, day(0, 0, 0), "", ""}, // it is 10:00 of UTC
		{"at(2026-03-29T12:00:00)", day(10, 0, 0), day(10, 0, 0), day(0, 0, 0), "10:00:00", ""},
	} {
		s := parse(c.expr).Within(c.start, c.end)
		var got []string
		for _, at := range s.Slots(c.from, 3) {
			got = append(got, at.UTC().Format(time.TimeOnly))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s from %v: got %v, want %s", c.expr, c.from, got, c.want)
		}
		last := ""
		if at := s.Last(c.from); !at.IsZero() {
			last = at.UTC().Format(time.TimeOnly)
		}
		if last != c.last {
			t.Errorf("%s until %v: got %s, want %s", c.expr, c.from, last, c.last)
		}
	}
}

func TestSchedule_TellsWhatItIs(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{"at(2026-03-29T12:00:00)": "true 0s", "rate(2 days)": "false 48h0m0s", "@every 90s": "false 1m30s", "@daily": "false 0s"} {
		s, err := cron.Parse(expr, "")
		if err != nil || fmt.Sprint(s.Once(), " ", s.Rate()) != want {
			t.Errorf("%s: got %v, %v, %v", expr, s.Once(), s.Rate(), err)
		}
	}
}
