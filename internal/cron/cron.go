// Package cron reads the expressions by which schedules are written, EventBridge's cron(), rate() and at() and the five fields of Unix cron, and
// says when they fire.
//
// Main type: [Schedule], from [Parse]. Its times are called slots.
//
// Guarantees:
//
//  1. cron(): fields, names, ranges, steps, lists, L, W and # mean what EventBridge documents: six fields, the last a year; of day of month and day
//     of week one is "?". A W day that its month does not have does not fire.
//  2. rate(N unit): slots are start + k·N, where a day has 24 hours whatever clocks do. N of 1 takes the singular unit, any other the plural, as
//     EventBridge's rules have it. Without a start they count from 1970; see [Schedule.Within].
//  3. Five fields without a word before them are Unix cron's: names, ranges, steps, lists, 0 and 7 for Sunday, and either of two days where both are
//     given. @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly and "@every 90s" are read too.
//  4. A local time that a change of clocks leaves out does not fire; one that comes twice fires the first time. That is EventBridge Scheduler's rule,
//     and holds for Unix cron here as well. An at() that is left out fires when it would have without the change.
//  5. A slot is a whole second. Next and Last take a bounded time for whatever Parse accepts, and Parse never panics.
//
// It runs nothing and keeps no time: who fires does.
package cron

import (
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a static binary runs where no time zones are installed

	"github.com/ebb-run/ebb/internal/errs"
)

// Schedule is a parsed expression. It is immutable.
type Schedule struct {
	loc *time.Location
	at  time.Time     // of at(); else zero
	by  time.Duration // of rate(); else zero

	// Of cron.
	minute, hour, month set
	year                func(int) bool
	day                 func(time.Time) bool // of a civil day, which is midnight of UTC

	start, end time.Time // both included; zero means without
}

// maxExpression is EventBridge Scheduler's limit.
const maxExpression = 256

// Parse reads an expression, in a time zone by its IANA name or, when empty, UTC.
func Parse(expr, zone string) (*Schedule, error) {
	loc, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return nil, errs.New(errs.Invalid, "time zone %q is not known", zone).WithHint("Zones have names such as Europe/Berlin.")
	}
	text := strings.TrimSpace(expr)
	if len(text) > maxExpression {
		return nil, errs.New(errs.Invalid, "an expression of %d bytes is too long, the limit is %d", len(text), maxExpression)
	}
	s := &Schedule{loc: loc}
	body, closed := strings.CutSuffix(text, ")")
	word, body, opened := strings.Cut(body, "(")
	switch {
	case opened && closed && word == "at":
		err = s.readAt(body)
	case opened && closed && word == "rate":
		err = s.readRate(body)
	case opened && closed && word == "cron":
		err = s.readCron(body)
	case strings.HasPrefix(text, "@"):
		err = s.readWord(text)
	case !opened && !closed && len(strings.Fields(text)) == 5:
		err = s.readUnix(text)
	default:
		err = errs.New(errs.Invalid, "it is no cron(), rate() or at(), nor Unix cron's five fields").
			WithHint("Examples: cron(0 8 ? * MON-FRI *), rate(5 minutes), at(2030-01-02T15:04:05), 0 8 * * 1-5.")
	}
	if err != nil {
		wrapped := errs.New(errs.Invalid, "%q: %w", text, err)
		if hint := errs.HintOf(err); hint != "" {
			wrapped = wrapped.WithHint("%s", hint)
		}
		return nil, wrapped
	}
	return s, nil
}

func (s *Schedule) readAt(body string) (err error) {
	if s.at, err = time.ParseInLocation("2006-01-02T15:04:05", body, s.loc); err != nil || s.at.Nanosecond() != 0 {
		return errs.New(errs.Invalid, "%q is no time such as 2030-01-02T15:04:05", body)
	}
	return nil
}

// maxRate is far beyond any use, and keeps sums of times in their range.
const maxRate = 100 * 365 * 24 * time.Hour

func (s *Schedule) readRate(body string) error {
	f := strings.Fields(body)
	if len(f) != 2 {
		return errs.New(errs.Invalid, "a rate is a number and a unit").WithHint("rate(1 minute), rate(12 hours), rate(7 days).")
	}
	n, err := strconv.ParseUint(f[0], 10, 32)
	if err != nil || n == 0 || f[0][0] == '0' {
		return errs.New(errs.Invalid, "%q is no positive number", f[0])
	}
	unit, plural := strings.CutSuffix(f[1], "s")
	by := map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}[unit]
	switch {
	case by == 0:
		return errs.New(errs.Invalid, "%q is no unit: minute, minutes, hour, hours, day or days", f[1])
	case plural != (n != 1):
		right := unit + "s"
		if n == 1 {
			right = unit
		}
		return errs.New(errs.Invalid, "%s of them are not written %q", f[0], f[1]).WithHint("Write rate(%d %s).", n, right)
	case n > uint64(maxRate/by):
		return errs.New(errs.Invalid, "%s is longer than a hundred years", body)
	}
	s.by = time.Duration(n) * by
	return nil
}

func (s *Schedule) readWord(text string) error {
	word, rest, _ := strings.Cut(text, " ")
	if word == "@every" {
		d, err := time.ParseDuration(strings.TrimSpace(rest))
		if err != nil || d < time.Second || d > maxRate || d%time.Second != 0 {
			return errs.New(errs.Invalid, "%q is no whole number of seconds such as 90s or 1h30m", rest)
		}
		s.by = d
		return nil
	}
	fields, ok := map[string]string{
		"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
		"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
	}[text]
	if !ok {
		return errs.New(errs.Invalid, "the word is not known").WithHint("@hourly, @daily, @weekly, @monthly, @yearly, and @every with a duration, are.")
	}
	return s.readUnix(fields)
}

// Within gives the Schedule bounded by a start and an end, both included; a zero time is no bound. The slots of a rate count from the start, which is
// one of them: so EventBridge Scheduler has it, whose schedules without a StartDate begin at once, while a rule's first slot is one rate after its making.
func (s *Schedule) Within(start, end time.Time) *Schedule {
	out := *s
	out.start, out.end = start.Truncate(time.Second), end
	return &out
}

// Once tells whether the Schedule has one slot: an at().
func (s *Schedule) Once() bool { return !s.at.IsZero() }

// Rate is the distance of the slots of a rate, or 0 for another expression.
func (s *Schedule) Rate() time.Duration { return s.by }
