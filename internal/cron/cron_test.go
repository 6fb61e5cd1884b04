package cron_test

import (
	"strings"
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
		{"at(2026-03-29T02:30:00)", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-29T01:30:00Z", ""},
		{"cron(0 0 1 1 ? 2199)", "", "2026-11-23T10:00:00Z", "2199-01-01T00:00:00Z", ""},
		{"cron(0 0 1 1 ? 1970)", "", "2026-11-23T10:00:00Z", "", "1970-01-01T00:00:00Z"},
		// The nearest weekday: Saturday 15 August 2026, Sunday 15 November; it stays in the month.
		{"cron(0 9 15W * ? *)", "", "2026-08-01T00:00:00Z", "2026-08-14T09:00:00Z", "2026-07-15T09:00:00Z"},
		{"cron(0 9 15W * ? *)", "", "2026-11-01T00:00:00Z", "2026-11-16T09:00:00Z", "2026-10-15T09:00:00Z"},
		{"cron(0 9 1W 8 ? *)", "", "2026-07-30T00:00:00Z", "2026-08-03T09:00:00Z", "2025-08-01T09:00:00Z"},
		{"cron(0 9 31W 5,6 ? *)", "", "2026-05-01T00:00:00Z", "2026-05-29T09:00:00Z", "2025-05-30T09:00:00Z"},
		{"cron(0 9 1,LW * ? *)", "", "2026-01-02T00:00:00Z", "2026-01-30T09:00:00Z", "2026-01-01T09:00:00Z"},
		{"cron(0 9 LW 2 ? *)", "", "2026-01-02T00:00:00Z", "2026-02-27T09:00:00Z", "2025-02-28T09:00:00Z"},
		{"rate(1 minute)", "", "2026-11-23T10:00:00Z", "2026-11-23T10:01:00Z", "2026-11-23T10:00:00Z"},
		{"rate(7 minutes)", "", "1970-01-01T00:08:00Z", "1970-01-01T00:14:00Z", "1970-01-01T00:07:00Z"},
		{"rate(1 day)", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-30T00:00:00Z", "2026-03-29T00:00:00Z"},
		{"@every 1h30m", "", "2026-11-23T10:00:00Z", "2026-11-23T10:30:00Z", "2026-11-23T09:00:00Z"},
		{"@hourly", "Asia/Kathmandu", "2026-11-23T10:00:00Z", "2026-11-23T10:15:00Z", "2026-11-23T09:15:00Z"},
		{"@weekly", "", "2026-11-23T10:00:00Z", "2026-11-29T00:00:00Z", "2026-11-22T00:00:00Z"},
		{"*/15 9-17 * * mon-fri", "", "2026-11-20T17:45:00Z", "2026-11-23T09:00:00Z", "2026-11-20T17:45:00Z"},
		{"0 0 * * 7", "", "2026-11-23T10:00:00Z", "2026-11-29T00:00:00Z", "2026-11-22T00:00:00Z"},
		{"0 0 * * 5-7", "", "2026-11-21T10:00:00Z", "2026-11-22T00:00:00Z", "2026-11-21T00:00:00Z"},
		{"30 4 1,15 * 5", "", "2026-11-15T05:00:00Z", "2026-11-20T04:30:00Z", "2026-11-15T04:30:00Z"}, // crontab(5)'s example
		{"0 0 */2 * MON", "", "2026-11-03T00:00:00Z", "2026-11-09T00:00:00Z", "2026-10-19T00:00:00Z"}, // a star: both must hold
		{"  0 0 1 1 *  ", "", "2026-11-03T00:00:00Z", "2027-01-01T00:00:00Z", "2026-01-01T00:00:00Z"},
		// Samoa had no 30 December 2011, and Kwajalein no 21 August 1993.
		{"0 9 * * *", "Pacific/Apia", "2011-12-29T20:00:00Z", "2011-12-30T19:00:00Z", "2011-12-29T19:00:00Z"},
		{"cron(0 9 30 12 ? *)", "Pacific/Apia", "2011-12-20T00:00:00Z", "2012-12-29T19:00:00Z", "2010-12-30T19:00:00Z"},
		{"0 9 * * *", "Pacific/Kwajalein", "1993-08-20T21:30:00Z", "1993-08-21T21:00:00Z", "1993-08-20T21:00:00Z"},
		// Midnight is what São Paulo left out in spring.
		{"@daily", "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-05T02:00:00Z", "2018-11-03T03:00:00Z"},
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
		"cron(0 8 ? * MAN *)", "cron(0 8 32W * ? *)", "cron(0 8 W * ? *)", "cron(0/0 8 ? * MON *)", "cron(0 8 ? * MON 1900)", "at(tomorrow)", "at(2026-11-23T10:00:00.5)",
		"rate(1 minutes)", "rate(5 minute)", "rate(0 minutes)", "rate(-5 minutes)", "rate(5 weeks)", "rate(5)", "rate(+5 minutes)", "rate(05 minutes)", "rate(99999999 days)",
		"rate(1.5 hours)", "@every 0s", "@every -1m", "@every 1.5s", "@every", "@reboot", "@Hourly x", "0 8 * *", "0 8 * * * *", "0 8 ? * *", "0 8 * * 8", "0 8 L * *", "0 8 * * FRI-MON",
		"0 8 30-2 * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "(* * * * *)", "0 8 * * 1)", "minutes(5)", strings.Repeat("0,", 200) + "0 * * * *",
		"cron(0 8 ? * MON *", "cron(0 8 ? * MON#6 *)", "cron(0-- 8 ? * MON *)",
	} {
		if _, err := cron.Parse(expr, ""); err == nil {
			t.Errorf("%s is taken", expr)
		}
	}
	for _, zone := range []string{"Mars/Olympus", "Local", "../../etc/passwd"} {
		if _, err := cron.Parse("cron(0 8 ? * MON *)", zone); err == nil {
			t.Errorf("the time zone %s is taken", zone)
		}
	}
}

// What is accepted fires in order.
func FuzzParse(f *testing.F) {
	f.Add("cron(0 8 ? * MON-FRI *)")
	f.Add("cron(0/7 1-5,7 L 2/3 ? 2020-2030)")
	f.Add("at(2026-11-23T10:00:00)")
	f.Add("rate(5 minutes)")
	f.Add("*/5 0-4,7 1,31 JAN-MAR/2 5-7")
	f.Add("cron(0 8 1W,LW,7 * ? 2199)")
	f.Add("@every 90s")
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
