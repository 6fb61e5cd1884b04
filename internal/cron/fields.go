package cron

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// set has a bit for each value.
type set uint64

func (s set) has(n int) bool { return s&(1<<n) != 0 }

var (
	monthNames = []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"} // never written
	dayNames   = []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}                                    // never written
)

// readCron reads EventBridge's six fields.
func (s *Schedule) readCron(body string) (err error) {
	f := strings.Fields(strings.ToUpper(body))
	if len(f) != 6 {
		return errs.New(errs.Invalid, "it has %d fields, not six", len(f)).
			WithHint("Minutes, hours, day of month, month, day of week, year: cron(0 8 ? * MON-FRI *).")
	}
	if (f[2] == "?") == (f[4] == "?") {
		return errs.New(errs.Invalid, "one of day of month and day of week must be ?")
	}
	if err := s.readCommon(f, true); err != nil {
		return err
	}
	if s.year, err = years(f[5]); err != nil {
		return err
	}
	if f[4] == "?" {
		s.day, err = daysOfMonth(f[2])
	} else {
		s.day, err = daysOfWeek(f[4])
	}
	return err
}

// readUnix reads the five fields of Unix cron, as its manual has them: where neither of the two days begins with "*", either makes a day.
func (s *Schedule) readUnix(body string) error {
	f := strings.Fields(strings.ToUpper(body))
	if err := s.readCommon(f, false); err != nil {
		return err
	}
	month, err := values(f[2], field{low: 1, high: 31})
	if err != nil {
		return err
	}
	week, err := values(f[4], field{high: 7, names: dayNames})
	if err != nil {
		return err
	}
	if week.has(7) {
		week |= 1
	}
	either := f[2][0] != '*' && f[4][0] != '*'
	s.year = func(int) bool { return true }
	s.day = func(t time.Time) bool {
		m, w := month.has(t.Day()), week.has(int(t.Weekday()))
		return m && w || either && (m || w)
	}
	return nil
}

func (s *Schedule) readCommon(f []string, wraps bool) (err error) {
	if s.minute, err = values(f[0], field{high: 59, wraps: wraps}); err != nil {
		return err
	}
	if s.hour, err = values(f[1], field{high: 23, wraps: wraps}); err != nil {
		return err
	}
	s.month, err = values(f[3], field{low: 1, high: 12, names: monthNames, wraps: wraps})
	return err
}

// field says what numbers a field takes; names stand for them from low on. One that wraps takes ranges over its end: FRI-MON.
type field struct {
	low, high int
	names     []string
	wraps     bool
}

func (f field) number(text string) (int, error) {
	if k := slices.Index(f.names, text); k >= 0 {
		return k + f.low, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || int(n) < f.low || int(n) > f.high {
		return 0, errs.New(errs.Invalid, "%q is not from %d to %d", text, f.low, f.high)
	}
	return int(n), nil
}

// each calls add with every value of a list of numbers, ranges and steps.
func (f field) each(text string, add func(int)) error {
	for _, part := range strings.Split(text, ",") {
		span, by, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			var err error
			if step, err = (field{low: 1, high: f.high}).number(by); err != nil {
				return err
			}
		}
		first, last, ranged := strings.Cut(span, "-")
		from, to := f.low, f.high
		var err error
		if span != "*" {
			if from, err = f.number(first); err != nil {
				return err
			}
			if ranged {
				if to, err = f.number(last); err != nil {
					return err
				}
			} else if !stepped {
				to = from
			}
		}
		size := f.high - f.low + 1
		if to < from {
			if !f.wraps {
				return errs.New(errs.Invalid, "the range %q runs backwards", span)
			}
			to += size
		}
		for n := from; n <= to; n += step {
			add(f.low + (n-f.low)%size)
		}
	}
	return nil
}

func values(text string, f field) (s set, err error) {
	err = f.each(text, func(n int) { s |= 1 << n })
	return s, err
}

// The years that EventBridge knows.
const (
	firstYear = 1970
	lastYear  = 2199
)

func years(text string) (func(int) bool, error) {
	if text == "*" {
		return func(int) bool { return true }, nil
	}
	var all [lastYear - firstYear + 1]bool
	if err := (field{low: firstYear, high: lastYear, wraps: false}).each(text, func(n int) { all[n-firstYear] = true }); err != nil {
		return nil, err
	}
	return func(y int) bool { return y >= firstYear && y <= lastYear && all[y-firstYear] }, nil
}

func lastDay(t time.Time) time.Time { return time.Date(t.Year(), t.Month()+1, 0, 0, 0, 0, 0, time.UTC) }

// weekday gives the day from Monday to Friday of the same month that is nearest to one.
func weekday(t time.Time) time.Time {
	switch {
	case t.Weekday() == time.Saturday && t.Day() == 1:
		return t.AddDate(0, 0, 2)
	case t.Weekday() == time.Saturday:
		return t.AddDate(0, 0, -1)
	case t.Weekday() == time.Sunday && t.Day() == lastDay(t).Day():
		return t.AddDate(0, 0, -2)
	case t.Weekday() == time.Sunday:
		return t.AddDate(0, 0, 1)
	}
	return t
}

// daysOfMonth reads numbers, L for the last day, LW for the last weekday and 15W for the one nearest to the 15th, and lists of these.
func daysOfMonth(text string) (func(time.Time) bool, error) {
	var days, near set
	var last, lastW bool
	for _, part := range strings.Split(text, ",") {
		number, isW := strings.CutSuffix(part, "W")
		switch {
		case part == "L":
			last = true
		case part == "LW":
			lastW = true
		case isW:
			n, err := field{low: 1, high: 31}.number(number)
			if err != nil {
				return nil, err
			}
			near |= 1 << n
		default:
			more, err := values(part, field{low: 1, high: 31, wraps: true})
			if err != nil {
				return nil, err
			}
			days |= more
		}
	}
	return func(t time.Time) bool {
		if days.has(t.Day()) || last && lastDay(t).Day() == t.Day() || lastW && weekday(lastDay(t)).Day() == t.Day() {
			return true
		}
		for d := t.Day() - 2; near != 0 && d <= t.Day()+2; d++ {
			if d < 1 || d > lastDay(t).Day() || !near.has(d) {
				continue
			}
			if weekday(time.Date(t.Year(), t.Month(), d, 0, 0, 0, 0, time.UTC)).Day() == t.Day() {
				return true
			}
		}
		return false
	}, nil
}

func daysOfWeek(text string) (func(time.Time) bool, error) {
	f := field{low: 1, high: 7, names: dayNames, wraps: true}
	if name, nth, ok := strings.Cut(text, "#"); ok {
		d, err := f.number(name)
		n, err2 := field{low: 1, high: 5}.number(nth)
		if err != nil || err2 != nil {
			return nil, errs.New(errs.Invalid, "%q is no such day: MON#2 is the second Monday", text)
		}
		return func(t time.Time) bool { return int(t.Weekday()) == d-1 && (t.Day()-1)/7 == n-1 }, nil
	}
	if name, ok := strings.CutSuffix(text, "L"); ok {
		if name == "" { // the last day of the week
			return func(t time.Time) bool { return t.Weekday() == time.Saturday }, nil
		}
		d, err := f.number(name)
		if err != nil {
			return nil, err
		}
		return func(t time.Time) bool { return int(t.Weekday()) == d-1 && t.AddDate(0, 0, 7).Month() != t.Month() }, nil
	}
	s, err := values(text, f)
	return func(t time.Time) bool { return s.has(int(t.Weekday()) + 1) }, err
}
