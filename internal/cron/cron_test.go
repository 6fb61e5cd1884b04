package cron_test

import (
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/cron"
)

func TestSchedule_NextAndLast(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ expr, zone, from, next, last string }{
		{"cron(0 8 ? * MON-FRI *)", "", "2026-11-20T08:00:00Z", "2026-11-23T08:00:00Z", "2026-11-20T08:00:00Z"},
		{"cron(0 8 ? * MON-FRI *)", "Europe/Berlin", "2026-11-23T06:59:00Z", "2026-11-23T07:00:00Z", "2026-11-20T07:00:00Z"},
		{"cron(0/20 * * * ? *)", "", "2026-11-23T10:15:30Z", "2026-11-23T10:20:00Z", "2026-11-23T10:00:00Z"},
		{"cron(30 2 * * ? *)", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z", "2026-03-28T01:30:00Z"}, // 29 March has no 02:30
		{"cron(0 0 29 2 ? *)", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
		{"cron(0 12 L * ? *)", "", "2026-02-10T00:00:00Z", "2026-02-28T12:00:00Z", "2026-01-31T12:00:00Z"},
		{"cron(0 12 ? * 2#1 *)", "", "2026-11-03T00:00:00Z", "2026-12-07T12:00:00Z", "2026-11-02T12:00:00Z"},
		{"cron(0 12 ? * FRIL *)", "", "2026-11-03T00:00:00Z", "2026-11-27T12:00:00Z", "2026-10-30T12:00:00Z"},
		{"cron(0 12 ? * SAT-MON *)", "", "2026-11-23T13:00:00Z", "2026-11-28T12:00:00Z", "2026-11-23T12:00:00Z"},
		{"cron(5,10 1 1 JAN ? 2027)", "", "2027-01-01T01:05:00Z", "2027-01-01T01:10:00Z", "2027-01-01T01:05:00Z"},
		{"cron(0 0 30 2 ? *)", "", "2026-01-01T00:00:00Z", "", ""},
		{"at(2026-11-23T10:00:00)", "Europe/Berlin", "2026-11-23T08:59:59Z", "2026-11-23T09:00:00Z", ""},
		{"at(2026-11-23T10:00:00)", "", "2026-11-23T10:00:00Z", "", "2026-11-23T10:00:00Z"},
	} {
		t.Run(c.expr+c.zone, func(t *testing.T) {
			t.Parallel()
			s, err := cron.Parse(c.expr, c.zone)
			if err != nil {
				t.Fatal(err)
			}
			from, _ := time.Parse(time.RFC3339, c.from)
			for what, v := range map[string]struct {
				got  time.Time
				want string
			}{"next": {s.Next(from), c.next}, "last": {s.Last(from), c.last}} {
				got := ""
				if !v.got.IsZero() {
					got = v.got.UTC().Format(time.RFC3339)
				}
				if got != v.want {
					t.Errorf("%s is %s, want %s", what, got, v.want)
				}
			}
		})
	}
}

func TestParse_Refuses(t *testing.T) {
	t.Parallel()
	for _, expr := range []string{
		"", "cron()", "cron(* * * * *)", "cron(0 8 * * * *)", "cron(0 8 ? * ? *)", "cron(60 8 ? * MON *)", "cron(0 24 ? * MON *)",
		"cron(0 8 ? * MAN *)", "cron(0 8 3W * ? *)", "cron(0/0 8 ? * MON *)", "cron(0 8 ? * MON 1900)", "at(tomorrow)", "rate(5 minutes)",
		"cron(0 8 ? * MON *", "cron(0 8 ? * MON#6 *)", "cron(0-- 8 ? * MON *)",
	} {
		if _, err := cron.Parse(expr, ""); err == nil {
			t.Errorf("%s is taken", expr)
		}
	}
	if _, err := cron.Parse("cron(0 8 ? * MON *)", "Mars/Olympus"); err == nil {
		t.Error("an unknown time zone is taken")
	}
}

// What is accepted fires in order.
func FuzzParse(f *testing.F) {
	f.Add("cron(0 8 ? * MON-FRI *)")
	f.Add("cron(0/7 1-5,7 L 2/3 ? 2020-2030)")
	f.Add("at(2026-11-23T10:00:00)")
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, expr string) {
		s, err := cron.Parse(expr, "Europe/Berlin")
		if err != nil {
			return
		}
		next, last := s.Next(now), s.Last(now)
		if !next.IsZero() && (!next.After(now) || s.Last(next) != next) || last.After(now) {
			t.Errorf("%s: next %v, last %v", expr, next, last)
		}
	})
}
