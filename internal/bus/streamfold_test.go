package bus

import (
	"bytes"
	"math/big"
	"slices"
	"testing"
)

// held gives how many records the index has of each shard of a stream.
func (b *bench) held(t *testing.T, key string) map[int]int {
	t.Helper()
	rows, err := b.x.query(t.Context(), "SELECT r.shard, sum(r.n) FROM records r JOIN streams s ON s.id = r.stream WHERE s.key = ? GROUP BY r.shard", key)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	out := map[int]int{}
	for rows.Next() {
		var shard, n int
		if err := rows.Scan(&shard, &n); err != nil {
			t.Fatal(err)
		}
		out[shard] = n
	}
	return out
}

func (b *bench) point0(t *testing.T, gen int64) (next int64) {
	t.Helper()
	if _, err := b.x.one(t.Context(), []any{&next}, "SELECT next FROM points WHERE gen = ? AND shard = 0", gen); err != nil {
		t.Fatal(err)
	}
	return next
}

func (b *bench) gen(t *testing.T, mapping string) (gen int64) {
	t.Helper()
	if _, err := b.x.one(t.Context(), []any{&gen}, "SELECT gen FROM starts WHERE mapping = ?", mapping); err != nil {
		t.Fatal(err)
	}
	return gen
}

const foldKey = DefaultTenant + "/s"

func recordOf(nonce uint64, hash hashKey) item {
	return recordItem(&loggedRecord{hash: hash, stream: []byte(foldKey), key: []byte("k"), nonce: nonce, data: []byte("data")})
}

func TestStreamFold_TakesEachRecordOnceIntoTheShardThatIsOpen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.add(t, recordOf(1, hashKey{})) // before there is a stream
	b.add(t, jsonItem(kindStreamPut, streamPut{Stream: Stream{Name: "s", Shards: 2}, Nonce: "1"}), recordOf(2, hashKey{}), recordOf(3, lastHash))
	one := recordOf(4, hashKey{})
	b.add(t, one)
	b.add(t, one) // written twice, after an answer was lost
	if got := b.held(t, foldKey); got[0] != 2 || got[1] != 1 {
		t.Fatalf("got %v", got)
	}
	// In one block, before and behind a merge.
	out := b.add(t, recordOf(5, lastHash), jsonItem(kindStreamPut, streamPut{Merge: &[2]int{1, 0}, Stream: Stream{Name: "s"}, Nonce: "2"}), recordOf(6, lastHash))
	if got := b.held(t, foldKey); got[0] != 2 || got[1] != 2 || got[2] != 1 || !out.streams.changed || len(out.streams.fresh) != 2 {
		t.Fatalf("got %v, %+v", got, out.streams)
	}
	// A change of what is closed already does nothing.
	for _, p := range []streamPut{{Merge: &[2]int{1, 0}}, {Split: &cut{0, hashKey{1}}}, {Split: &cut{2, hashKey{}}}, {Merge: &[2]int{2, 2}}, {Split: &cut{9, hashKey{1}}}} {
		p.Stream, p.Nonce = Stream{Name: "s"}, nonce()
		before := len(b.s.live[foldKey].state.Shards)
		if b.add(t, jsonItem(kindStreamPut, p)); len(b.s.live[foldKey].state.Shards) != before {
			t.Errorf("%+v changed the shards", p)
		}
	}
	// A smaller retention forgets shards that are closed for longer, and their records.
	l := b.s.live[foldKey]
	l.state.Shards[0].Closed -= 100 * 24 * 60 * 60 * 1000
	b.add(t, jsonItem(kindStreamPut, streamPut{Stream: Stream{Name: "s"}, Nonce: "3"}))
	if got := b.held(t, foldKey); got[0] != 0 || b.s.live[foldKey].state.shard(0) != nil || b.s.live[foldKey].state.shard(1) == nil {
		t.Errorf("got %v", got)
	}
	b.add(t, jsonItem(kindStreamDelete, streamDeletion{foldKey, "4"}), recordOf(7, hashKey{}))
	if got := b.held(t, foldKey); len(got) != 0 || len(b.s.live) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestStreamFold_TakesCheckpointsOfTheNewestLeaseAndForwardsOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.add(t, jsonItem(kindStreamPut, streamPut{Stream: Stream{Name: "s"}, Nonce: "1"}), jsonItem(kindLease, lease{"one", 7}))
	id := b.s.live[foldKey].id
	point := func(c checkpoint) {
		c.Mapping, c.Stream = "m", id
		b.add(t, jsonItem(kindCheckpoint, c))
	}
	point(checkpoint{Do: pointStart, Epoch: 6, From: Latest})
	if b.gen(t, "m") != 0 {
		t.Fatal("an older lease began")
	}
	point(checkpoint{Do: pointStart, Epoch: 7, From: Latest})
	gen := b.gen(t, "m")
	point(checkpoint{Do: pointStart, Epoch: 7, From: TrimHorizon})
	if gen == 0 || b.gen(t, "m") != gen {
		t.Fatal("it began twice")
	}
	for _, c := range []struct {
		epoch uint64
		gen   int64
		next  pos
		want  int64
	}{{7, gen, 100, 100}, {7, gen, 90, 100}, {6, gen, 110, 100}, {8, gen, 110, 100}, {7, gen + 1, 110, 100}, {7, gen, 110, 110}} {
		point(checkpoint{Do: pointMove, Epoch: c.epoch, Gen: c.gen, Next: c.next})
		if got := b.point0(t, gen); got != c.want {
			t.Errorf("%+v: stands at %d", c, got)
		}
	}
	b.add(t, jsonItem(kindLease, lease{"two", 9}))
	point(checkpoint{Do: pointMove, Epoch: 7, Gen: gen, Next: 120})
	if got := b.point0(t, gen); got != 110 {
		t.Errorf("an old owner moved it to %d", got)
	}
	// A start that was forgotten takes no checkpoints any more, and a newer one is not forgotten with it.
	point(checkpoint{Do: pointDrop})
	point(checkpoint{Do: pointMove, Epoch: 9, Gen: gen, Next: 130})
	if b.gen(t, "m") != 0 || b.point0(t, gen) != 0 {
		t.Error("what was forgotten stands")
	}
}

