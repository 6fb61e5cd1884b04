// Package cron reads EventBridge's cron() and at() expressions and says when they fire.
//
// Main type: [Schedule], from [Parse].
//
// Guarantees:
//
//  1. Fields, names, ranges, steps, lists, L and # mean what EventBridge Scheduler documents: six fields, the last a year; of day of
//     month and day of week one is "?". Differences: W is refused.
//  2. A local time that a change of clocks leaves out does not fire; one that comes twice fires the first time.
//  3. Parse never panics, and what it accepts costs at most a few years of days to look through.
//
// It runs nothing and keeps no time: package engine and who else fires do.
package cron

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Schedule is a parsed expression. It is immutable.
type Schedule struct {
	at     time.Time // of at(); zero for cron()
	loc    *time.Location
	minute set
	hour   set
	month  set
	year   func(int) bool
	day    func(time.Time) bool
}

// set has a bit for each value.
type set uint64

func (s set) has(n int) bool { return s&(1<<n) != 0 }

var (
	monthNames = []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"} // never written
	dayNames   = []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}                                    // never written
)

// Parse reads "cron(...)" or "at(...)", in a time zone by its IANA name or, when empty, UTC.
func Parse(expr, zone string) (*Schedule, error) {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return nil, errs.New(errs.Invalid, "time zone %q is not known", zone)
	}
	s := &Schedule{loc: loc}
	body, ok := strings.CutSuffix(strings.TrimSpace(expr), ")")
	if text, at := strings.CutPrefix(body, "at("); ok && at {
		if s.at, err = time.ParseInLocation("2006-01-02T15:04:05", text, loc); err != nil {
			return nil, errs.New(errs.Invalid, "%s is no time such as at(2030-01-02T15:04:05)", expr)
		}
		return s, nil
	}
	text, isCron := strings.CutPrefix(body, "cron(")
	f := strings.Fields(strings.ToUpper(text))
	if !ok || !isCron || len(f) != 6 {
		return nil, errs.New(errs.Invalid, "%s is not cron() of six fields", expr).
			WithHint("Minutes, hours, day of month, month, day of week, year: cron(0 8 ? * MON-FRI *).")
	}
	if (f[2] == "?") == (f[4] == "?") {
		return nil, errs.New(errs.Invalid, "%s: one of day of month and day of week must be ?", expr)
	}
	for _, field := range []struct {
		to        *set
		text      string
		low, high int
		names     []string
	}{{&s.minute, f[0], 0, 59, nil}, {&s.hour, f[1], 0, 23, nil}, {&s.month, f[3], 1, 12, monthNames}} {
		if *field.to, err = values(field.text, field.low, field.high, field.names); err != nil {
			return nil, errs.New(errs.Invalid, "%s: %w", expr, err)
		}
	}
	if s.year, err = years(f[5]); err == nil {
		if f[4] == "?" {
			s.day, err = daysOfMonth(f[2])
		} else {
			s.day, err = daysOfWeek(f[4])
		}
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", expr, err)
	}
	return s, nil
}

func number(text string, low, high int, names []string) (int, error) {
	if k := slices.Index(names, text); k >= 0 {
		return k + low, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, errs.New(errs.Invalid, "%q is not from %d to %d", text, low, high)
	}
	return n, nil
}

// each calls add with every value of a list of numbers, ranges and steps.
func each(text string, low, high int, names []string, add func(int)) error {
	for _, part := range strings.Split(text, ",") {
		span, by, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			var err error
			if step, err = number(by, 1, max(high, 1), nil); err != nil {
				return err
			}
		}
		first, last, ranged := strings.Cut(span, "-")
		from, to := low, high
		var err error
		if span != "*" {
			if from, err = number(first, low, high, names); err != nil {
				return err
			}
			if ranged {
				if to, err = number(last, low, high, names); err != nil {
					return err
				}
			} else if !stepped {
				to = from
			}
		}
		if to < from { // over the end: FRI-MON
			to += high - low + 1
		}
		for n := from; n <= to; n += step {
			add(low + (n-low)%(high-low+1))
		}
	}
	return nil
}

