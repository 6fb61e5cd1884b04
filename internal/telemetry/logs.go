package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
)

// LogOptions say how logs are kept.
type LogOptions struct {
	MaxBytes     int64        // of all segments together, at least 1 MB; 0 means 256 MB
	SegmentBytes int64        // of one; 0 means a sixteenth of MaxBytes
	Durable      bool         // what Put took survives the machine too: segments are synced before the next one begins
	Log          *slog.Logger // takes warnings; nil drops them
	Seal         *seal.Box    // what records are sealed by; nil for none
}

const (
	flushAfter = 100 * time.Millisecond
	// followAfter is the delay when somebody is reading along.
	followAfter = 5 * time.Millisecond
	// flushBytes are written without waiting for the delay.
	flushBytes = 64 << 10
	// maxPending is what may wait for a disk that is slow; beyond it records are dropped.
	maxPending = 8 << 20
	// keepBuffer is the largest buffer that is kept for the next batch.
	keepBuffer = 256 << 10
	warnEvery  = time.Minute
	minBytes   = 1 << 20
)

// Logs are the logs of all functions of a Node, in one folder. Its methods may be called concurrently.
//
// Lock order: file before mu. Writers only take mu, and nobody touches a file under it; file is held while a batch is written,
// so that batches stay in order.
type Logs struct {
	dir     string
	o       LogOptions
	dropped atomic.Uint64
	flushed chan struct{} // closed when the flusher has ended
	work    chan struct{} // wakes the flusher before its delay is over; one wake-up may wait

	file struct {
		sync.Mutex
		f        *os.File // the last segment
		spare    []byte   // buffer for the next batch
		warned   uint64   // lost records at the last warning
		lastWarn time.Time
	}
	mu struct {
		sync.Mutex
		buf       []byte // frames that wait
		count     int    // of them
		segments  []segment
		grown     chan struct{} // closed and replaced when segments have grown
		followers int
		closed    bool
	}
}

// segment is one file. Bytes beyond size are being written and not read yet.
type segment struct {
	id   uint64
	size int64
}

// OpenLogs opens the logs in a folder, making it when it is missing. A record that a crash left torn is cut off.
func OpenLogs(dir string, o LogOptions) (*Logs, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	// Room for the longest record there can be.
	o.MaxBytes = max(o.MaxBytes, minBytes)
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = o.MaxBytes / 16
	}
	// At least two segments: removing the oldest must leave something.
	o.SegmentBytes = max(min(o.SegmentBytes, o.MaxBytes/2), int64(len(segmentHead))+1)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	l := &Logs{dir: dir, o: o, flushed: make(chan struct{}), work: make(chan struct{}, 1)}
	l.mu.grown = make(chan struct{})
	segments, err := l.list()
	if err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	for _, s := range segments {
		if err := checkHead(l.path(s.id), s.size); err != nil {
			return nil, err
		}
	}
	if n := len(segments); n > 0 {
		last := &segments[n-1]
		whole, err := l.mend(last)
		if err == nil && whole {
			l.file.f, err = os.OpenFile(l.path(last.id), os.O_WRONLY|os.O_APPEND, 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("open logs: %w", err)
		}
	}
	l.mu.segments = segments
	go l.run()
	return l, nil
}

func (l *Logs) path(id uint64) string { return filepath.Join(l.dir, fmt.Sprintf("%016x.log", id)) }

// list finds the segments in order.
func (l *Logs) list() ([]segment, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	var out []segment
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".log")
		id, err := strconv.ParseUint(name, 16, 64)
		if !ok || err != nil || len(name) != 16 {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		out = append(out, segment{id, info.Size()})
	}
	slices.SortFunc(out, func(a, b segment) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return out, nil
}

// checkHead refuses a segment of a newer format.
func checkHead(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open logs: %w", err)
	}
	defer f.Close()
	head := make([]byte, min(size, int64(len(segmentHead))))
	if _, err := f.ReadAt(head, 0); err != nil && len(head) > 0 {
		return fmt.Errorf("open logs: %w", err)
	}
	if strings.HasPrefix(segmentHead, string(head)) {
		return nil // ours, or cut short by a crash
	}
	v, ok := strings.CutPrefix(string(head), segmentPrefix)
	if num, _, _ := strings.Cut(v, "\n"); ok && num > "1" && num[0] <= '9' {
		return errs.New(errs.Unsupported, "log segment %s was written by a newer ebb", path).
			WithHint("Use the ebb that wrote it, or a newer one; or move the file away.")
	}
	return errs.New(errs.Failed, "%s is not a log segment", path).WithHint("Move the file away and start again.")
}