// A base holds checkpoints that are newer than the log's head: what is folded onto it once more must come out as it was.
func TestStreamFold_FoldsCheckpointsAgainWithoutChange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.add(t, jsonItem(kindStreamPut, streamPut{Stream: Stream{Name: "s"}, Nonce: "1"}), jsonItem(kindLease, lease{"one", 7}))
	id := b.s.live[foldKey].id
	move := func(gen int64, next pos) item {
		return jsonItem(kindCheckpoint, checkpoint{Do: pointMove, Mapping: "m", Stream: id, Epoch: 7, Gen: gen, Next: next})
	}
	begin := jsonItem(kindCheckpoint, checkpoint{Do: pointStart, Mapping: "m", Stream: id, Epoch: 7, From: Latest})
	drop := jsonItem(kindCheckpoint, checkpoint{Do: pointDrop, Mapping: "m"})
	first := b.seq + 1
	b.add(t, begin)
	one := b.gen(t, "m")
	blocks := [][]item{{begin}, {move(one, 5)}, {move(one, 50)}, {drop}, {begin}}
	for _, items := range blocks[1:] {
		b.add(t, items...)
	}
	two := b.gen(t, "m")
	blocks = append(blocks, []item{move(two, 7)}, []item{move(two, 9)})
	for _, items := range blocks[5:] {
		b.add(t, items...)
	}
	for again := range len(blocks) { // from each place on
		b.seq = first + uint64(again) - 1
		b.x.applied = b.seq
		for _, items := range blocks[again:] {
			b.add(t, items...)
		}
		if b.gen(t, "m") != two || b.point0(t, two) != 9 || b.point0(t, one) != 0 {
			t.Fatalf("from %d on: begun at %d, stands at %d and %d", again, b.gen(t, "m"), b.point0(t, two), b.point0(t, one))
		}
	}
}

func TestHashRanges_CoverAllHashesOnce(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 7, MaxShards} {
		var next hashKey
		list := hashRanges(n)
		for i, r := range list {
			if r[0] != next || r[0].compare(r[1]) >= 0 {
				t.Fatalf("%d of %d is %s to %s", i, n, r[0], r[1])
			}
			v := new(big.Int).SetBytes(r[1][:])
			v.Add(v, big.NewInt(1)).FillBytes(make([]byte, 17))
			if v.BitLen() <= 128 {
				v.FillBytes(next[:])
			}
		}
		if list[n-1][1] != lastHash {
			t.Errorf("%d ranges end at %s", n, list[n-1][1])
		}
	}
}

// However shards are changed, the open ones have all hashes, each once.
func FuzzStreamState(f *testing.F) {
	f.Add([]byte{3, 0, 200, 1, 9, 250, 2})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 200 {
			return
		}
		s := &streamState{}
		s.spread(1, 1, 1)
		for i, op := range ops {
			at := pos(i + 2)
			n := s.Shards[int(op)%len(s.Shards)].N
			switch op % 3 {
			case 0:
				s.spread(at, int64(at), 1+int(op)/16)
			case 1:
				s.reshape(at, int64(at), &streamPut{Split: &cut{n, hashKey{op, byte(i)}}})
			case 2:
				s.reshape(at, int64(at), &streamPut{Merge: &[2]int{n, s.Shards[i%len(s.Shards)].N}})
			}
			var open []shard
			for _, h := range s.Shards {
				if h.End == 0 {
					open = append(open, h)
				}
			}
			slices.SortFunc(open, func(a, b shard) int { return a.First.compare(b.First) })
			if len(open) == 0 || open[0].First != (hashKey{}) || open[len(open)-1].Last != lastHash || s.Stream.Shards != len(open) {
				t.Fatalf("after %v: %+v", ops[:i+1], open)
			}
			for k := 1; k < len(open); k++ {
				if open[k].First.before() != open[k-1].Last {
					t.Fatalf("after %v: %+v", ops[:i+1], open)
				}
			}
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add(recordItem(&loggedRecord{hash: lastHash, stream: []byte("s"), key: []byte("k"), id: []byte("i"), kind: []byte("t"), nonce: 1, data: []byte("data")}).body)
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(item{kind: kindRecord, body: b})
		if err != nil {
			return
		}
		again, err := parseRecord(recordItem(&r))
		if err != nil || again.hash != r.hash || again.nonce != r.nonce || !bytes.Equal(again.stream, r.stream) || !bytes.Equal(again.key, r.key) || !bytes.Equal(again.id, r.id) ||
			!bytes.Equal(again.kind, r.kind) || !bytes.Equal(again.data, r.data) {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}

func FuzzParseIterator(f *testing.F) {
	f.Add(iterator{3, 1 << 40, 7, 1 << 50, 1 << 41}.String())
	f.Fuzz(func(t *testing.T, s string) {
		if it, err := parseIterator(s); err == nil {
			if again, err := parseIterator(it.String()); err != nil || again != it {
				t.Fatalf("%+v, %v", again, err)
			}
		}
		if at, err := parseSequence(s); err == nil && at.sequence() != s {
			t.Fatalf("%q is %q", s, at.sequence())
		}
		if h, err := parseHashKey(s); err == nil {
			if again, err := parseHashKey(h.String()); err != nil || again != h {
				t.Fatalf("%v, %v", again, err)
			}
		}
	})
}
