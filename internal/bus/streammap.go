package bus

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
)

// StreamMapping says how the records of a stream reach a Function: AWS's event source mapping.
type StreamMapping struct {
	Name     string        // of the Mapping, unique: how far it is, is kept under this name
	Stream   string        // name or key
	Start    Start         // TrimHorizon, Latest or AtTimestamp: where it begins the first time; what it has done counts afterwards
	Batch    int           // most records at once; 0 means 100; to 10,000
	Window   time.Duration // how long a Batch is gathered from its first record on; to 5 min
	Parallel int           // Batches of one shard at once, each with partition keys of its own; 0 means 1; to 10
	Retries  *int          // of a Batch that failed; nil means until its records are too old
	MaxAge   time.Duration // of records; 0 means the stream's retention, which bounds it too
	Bisect   bool          // a Batch that failed is tried again in two halves
	// Filter keeps the records that it says yes to, each as the only Item of a Batch; others count as done. nil keeps all.
	Filter func(b *invocation.Batch) bool `json:"-"`
	// Failed is told of records that are given up, before they count as done. After an error it is told again; nil is not.
	Failed func(ctx context.Context, f *StreamFailure) error `json:"-"`
}

// StreamFailure tells of records that a Mapping gave up.
type StreamFailure struct {
	Mapping string
	Batch   *invocation.Batch // the records, in their order; at least one
	Tries   int               // calls of Consume that had to do with them
	Expired bool              // they became too old; else their tries are spent
	Err     error             // of the last try; nil where there was none, or the Function named records as failed
}

const (
	maxParallel = 10
	// streamRecordSize is about what a record of a stream has in JSON besides data and keys.
	streamRecordSize = 600
)

// Validate tells what is wrong with the settings, and fills in what is zero.
func (m *StreamMapping) Validate() error {
	if m.Batch == 0 {
		m.Batch = 100
	}
	m.Parallel = max(m.Parallel, 1)
	switch {
	case m.Name == "" || len(m.Name) > maxName:
		return errs.New(errs.Invalid, "a mapping's name has 1 to %d bytes", maxName)
	case m.Start.From != TrimHorizon && m.Start.From != Latest && (m.Start.From != AtTimestamp || m.Start.Time.IsZero()):
		return errs.New(errs.Invalid, "mapping %s: it starts at %s, %s, or %s with a time", clip(m.Name), TrimHorizon, Latest, AtTimestamp)
	case m.Batch < 1 || m.Batch > MaxGet || m.Window < 0 || m.Window > maxWindow || m.Parallel > maxParallel:
		return errs.New(errs.Invalid, "mapping %s: a batch has 1 to %d records and is gathered for up to %v; up to %d of a shard run at once", clip(m.Name), MaxGet, maxWindow, maxParallel)
	case m.Retries != nil && *m.Retries < 0 || m.MaxAge < 0:
		return errs.New(errs.Invalid, "mapping %s: retries and age cannot be negative", clip(m.Name))
	}
	m.Stream = queueKey("", m.Stream)
	return nil
}

// PollStream feeds a Consumer from a stream until ctx ends; calls of Consume that run then are let end, and what they did is kept. The shards are read by the
// Node that owns the stream's Partition alone: elsewhere the call waits until this Node does. The ctx of Consume ends when it does not any more. Records of one partition
// key are consumed in their order, one Batch at a time; a Batch that fails holds up what comes behind it, of its shard and, where several run at once, of its keys. A
// stream that does not exist is waited for.
func (b *Bus) PollStream(ctx context.Context, m StreamMapping, c Consumer) error {
	if err := m.Validate(); err != nil {
		return err
	}
	p := b.partitionOfQueue(m.Stream)
	for ctx.Err() == nil {
		done := make(chan struct{})
		p.mu.Lock()
		own := p.mu.own
		if own != nil { // it waits for what is started before it is silent
			own.wait.Go(func() {
				defer close(done)
				(&streamPoller{o: own, m: m, c: c}).run(ctx)
			})
		}
		p.mu.Unlock()
		if own != nil {
			<-done
			if own.ctx.Err() == nil && ctx.Err() == nil {
				pause(ctx, time.Second) // the index could not be read
			}
		} else {
			pause(ctx, 200*time.Millisecond)
		}
	}
	return nil
}

// ForgetMapping removes what is known of how far a Mapping is: one of its name begins at its Start again.
func (b *Bus) ForgetMapping(ctx context.Context, mapping, stream string) error {
	p := b.partitionOfQueue(queueKey("", stream))
	at, err := p.log.append(ctx, []item{jsonItem(kindCheckpoint, checkpoint{Do: pointDrop, Mapping: mapping})})
	if err != nil {
		return err
	}
	_, err = b.ask(ctx, p, question{Reach: at.seq})
	return err
}

// StreamMappings gives what has begun to poll streams, and was not forgotten.
func (b *Bus) StreamMappings(ctx context.Context) ([]StreamMapped, error) {
	var out []StreamMapped
	for _, p := range b.parts {
		r, err := b.ask(ctx, p, question{Stream: &streamQuestion{Do: askMappings}})
		if err != nil {
			return nil, err
		}
		out = append(out, r.Stream.Mappings...)
	}
	slices.SortFunc(out, func(a, b StreamMapped) int {
		return strings.Compare(a.Mapping+"\x00"+a.Stream, b.Mapping+"\x00"+b.Stream)
	})
	return out, nil
}

// streamPoller runs one Mapping for as long as the Node owns the Partition.
type streamPoller struct {
	o *owner
	m StreamMapping
	c Consumer
}