// mend cuts the last segment off behind its last whole record. It tells whether more can be appended: a segment that is damaged
// further in is left as it is.
func (l *Logs) mend(s *segment) (bool, error) {
	path := l.path(s.id)
	start := int64(len(segmentHead))
	if s.size < start {
		s.size = start
		return true, os.WriteFile(path, []byte(segmentHead), 0o600)
	}
	good, err := scan(path, start, s.size, func(int64, []byte) error { return nil })
	switch {
	case err != nil && !errors.Is(err, errDamaged):
		return false, err
	case good == s.size:
		return true, nil
	}
	if torn, err := tornFrom(path, good, s.size); err != nil || !torn {
		l.o.Log.Warn("log segment is damaged", "file", path, "from", good)
		return false, err
	}
	s.size = good
	return true, os.Truncate(path, good)
}

// tornFrom tells whether the rest of a file can be what a crash left of one record: less than it says, its last bytes wrong,
// or zeros.
func tornFrom(path string, from, to int64) (bool, error) {
	if to-from > frameHead+maxFrame {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	rest := make([]byte, to-from)
	if _, err := f.ReadAt(rest, from); err != nil {
		return false, err
	}
	n := frameLen(rest)
	return n == 0 || n >= len(rest) || len(bytes.Trim(rest, "\x00")) == 0, nil
}

// Write adds Records in their order. It does not wait for the disk, and keeps nothing of the Records' strings. Records are
// dropped, and counted, when the disk cannot take them; those of one call go together. After Close they all are.
func (l *Logs) Write(rs ...Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed || len(l.mu.buf) > maxPending {
		l.dropped.Add(uint64(len(rs)))
		return
	}
	before := len(l.mu.buf)
	for i := range rs {
		r := &rs[i]
		if len(r.Text) <= maxText {
			l.mu.buf = appendFrame(l.mu.buf, l.o.Seal, r, r.Text)
			l.mu.count++
			continue
		}
		pieces(r.Text, func(text string) {
			l.mu.buf = appendFrame(l.mu.buf, l.o.Seal, r, text)
			l.mu.count++
		})
	}
	// The flusher sleeps while there is nothing to write, and is woken again when there is enough for a batch.
	if after := len(l.mu.buf); before == 0 && after > 0 || before < flushBytes && after >= flushBytes {
		l.wake()
	}
}

func (l *Logs) wake() {
	select {
	case l.work <- struct{}{}:
	default:
	}
}

// run is the flusher.
func (l *Logs) run() {
	defer close(l.flushed)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		select {
		case <-l.work:
		case <-timer.C:
			l.flush()
			continue
		}
		l.mu.Lock()
		waiting, follow, closed := len(l.mu.buf), l.mu.followers > 0, l.mu.closed
		l.mu.Unlock()
		switch {
		case closed:
			l.flush()
			return
		case waiting >= flushBytes:
			l.flush()
		case waiting > 0 && follow:
			timer.Reset(followAfter)
		case waiting > 0:
			timer.Reset(flushAfter)
		}
	}
}

// flush writes what waits.
func (l *Logs) flush() {
	l.file.Lock()
	defer l.file.Unlock()
	l.mu.Lock()
	batch, count := l.mu.buf, l.mu.count
	l.mu.buf, l.mu.count = l.file.spare[:0], 0
	l.file.spare = nil
	segments := slices.Clone(l.mu.segments)
	l.mu.Unlock()
	if count > 0 {
		var lost int
		segments, lost = l.append(segments, batch)
		l.mu.Lock()
		l.mu.segments = segments
		close(l.mu.grown)
		l.mu.grown = make(chan struct{})
		l.mu.Unlock()
		l.dropped.Add(uint64(lost))
	}
	l.warn()
	if cap(batch) <= keepBuffer {
		l.file.spare = batch[:0]
	}
}

// warn tells of lost records, but not all the time. The caller holds file.
func (l *Logs) warn() {
	if lost := l.dropped.Load(); lost > l.file.warned && time.Since(l.file.lastWarn) > warnEvery {
		l.o.Log.Warn("function logs are lost; is the disk full?", "dir", l.dir, "lost", lost)
		l.file.warned, l.file.lastWarn = lost, time.Now()
	}
}