func values(text string, low, high int, names []string) (s set, err error) {
	err = each(text, low, high, names, func(n int) { s |= 1 << n })
	return s, err
}

func years(text string) (func(int) bool, error) {
	if text == "*" {
		return func(int) bool { return true }, nil
	}
	var all [230]bool
	if err := each(text, 1970, 2199, nil, func(n int) { all[n-1970] = true }); err != nil {
		return nil, err
	}
	return func(y int) bool { return y >= 1970 && y < 2200 && all[y-1970] }, nil
}

func lastDay(t time.Time) bool { return t.AddDate(0, 0, 1).Day() == 1 }

func daysOfMonth(text string) (func(time.Time) bool, error) {
	if text == "L" {
		return lastDay, nil
	}
	s, err := values(text, 1, 31, nil)
	return func(t time.Time) bool { return s.has(t.Day()) }, err
}

func daysOfWeek(text string) (func(time.Time) bool, error) {
	if name, nth, ok := strings.Cut(text, "#"); ok {
		d, err := number(name, 1, 7, dayNames)
		n, err2 := number(nth, 1, 5, nil)
		if err != nil || err2 != nil {
			return nil, errs.New(errs.Invalid, "%q is no such day: MON#2 is the second Monday", text)
		}
		return func(t time.Time) bool { return int(t.Weekday()) == d-1 && (t.Day()-1)/7 == n-1 }, nil
	}
	if name, ok := strings.CutSuffix(text, "L"); ok {
		d := 7
		if name != "" {
			var err error
			if d, err = number(name, 1, 7, dayNames); err != nil {
				return nil, err
			}
			return func(t time.Time) bool { return int(t.Weekday()) == d-1 && t.AddDate(0, 0, 7).Month() != t.Month() }, nil
		}
		return func(t time.Time) bool { return int(t.Weekday()) == d-1 }, nil
	}
	s, err := values(text, 1, 7, dayNames)
	return func(t time.Time) bool { return s.has(int(t.Weekday()) + 1) }, err
}

// horizon is how far Next and Last look: a cycle of leap years.
const horizon = 8*366 + 1

// Next is the first time after t, or the zero time when there is none in eight years.
func (s *Schedule) Next(t time.Time) time.Time {
	if !s.at.IsZero() {
		if s.at.After(t) {
			return s.at
		}
		return time.Time{}
	}
	day := s.midday(t)
	for range horizon {
		for _, at := range s.times(day) {
			if at.After(t) {
				return at
			}
		}
		day = day.AddDate(0, 0, 1)
	}
	return time.Time{}
}

// Last is the newest time that is not after t, or the zero time when there is none in eight years.
func (s *Schedule) Last(t time.Time) time.Time {
	if !s.at.IsZero() {
		if !s.at.After(t) {
			return s.at
		}
		return time.Time{}
	}
	day := s.midday(t)
	for range horizon {
		times := s.times(day)
		for k := len(times) - 1; k >= 0; k-- {
			if !times[k].After(t) {
				return times[k]
			}
		}
		day = day.AddDate(0, 0, -1)
	}
	return time.Time{}
}

// midday stands for a day: it exists on every one.
func (s *Schedule) midday(t time.Time) time.Time {
	y, m, d := t.In(s.loc).Date()
	return time.Date(y, m, d, 12, 0, 0, 0, s.loc)
}

// times are those of a day, in order.
func (s *Schedule) times(day time.Time) []time.Time {
	y, m, d := day.Date()
	if !s.month.has(int(m)) || !s.year(y) || !s.day(day) {
		return nil
	}
	var out []time.Time
	for h := range 24 {
		for min := range 60 {
			if !s.hour.has(h) || !s.minute.has(min) {
				continue
			}
			if at := time.Date(y, m, d, h, min, 0, 0, s.loc); at.Hour() == h && at.Minute() == min {
				out = append(out, at)
			}
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}
