package bus

import (
	"context"
	"math/rand/v2"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// knownStreams are the streams that this Node has used lately.
type knownStreams struct {
	mu struct {
		sync.Mutex
		m   map[string]*knownStream
		ids map[int64]*knownStream
	}
}

// knownStream is a stream as its owner told of it.
type knownStream struct {
	streamInfo
	at   time.Time      // before it was asked for
	last *atomic.Uint64 // the last block in which this Node wrote of it
}

// stream gives what is known of a stream, not older than knownFor.
func (b *Bus) stream(ctx context.Context, name string, fresh bool) (*knownStream, error) {
	key := queueKey("", name)
	b.met.mu.Lock()
	k := b.met.mu.m[key]
	b.met.mu.Unlock()
	if k != nil && !fresh && time.Since(k.at) < knownFor {
		return k, nil
	}
	var reach uint64
	last := new(atomic.Uint64)
	if k != nil {
		reach, last = k.last.Load(), k.last
	}
	now := time.Now()
	r, err := b.ask(ctx, b.partitionOfQueue(key), question{Stream: &streamQuestion{Key: key, Reach: reach}})
	if err != nil {
		return nil, err
	}
	k = &knownStream{r.Stream.Streams[0], now, last}
	b.met.mu.Lock()
	defer b.met.mu.Unlock()
	if b.met.mu.m == nil || len(b.met.mu.m) >= maxKnown {
		b.met.mu.m, b.met.mu.ids = map[string]*knownStream{}, map[int64]*knownStream{}
	}
	if old := b.met.mu.m[key]; old != nil { // another call may have asked too, and written since
		k.last = old.last
	}
	b.met.mu.m[key], b.met.mu.ids[k.ID] = k, k
	return k, nil
}

func (b *Bus) forgetStream(key string) {
	b.met.mu.Lock()
	defer b.met.mu.Unlock()
	if k := b.met.mu.m[key]; k != nil { // but not what was written
		b.met.mu.m[key] = &knownStream{last: k.last}
	}
}

// wrote notes that this Node has written of a stream, so that its next question is answered with that in mind.
func (k *knownStream) wrote(seq uint64) {
	for {
		old := k.last.Load()
		if old >= seq || k.last.CompareAndSwap(old, seq) {
			return
		}
	}
}

// PutStream makes a stream, or changes the settings of the one with its name. Another number of shards closes those whose ranges change and opens
// others in their place; each is read to its end before those that follow it. It returns when every Node that asks the owner sees it.
func (b *Bus) PutStream(ctx context.Context, s Stream) error {
	if s.Tenant == "" {
		s.Tenant = DefaultTenant
	}
	if err := s.validate(); err != nil {
		return err
	}
	k, err := b.stream(ctx, s.Key(), true)
	if err != nil && errs.CodeOf(err) != errs.NotFound {
		return err
	}
	if err == nil && s.Shards > 0 && s.Shards != k.State.opened() {
		if err := b.turn(ctx, k); err != nil {
			return err
		}
	}
	return b.changeStream(ctx, s.Key(), jsonItem(kindStreamPut, streamPut{Stream: s, Nonce: nonce()}))
}

// turn announces a change of shards, and waits until all who put records have heard of it or will ask: they then find out in which shard each one is.
func (b *Bus) turn(ctx context.Context, k *knownStream) error {
	if err := b.changeStream(ctx, k.Key, jsonItem(kindStreamPut, streamPut{Stream: k.State.Stream, Turn: true, Nonce: nonce()})); err != nil {
		return err
	}
	pause(ctx, 2*knownFor)
	return ctx.Err()
}

// SplitShard closes a shard and opens two, of which the second begins with a hash key.
func (b *Bus) SplitShard(ctx context.Context, name, shard, hash string) error {
	k, h, err := b.openShard(ctx, name, shard)
	if err != nil {
		return err
	}
	at, err := parseHashKey(hash)
	if err != nil {
		return err
	}
	if at.compare(h.First) <= 0 || at.compare(h.Last) > 0 {
		return errs.New(errs.Invalid, "the hash key %s does not divide the range of %s", hash, shard)
	}
	if k.State.opened() >= MaxShards {
		return errs.New(errs.Invalid, "stream %s has %d shards, the limit is %d", clip(name), k.State.opened(), MaxShards)
	}
	if err := b.turn(ctx, k); err != nil {
		return err
	}
	return b.changeStream(ctx, k.Key, jsonItem(kindStreamPut, streamPut{Stream: k.State.Stream, Split: &cut{h.N, at}, Nonce: nonce()}))
}

// MergeShards closes two shards whose ranges lie side by side and opens one.
func (b *Bus) MergeShards(ctx context.Context, name, one, other string) error {
	k, h, err := b.openShard(ctx, name, one)
	if err != nil {
		return err
	}
	_, g, err := b.openShard(ctx, name, other)
	if err != nil {
		return err
	}
	if h.First.compare(g.First) > 0 {
		h, g = g, h
	}
	if h.N == g.N || g.First.before() != h.Last {
		return errs.New(errs.Invalid, "the ranges of %s and %s do not lie side by side", one, other)
	}
	if err := b.turn(ctx, k); err != nil {
		return err
	}
	return b.changeStream(ctx, k.Key, jsonItem(kindStreamPut, streamPut{Stream: k.State.Stream, Merge: &[2]int{h.N, g.N}, Nonce: nonce()}))
}

func (b *Bus) openShard(ctx context.Context, name, id string) (*knownStream, *shard, error) {
	n, err := parseShard(id)
	if err != nil {
		return nil, nil, err
	}
	k, err := b.stream(ctx, name, true)
	if err != nil {
		return nil, nil, err
	}
	h := k.State.shard(n)
	if h == nil {
		return nil, nil, noShard(n)
	}
	if h.End != 0 {
		return nil, nil, errs.New(errs.Conflict, "%s is closed already", id)
	}
	return k, h, nil
}

// DeleteStream deletes a stream and its records. To delete what is not there is an error with the code NotFound.
func (b *Bus) DeleteStream(ctx context.Context, name string) error {
	k, err := b.stream(ctx, name, true)
	if err != nil {
		return err
	}
	return b.changeStream(ctx, k.Key, jsonItem(kindStreamDelete, streamDeletion{k.Key, nonce()}))
}

func (b *Bus) changeStream(ctx context.Context, key string, it item) error {
	p := b.partitionOfQueue(key)
	at, err := p.log.append(ctx, []item{it})
	if err != nil {
		return err
	}
	defer b.forgetStream(key)
	_, err = b.ask(ctx, p, question{Reach: at.seq})
	return err
}

// Streams gives all streams, by tenant and name.
func (b *Bus) Streams(ctx context.Context) ([]Stream, error) {
	var out []Stream
	for _, p := range b.parts {
		r, err := b.ask(ctx, p, question{Stream: &streamQuestion{}})
		if err != nil {
			return nil, err
		}
		for _, s := range r.Stream.Streams {
			out = append(out, s.State.Stream)
		}
	}
	sort.Slice(out, func(i, k int) bool { return out[i].Key() < out[k].Key() })
	return out, nil
}

// StreamStatus tells a stream's settings and shards.
func (b *Bus) StreamStatus(ctx context.Context, name string) (StreamStatus, error) {
	k, err := b.stream(ctx, name, false)
	if err != nil {
		return StreamStatus{}, err
	}
	r, err := b.ask(ctx, b.partitionOfQueue(k.Key), question{Stream: &streamQuestion{Key: k.Key, Reach: k.last.Load(), Count: true}})
	if err != nil {
		return StreamStatus{}, err
	}
	s := &r.Stream.Streams[0]
	return StreamStatus{Stream: s.State.Stream, Created: time.UnixMilli(s.Created).UTC(), Changed: time.UnixMilli(s.Changed).UTC(),
		List: s.State.status(ms(time.Now())), Records: s.N}, nil
}

// PutRecords returns when the records are durable, with a result for each. Its error is for what concerns all: no such stream, or an owner that does not
// answer. After an error of an entry with the code Unavailable, Throttled or Timeout that one may have been put all the same. Records of one call and
// shard stand in their order.
func (b *Bus) PutRecords(ctx context.Context, name string, records []Record) ([]PutResult, error) {
	if len(records) > MaxPut {
		return nil, errs.New(errs.TooLarge, "%d records, the limit is %d", len(records), MaxPut)
	}
	k, err := b.stream(ctx, name, false)
	if err != nil {
		return nil, err
	}
	p := b.partitionOfQueue(k.Key)
	out := make([]PutResult, len(records))
	hashes := make([]hashKey, len(records))
	places := make([]pos, len(records))
	type part struct {
		r     *request
		index []int
		size  int
	}
	var parts []*part
	for i := range records {
		r := &records[i]
		if out[i].Err = r.validate(min(b.opt.MaxData, MaxRecord)); out[i].Err != nil {
			continue
		}
		hashes[i] = hashOfKey(r.Key)
		if r.HashKey != "" {
			if hashes[i], out[i].Err = parseHashKey(r.HashKey); out[i].Err != nil {
				continue
			}
		}
		it := recordItem(&loggedRecord{hash: hashes[i], stream: []byte(k.Key), key: []byte(r.Key), id: []byte(r.ID), kind: []byte(r.Type), nonce: rand.Uint64(), data: r.Data})
		if len(parts) == 0 || parts[len(parts)-1].size+it.size() > maxBlock || len(parts[len(parts)-1].r.items) == maxItems {
			parts = append(parts, &part{r: &request{done: make(chan struct{})}})
		}
		g := parts[len(parts)-1]
		g.r.items, g.index, g.size = append(g.r.items, it), append(g.index, i), g.size+it.size()
	}
	failed := error(nil)
	for _, g := range parts { // the order of the stream is the order of the log
		if failed == nil {
			failed = p.log.enqueue(ctx, g.r)
		}
		if failed != nil { // else it is the writer's
			g.r.err = failed
			close(g.r.done)
		}
	}
	for _, g := range parts {
		at, err := p.log.wait(ctx, g.r)
		for n, i := range g.index {
			if out[i].Err = err; err == nil {
				places[i] = posOf(at.seq, at.first+n)
				out[i].Sequence = places[i].sequence()
			}
		}
		if err == nil {
			k.wrote(at.seq)
		}
	}
	b.findShards(ctx, name, k, hashes, places, out)
	return out, nil
}

// findShards tells in which shards records are. The stream may have got others since it was asked for: then it is asked for again.
func (b *Bus) findShards(ctx context.Context, name string, k *knownStream, hashes []hashKey, places []pos, out []PutResult) {
	for i := range out {
		if out[i].Err != nil {
			continue
		}
		if h := k.State.open(hashes[i]); h != nil {
			out[i].Shard = shardName(h.N)
		}
	}
	if time.Since(k.at) < 2*knownFor && !k.State.Turning {
		return // a change of shards is announced for longer than that
	}
	k, err := b.stream(ctx, name, true)
	if err != nil {
		return // they are durable; only the shard may be another
	}
	for i := range out {
		for n := range k.State.Shards {
			if h := &k.State.Shards[n]; out[i].Err == nil && h.holds(hashes[i], places[i]) {
				out[i].Shard = shardName(h.N)
			}
		}
	}
}

// ErrIteratorExpired is why an iterator is not taken that is older than 15 minutes.
var ErrIteratorExpired = errs.New(errs.Conflict, "the iterator is older than %v", iteratorLife).WithHint("Get a new one.")

// Iterator gives a place in a shard from which GetRecords reads.
func (b *Bus) Iterator(ctx context.Context, name, shard string, from Start) (string, error) {
	n, err := parseShard(shard)
	if err != nil {
		return "", err
	}
	k, err := b.stream(ctx, name, false)
	if err != nil {
		return "", err
	}
	h := k.State.shard(n)
	if h == nil {
		if k, err = b.stream(ctx, name, true); err != nil {
			return "", err
		}
		if h = k.State.shard(n); h == nil {
			return "", noShard(n)
		}
	}
	p := b.partitionOfQueue(k.Key)
	it := iterator{part: p.num, stream: k.ID, shard: n, made: ms(time.Now())}
	switch from.From {
	case TrimHorizon:
		it.next = h.Begin
	case AtSequence, AfterSequence:
		at, err := parseSequence(from.Sequence)
		if err != nil {
			return "", err
		}
		if at < h.Begin || h.End != 0 && at > h.End {
			return "", errs.New(errs.Invalid, "the sequence number %s is not of %s", from.Sequence, shard)
		}
		if it.next = at; from.From == AfterSequence {
			it.next++
		}
	case AtTimestamp:
		if from.Time.IsZero() {
			return "", errs.New(errs.Invalid, "an iterator of type %s has a time", from.From)
		}
		r, err := b.ask(ctx, p, question{Stream: &streamQuestion{Do: askTime, ID: k.ID, Reach: k.last.Load(), Shard: n, At: ms(from.Time)}})
		if err != nil {
			return "", err
		}
		it.next = r.Stream.Next
	case Latest:
	default:
		return "", errs.New(errs.Invalid, "%q is no type of iterator", clip(string(from.From))).WithHint("%s", strings.Join([]string{
			string(TrimHorizon), string(Latest), string(AtSequence), string(AfterSequence), string(AtTimestamp)}, ", "))
	}
	if it.next == 0 { // the latest, or a time that is not yet
		info, err := p.stream.Info(ctx)
		if err != nil {
			return "", fault("read the state of the event log", err)
		}
		it.next = posOf(info.State.LastSeq+1, 0)
	}
	return it.String(), nil
}

// Get says how much GetRecords gives at most; zero means MaxGet and MaxGetBytes.
type Get struct {
	Records int
	Bytes   int // of data and keys; one record is given all the same
}

// Got is what GetRecords gives.
type Got struct {
	Stream  string // its key
	Shard   string
	Records []GotRecord
	Next    string        // the iterator to go on with; empty at the end of a closed shard
	Behind  time.Duration // how long ago the first record came that is behind these; 0 where there is none
	// Children took the range of a closed shard at whose end this is.
	Children []Shard
}

// GetRecords gives records from an iterator on, in their order; it waits for none.
func (b *Bus) GetRecords(ctx context.Context, iter string, g Get) (Got, error) {
	it, err := parseIterator(iter)
	if err != nil {
		return Got{}, err
	}
	if it.part >= len(b.parts) {
		return Got{}, errs.New(errs.Invalid, "%q is not an iterator of a stream", clip(iter))
	}
	now := time.Now()
	if ms(now)-it.made > iteratorLife.Milliseconds() {
		return Got{}, ErrIteratorExpired
	}
	if g.Records == 0 {
		g.Records = MaxGet
	}
	if g.Bytes == 0 {
		g.Bytes = MaxGetBytes
	}
	if g.Records < 0 || g.Records > MaxGet || g.Bytes < 0 || g.Bytes > MaxGetBytes {
		return Got{}, errs.New(errs.Invalid, "1 to %d records can be got at once, and to %d bytes", MaxGet, MaxGetBytes)
	}
	p := b.parts[it.part]
	r, err := b.ask(ctx, p, question{Stream: &streamQuestion{Do: askRecords, ID: it.stream, Reach: b.wroteTo(it.stream), Shard: it.shard, Next: it.next, Limit: g.Records, Bytes: g.Bytes}})
	if err != nil {
		return Got{}, err
	}
	info := &r.Stream.Streams[0]
	h := info.State.shard(it.shard)
	if h == nil {
		return Got{}, noShard(it.shard)
	}
	out := Got{Stream: info.Key, Shard: shardName(it.shard)}
	var left int64
	out.Records, it.next, left, err = p.read(ctx, &shardView{info.Key, *h, true}, r.Stream.Rows, it.next, g.Records, g.Bytes)
	if err != nil && len(out.Records) == 0 {
		return Got{}, err
	}
	if left == 0 {
		left = r.Stream.After
	}
	if left > 0 {
		out.Behind = max(now.Sub(time.UnixMilli(left)), time.Millisecond)
	}
	if left == 0 && h.End != 0 {
		for _, n := range info.State.children(it.shard) {
			for _, c := range info.State.status(ms(now)) {
				if c.ID == shardName(n) {
					out.Children = append(out.Children, c)
				}
			}
		}
		return out, nil
	}
	it.made = ms(now)
	out.Next = it.String()
	return out, nil
}

// wroteTo is the last block in which this Node wrote of a stream, as far as it remembers.
func (b *Bus) wroteTo(stream int64) uint64 {
	b.met.mu.Lock()
	defer b.met.mu.Unlock()
	if k := b.met.mu.ids[stream]; k != nil {
		return k.last.Load()
	}
	return 0
}
