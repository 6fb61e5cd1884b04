package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Query says which Records to read. An empty field matches everything.
type Query struct {
	Tenant     string
	App        string
	Stage      string
	Function   string // full name
	Invocation string
	Since      time.Time
	Tail       int  // only so many, the last ones; 0 means all, a negative number none of those that are there already
	Follow     bool // go on with new Records until ctx ends
}

// maxTail bounds the memory that a Query takes.
const maxTail = 100_000

// errDamaged says that a segment cannot be read further.
var errDamaged = errors.New("damaged log record")

// Read calls f for each Record that matches, in the order in which they were written, those that wait to be written included.
// An error of f ends it and is returned. With Follow it returns nil when ctx or the Logs end. Records that are removed to stay
// in bounds while they are being read are left out, and so is what follows a damaged record in its segment.
func (l *Logs) Read(ctx context.Context, q Query, f func(Record) error) error {
	if q.Follow {
		l.mu.Lock()
		l.mu.followers++
		l.mu.Unlock()
		defer func() {
			l.mu.Lock()
			l.mu.followers--
			l.mu.Unlock()
		}()
	}
	l.flush()
	segments, grown, closed := l.snapshot()
	at, err := l.past(ctx, &q, segments, f)
	if err != nil {
		if q.Follow && ctx.Err() != nil {
			return nil
		}
		return err
	}
	for q.Follow && !closed {
		select {
		case <-ctx.Done():
			return nil
		case <-grown:
		}
		segments, grown, closed = l.snapshot()
		for _, s := range segments {
			if s.id < at.id || s.id == at.id && s.size <= at.size {
				continue
			}
			from := int64(len(segmentHead))
			if s.id == at.id {
				from = at.size
			}
			if err := l.segment(ctx, &q, s, from, anywhere(f)); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			at = s
		}
	}
	return nil
}

// Position is where a Record is in the Logs. Those of later Records are greater; a Record keeps its own for as long as it is there.
type Position struct {
	Segment uint64
	Offset  int64 // bytes
}

// Walk calls f for each Record that matches and is there now, as Read does without Tail and Follow, and tells where it is.
func (l *Logs) Walk(ctx context.Context, q Query, f func(Position, Record) error) error {
	l.flush()
	segments, _, _ := l.snapshot()
	for _, s := range segments {
		if err := l.segment(ctx, &q, s, int64(len(segmentHead)), f); err != nil {
			return err
		}
	}
	return nil
}

func anywhere(f func(Record) error) func(Position, Record) error {
	return func(_ Position, r Record) error { return f(r) }
}

func (l *Logs) snapshot() ([]segment, <-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.segments), l.mu.grown, l.mu.closed
}

// past reads what is there, and returns up to where.
func (l *Logs) past(ctx context.Context, q *Query, segments []segment, f func(Record) error) (at segment, err error) {
	if len(segments) > 0 {
		at = segments[len(segments)-1]
	}
	start := int64(len(segmentHead))
	switch {
	case q.Tail < 0:
		return at, nil
	case q.Tail == 0:
		for _, s := range segments {
			if err := l.segment(ctx, q, s, start, anywhere(f)); err != nil {
				return at, err
			}
		}
		return at, nil
	}
	// From the newest segment back, until there are enough.
	want := min(q.Tail, maxTail)
	var found [][]Record
	for _, s := range slices.Backward(segments) {
		var part []Record
		err := l.segment(ctx, q, s, start, func(_ Position, r Record) error {
			// Twice the size before the older half goes: each Record moves once on average.
			if len(part) >= 2*want {
				part = slices.Delete(part, 0, len(part)-want)
			}
			part = append(part, r)
			return nil
		})
		if err != nil {
			return at, err
		}
		part = part[max(0, len(part)-want):]
		found = append(found, part)
		if want -= len(part); want == 0 {
			break
		}
	}
	for _, part := range slices.Backward(found) {
		for _, r := range part {
			if err := f(r); err != nil {
				return at, err
			}
		}
	}
	return at, nil
}

// segment reads one segment from an offset.
func (l *Logs) segment(ctx context.Context, q *Query, s segment, from int64, f func(Position, Record) error) error {
	path := l.path(s.id)
	if !q.Since.IsZero() {
		// A file that was last written before holds nothing later; the second covers coarse file times.
		if info, err := os.Stat(path); err == nil && info.ModTime().Before(q.Since.Add(-time.Second)) {
			return nil
		}
	}
	n := 0
	_, err := scan(path, from, s.size, func(at int64, payload []byte) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if l.o.Seal != nil {
			var err error
			if payload, err = l.o.Seal.OpenInPlace(payload, sealPlace); err != nil {
				return errDamaged
			}
		}
		v, ok := split(payload)
		if !ok {
			return errDamaged
		}
		if !q.matches(&v) {
			return nil
		}
		return f(Position{s.id, at}, v.record())
	})
	switch {
	case errors.Is(err, errDamaged):
		l.o.Log.Warn("log segment is damaged", "file", path)
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		return ctx.Err()
	case err != nil:
		return err
	}
	return ctx.Err()
}

func (q *Query) matches(v *fields) bool {
	for i, want := range [...]string{q.Tenant, q.App, q.Stage, q.Function, "", q.Invocation} {
		if want != "" && string(v.s[i]) != want {
			return false
		}
	}
	return q.Since.IsZero() || v.nanos >= nanos(q.Since)
}

// scan calls f with each payload between two offsets of a file and the offset of its frame, and returns the offset behind the last whole frame. The payload
// is only valid during the call. The error is errDamaged where a frame is torn or was changed.
func scan(path string, from, to int64, f func(at int64, payload []byte) error) (good int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return from, fmt.Errorf("read logs: %w", err)
	}
	defer file.Close()
	buf := make([]byte, 0, min(to-from, 256<<10))
	good = from
	for at := from; ; {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, max(4<<10, len(buf)))
		}
		n, err := file.ReadAt(buf[len(buf):min(cap(buf), len(buf)+int(max(0, to-at)))], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return good, fmt.Errorf("read logs: %w", err)
		}
		buf, at = buf[:len(buf)+n], at+int64(n)
		rest := buf
		for {
			n := frameLen(rest)
			if n < 0 {
				return good, errDamaged
			}
			if n == 0 || n > len(rest) {
				break
			}
			payload := payloadOf(rest[:n])
			if payload == nil {
				return good, errDamaged
			}
			if err := f(good, payload); err != nil {
				return good, err
			}
			rest, good = rest[n:], good+int64(n)
		}
		buf = buf[:copy(buf, rest)]
		if n == 0 {
			if len(buf) > 0 {
				return good, errDamaged
			}
			return good, nil
		}
	}
}