// begun is where a Mapping began.
type begun struct {
	gen  int64 // 0: it has not
	from From
	at   int64 // ms
}

// run polls until ctx ends, the Node owns the Partition no more, or the index cannot be read.
func (s *streamPoller) run(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(s.o.ctx, stop)()
	free, ok := s.o.s.claim(ctx, s.m.Name)
	if !ok {
		return
	}
	defer free()
	word, leave := s.o.s.follow()
	defer leave()
	for missed := false; ctx.Err() == nil; {
		info, start, err := s.look(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.o.b.opt.Log.Warn("a stream cannot be polled", "mapping", s.m.Name, "stream", s.m.Stream, "err", err)
			}
			return
		}
		if info != nil && start.gen == 0 {
			c := checkpoint{Do: pointStart, Mapping: s.m.Name, Stream: info.ID, Epoch: s.o.epoch, From: s.m.Start.From}
			if c.From == AtTimestamp {
				c.At = ms(s.m.Start.Time)
			}
			at, err := s.o.p.log.append(ctx, []item{jsonItem(kindCheckpoint, c)})
			if err != nil {
				pause(ctx, time.Second)
				continue
			}
			if s.o.progress.reach(ctx, s.o.ctx, at.seq) != nil {
				return
			}
			if info, start, err = s.look(ctx); err != nil {
				return
			}
		}
		if info == nil || start.gen == 0 {
			if !missed {
				missed = true
				s.o.b.opt.Log.Warn("a stream is not polled; it is not there yet", "mapping", s.m.Name, "stream", s.m.Stream)
			}
			select {
			case <-word:
			case <-ctx.Done():
			}
			continue
		}
		if !s.shards(ctx, info, start, word) {
			return
		}
	}
}

// look reads the stream, or nil, and where the Mapping began.
func (s *streamPoller) look(ctx context.Context) (*streamInfo, begun, error) {
	var b begun
	all, err := s.o.streamInfos(ctx, "key = ?", []any{s.m.Stream})
	if err != nil || len(all) == 0 {
		return nil, b, err
	}
	_, err = s.o.readOne(ctx, []any{&b.gen, &b.from, &b.at}, "SELECT gen, way, at FROM starts WHERE mapping = ? AND stream = ?", s.m.Name, all[0].ID)
	return &all[0], b, err
}

// shards polls each shard whose parents are done, until the stream or the Mapping's start is another one. False says that the index cannot be read.
func (s *streamPoller) shards(ctx context.Context, info *streamInfo, start begun, word <-chan struct{}) bool {
	ctx, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stop()
	ended := make(chan bool, 1) // a shard is done, or could not be read
	running := map[int]bool{}
	for id := info.ID; ; {
		done, err := s.done(ctx, info, start)
		if err != nil {
			return false
		}
		for i := range info.State.Shards {
			h := info.State.Shards[i]
			waits := slices.ContainsFunc(h.Parents, func(n int) bool { return info.State.shard(n) != nil && !done[n] })
			if waits || done[h.N] || running[h.N] {
				continue
			}
			running[h.N] = true
			wait.Go(func() {
				ok := s.shard(ctx, id, start, h.N)
				select {
				case ended <- ok:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-word:
		case ok := <-ended:
			if !ok {
				return false
			}
		case <-ctx.Done():
			return true
		}
		var now begun
		if info, now, err = s.look(ctx); err != nil {
			return false
		}
		if info == nil || info.ID != id || now.gen != start.gen {
			return true
		}
	}
}

// done tells which closed shards the Mapping has read to their ends, or begins behind.
func (s *streamPoller) done(ctx context.Context, info *streamInfo, start begun) (map[int]bool, error) {
	out := map[int]bool{}
	for i := range info.State.Shards {
		h := &info.State.Shards[i]
		if h.End == 0 {
			continue
		}
		next, err := s.point(ctx, start, h)
		if err != nil {
			return nil, err
		}
		out[h.N] = next >= h.End
	}
	return out, nil
}

// point is where the Mapping goes on in a shard.
func (s *streamPoller) point(ctx context.Context, start begun, h *shard) (pos, error) {
	next := int64(h.Begin)
	if start.from == Latest {
		next = max(next, start.gen)
	}
	_, err := s.o.readOne(ctx, []any{&next}, "SELECT max(next, ?) FROM points WHERE gen = ? AND shard = ?", next, start.gen, h.N)
	return pos(next), err
}

// batch makes the Payload of records.
func (s *streamPoller) batch(state *streamState, n int, recs []GotRecord) *invocation.Batch {
	return BatchOfStream(&state.Stream, shardName(n), recs)
}

// RecordType is the type of the Events that records of a stream become, where the records have none.
const RecordType = "ebb.stream.record"

// BatchOfStream gives records of a shard as they reach a Function.
func BatchOfStream(st *Stream, shard string, recs []GotRecord) *invocation.Batch {
	b := &invocation.Batch{Via: invocation.ViaStream, Source: st.Name, Shard: shard}
	if st.Table != "" {
		b.Via, b.Source, b.Label = invocation.ViaTable, st.Table, st.Label
	}
	for i := range recs {
		r := &recs[i]
		e := &event.Event{ID: r.ID, Source: "/streams/" + st.Key(), Type: r.Type, Time: r.Arrived, Data: r.Data}
		if e.ID == "" {
			e.ID = shard + ":" + r.Sequence
		}
		if e.Type == "" {
			e.Type = RecordType
		}
		b.Items = append(b.Items, invocation.Item{Event: e, Arrived: r.Arrived, Key: r.Key, Sequence: r.Sequence})
	}
	return b
}