// append writes a batch to the last segment and to new ones, removing the oldest to stay in bounds. It returns the segments
// and how many records could not be written. The caller holds file.
func (l *Logs) append(segments []segment, batch []byte) ([]segment, int) {
	for len(batch) > 0 {
		var space int64
		if n := len(segments); n > 0 && l.file.f != nil {
			space = l.o.SegmentBytes - segments[n-1].size
		}
		part := fit(batch, space)
		if part == 0 && (len(segments) == 0 || l.file.f == nil || segments[len(segments)-1].size > int64(len(segmentHead))) {
			var err error
			if segments, err = l.rotate(segments); err != nil {
				l.o.Log.Debug("new log segment", "err", err)
				return segments, countFrames(batch)
			}
			continue
		}
		if part == 0 { // larger than a segment: it gets one of its own
			part = frameLen(batch)
		}
		segments = l.trim(segments, int64(part))
		last := &segments[len(segments)-1]
		n, err := l.file.f.Write(batch[:part])
		if err != nil {
			l.o.Log.Debug("write log segment", "err", err)
			// What was written in part would hide all that follows.
			if n > 0 && os.Truncate(l.path(last.id), last.size) != nil {
				_ = l.file.f.Close()
				l.file.f = nil
			}
			return segments, countFrames(batch)
		}
		last.size += int64(part)
		batch = batch[part:]
	}
	return segments, 0
}

// rotate begins a new segment.
func (l *Logs) rotate(segments []segment) ([]segment, error) {
	if l.file.f != nil {
		var err error
		if l.o.Durable {
			err = l.file.f.Sync()
		}
		err = errors.Join(err, l.file.f.Close())
		l.file.f = nil
		if err != nil {
			return segments, err
		}
	}
	next := segment{id: 1, size: int64(len(segmentHead))}
	if n := len(segments); n > 0 {
		next.id = segments[n-1].id + 1
	}
	segments = l.trim(segments, next.size)
	f, err := os.OpenFile(l.path(next.id), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return segments, err
	}
	if _, err := f.WriteString(segmentHead); err != nil {
		return segments, errors.Join(err, f.Close(), os.Remove(l.path(next.id)))
	}
	if l.o.Durable {
		if err := syncDir(l.dir); err != nil {
			return segments, errors.Join(err, f.Close(), os.Remove(l.path(next.id)))
		}
	}
	l.file.f = f
	return append(segments, next), nil
}

// trim removes the oldest segments until n more bytes are within bounds. The one that is written stays.
func (l *Logs) trim(segments []segment, n int64) []segment {
	for _, s := range segments {
		n += s.size
	}
	keep := 1
	if l.file.f == nil {
		keep = 0
	}
	for len(segments) > keep && n > l.o.MaxBytes {
		if err := os.Remove(l.path(segments[0].id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.o.Log.Warn("remove old log segment", "err", err)
			break
		}
		n -= segments[0].size
		segments = segments[1:]
	}
	return segments
}

// fit returns how many bytes of whole frames are at most space.
func fit(batch []byte, space int64) int {
	at := 0
	for at < len(batch) {
		n := frameLen(batch[at:])
		if int64(at+n) > space {
			break
		}
		at += n
	}
	return at
}

func countFrames(batch []byte) (n int) {
	for len(batch) > 0 {
		batch = batch[frameLen(batch):]
		n++
	}
	return n
}

// Sync returns when all that was written before is on disk, as far as the disk took it.
func (l *Logs) Sync() error {
	l.flush()
	l.file.Lock()
	defer l.file.Unlock()
	if l.file.f == nil {
		return nil
	}
	if err := l.file.f.Sync(); err != nil {
		return fmt.Errorf("sync logs: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Put is Write and Sync: without an error the Records are on disk, where the Logs are Durable. With one, each of them may be there or not: Records that
// others wrote at the same time may be the ones that were dropped.
func (l *Logs) Put(rs ...Record) error {
	before := l.dropped.Load()
	l.Write(rs...)
	if err := l.Sync(); err != nil {
		return err
	}
	if l.dropped.Load() != before {
		return errs.New(errs.Unavailable, "the logs cannot be written; is the disk full?")
	}
	return nil
}

// Dropped is how many Records were lost since OpenLogs.
func (l *Logs) Dropped() uint64 { return l.dropped.Load() }

// Close writes what waits and ends all followers. It is idempotent.
func (l *Logs) Close() error {
	l.mu.Lock()
	first := !l.mu.closed
	l.mu.closed = true
	l.mu.Unlock()
	l.wake()
	<-l.flushed
	if !first {
		return nil
	}
	err := l.Sync()
	l.file.Lock()
	defer l.file.Unlock()
	if l.file.f != nil {
		err = errors.Join(err, l.file.f.Close())
		l.file.f = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.mu.grown)
	l.mu.grown = make(chan struct{})
	return err
}
