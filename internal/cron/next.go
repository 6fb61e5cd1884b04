package cron

import "time"

// Next is the first slot after t, or the zero time when there is none before the year 2200.
func (s *Schedule) Next(t time.Time) time.Time {
	if !s.start.IsZero() && t.Before(s.start) {
		t = s.start.Add(-1) // the start is a slot, too, if it is one
	}
	at := s.next(t)
	if !s.end.IsZero() && at.After(s.end) {
		return time.Time{}
	}
	return at
}

// Last is the newest slot that is not after t, or the zero time when there is none since 1970.
func (s *Schedule) Last(t time.Time) time.Time {
	if !s.end.IsZero() && t.After(s.end) {
		t = s.end
	}
	at := s.last(t)
	if !s.start.IsZero() && at.Before(s.start) {
		return time.Time{}
	}
	return at
}

// Slots lists the first slots after t, at most n of them.
func (s *Schedule) Slots(t time.Time, n int) []time.Time {
	var out []time.Time
	for range n {
		if t = s.Next(t); t.IsZero() {
			break
		}
		out = append(out, t)
	}
	return out
}

func (s *Schedule) next(t time.Time) time.Time {
	switch {
	case s.Once():
		if s.at.After(t) {
			return s.at
		}
		return time.Time{}
	case s.by > 0:
		at := s.step(t).Add(s.by)
		if at.Year() > lastYear {
			return time.Time{}
		}
		return at
	}
	// No slot after t has an earlier time of day on t's day: it would have come the first time already.
	t = t.In(s.loc)
	from := t.Hour()*60 + t.Minute()
	for day := civil(t); day.Year() <= lastYear; from = 0 {
		if skip := s.skip(day, 1); !skip.IsZero() {
			day = skip
			continue
		}
		for min := from; min < 24*60; min++ {
			if !s.hour.has(min / 60) {
				min += 59 - min%60
				continue
			}
			if !s.minute.has(min % 60) {
				continue
			}
			if at, ok := s.local(day, min); ok && at.After(t) {
				return at
			}
		}
		day = day.AddDate(0, 0, 1)
	}
	return time.Time{}
}

func (s *Schedule) last(t time.Time) time.Time {
	switch {
	case s.Once():
		if !s.at.After(t) {
			return s.at
		}
		return time.Time{}
	case s.by > 0:
		return s.step(t)
	}
	t = t.In(s.loc)
	latest := t // as a clock shows it
	if start, back := setBack(t); t.Sub(start) < back {
		latest = start.Add(-1).In(s.loc) // clocks were ahead before
	}
	day, from := civil(latest), latest.Hour()*60+latest.Minute()
	for ; day.Year() >= firstYear; from = 24*60 - 1 {
		if skip := s.skip(day, -1); !skip.IsZero() {
			day = skip
			continue
		}
		for min := from; min >= 0; min-- {
			if !s.hour.has(min / 60) {
				min -= min % 60
				continue
			}
			if !s.minute.has(min % 60) {
				continue
			}
			if at, ok := s.local(day, min); ok && !at.After(t) {
				return at
			}
		}
		day = day.AddDate(0, 0, -1)
	}
	return time.Time{}
}

// step is the newest slot of a rate that is not after t, as if there were ones before its start.
func (s *Schedule) step(t time.Time) time.Time {
	anchor := s.start
	if anchor.IsZero() {
		anchor = time.Unix(0, 0)
	}
	from, by := anchor.Unix(), int64(s.by/time.Second)
	past := (t.Unix() - from) % by
	if past < 0 {
		past += by
	}
	return time.Unix(t.Unix()-past, 0).In(s.loc)
}

// civil is the day of a local time, as midnight of UTC.
func civil(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// skip gives the day to look at instead, where the day is none of the Schedule's; else the zero time.
func (s *Schedule) skip(day time.Time, by int) time.Time {
	y, m, _ := day.Date()
	switch {
	case !s.year(y) && by > 0:
		return time.Date(y+1, 1, 1, 0, 0, 0, 0, time.UTC)
	case !s.year(y):
		return time.Date(y-1, 12, 31, 0, 0, 0, 0, time.UTC)
	case !s.month.has(int(m)) && by > 0:
		return time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
	case !s.month.has(int(m)):
		return time.Date(y, m, 0, 0, 0, 0, 0, time.UTC)
	case !s.day(day):
		return day.AddDate(0, 0, by)
	}
	return time.Time{}
}

// local gives the first moment that has the local time, if there is one.
func (s *Schedule) local(day time.Time, min int) (time.Time, bool) {
	y, m, d := day.Date()
	at := time.Date(y, m, d, min/60, min%60, 0, 0, s.loc)
	if ay, am, ad := at.Date(); at.Hour() != min/60 || at.Minute() != min%60 || ad != d || am != m || ay != y {
		return time.Time{}, false
	}
	// What clocks that were set back show has been shown before.
	if start, back := setBack(at); back > 0 && at.Add(-back).Before(start) {
		at = at.Add(-back)
	}
	return at, true
}

// setBack tells by how much clocks were set back at the newest change before t, and when; zero when they were not.
func setBack(t time.Time) (at time.Time, by time.Duration) {
	start, _ := t.ZoneBounds()
	if start.IsZero() {
		return start, 0
	}
	_, now := t.Zone()
	_, before := start.Add(-1).Zone()
	return start, time.Duration(max(before-now, 0)) * time.Second
}
