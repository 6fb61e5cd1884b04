package bus

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/event"
)

// log is blocks with the times at which they were stored.
type log struct {
	blocks [][]byte
	at     []int64
}

// random makes a log whose events, messages and blocks have many duplicates, some within the window and some not.
func random(r *rand.Rand) *log {
	l, now := &log{}, int64(0)
	add := func(items ...item) { l.blocks, l.at = append(l.blocks, appendBlock(nil, items)), append(l.at, now) }
	add(jsonItem(kindPut, Subscription{Name: "s"}), jsonItem(kindQueuePut, queuePut{Queue{Name: "q.fifo", FIFO: true}, "1"}), jsonItem(kindQueuePut, queuePut{Queue{Name: "q"}, "2"}))
	for i := range 150 {
		now += r.Int64N(200)
		if r.IntN(10) == 0 { // written again after a lost answer
			k := max(0, len(l.blocks)-1-r.IntN(4))
			l.blocks, l.at = append(l.blocks, l.blocks[k]), append(l.at, now)
			continue
		}
		var items []item
		for range 1 + r.IntN(3) {
			id := fmt.Sprint(r.IntN(6))
			switch r.IntN(3) {
			case 0:
				items = append(items, eventItem(&event.Event{ID: id, Source: "s", Type: "t"}))
			case 1:
				items = append(items, sendItem(sending{Queue: queueKey("", "q.fifo"), ID: fmt.Sprint("f", i), Group: "g", Dedup: id}, []byte("x")))
			default:
				items = append(items, sendItem(sending{Queue: queueKey("", "q"), ID: fmt.Sprint("m", i)}, []byte("x")))
			}
		}
		add(items...)
	}
	return l
}

// folded folds a log from a block on, over a base.
func (l *log) folded(t *testing.T, first int, b *base) *bench {
	t.Helper()
	x, err := openIndex(t.Context(), filepath.Join(t.TempDir(), "i.db"), nil, "log", uint64(first), uint64(len(l.blocks)), b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.close() })
	f := newBench(t).folder
	f.x = x
	if err := f.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := x.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	for seq := first; seq <= len(l.blocks); seq++ {
		if err := f.block(t.Context(), uint64(seq), time.UnixMilli(l.at[seq-1]), l.blocks[seq-1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &bench{folder: f}
}

// rows gives what a query says of items from a block on.
func (b *bench) rows(t *testing.T, q string, first int) (out []did) {
	t.Helper()
	rows, err := b.x.query(t.Context(), q, first)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var d did
		if err := rows.Scan(&d.Seq, &d.Idx); err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

// Wherever a purge cuts the log, also between an item and its duplicate, what is folded of the rest delivers the same.
func TestBase_TellsDuplicatesOfWhatWasPurged(t *testing.T) {
	t.Parallel()
	cut := 0
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := random(r)
		live := l.folded(t, 1, nil)
		for _, part := range []int{4, 3, 2} { // each over the base before it
			floor := len(l.blocks)/part - r.IntN(len(l.blocks)/12)
			b, err := (&owner{x: live.x}).baseAt(t.Context(), uint64(floor))
			if err != nil {
				t.Fatal(err)
			}
			cut += len(b.drops)
			again := l.folded(t, floor, b)
			for _, q := range []string{
				"SELECT eseq, eidx FROM deliveries WHERE seq >= ? ORDER BY 1, 2", "SELECT seq, idx FROM messages WHERE seq >= ? ORDER BY 1, 2", "SELECT seq, idx FROM dups WHERE seq >= ? ORDER BY 1, 2",
			} {
				if want, got := live.rows(t, q, floor), again.rows(t, q, floor); !slices.Equal(got, want) {
					t.Errorf("seed %d, from block %d: %s gives\n%v\nwant\n%v", seed, floor, q, got, want)
				}
			}
			// The next base says the same, whichever index it is of.
			next := min(floor+5, len(l.blocks))
			want, err := (&owner{x: live.x}).baseAt(t.Context(), uint64(next))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := (&owner{x: again.x}).baseAt(t.Context(), uint64(next)); err != nil || !slices.Equal(got.drops, want.drops) {
				t.Errorf("seed %d: the next base has %v, %v; want %v", seed, got.drops, err, want.drops)
			}
			live = again
		}
	}
	if cut < 20 {
		t.Errorf("only %d duplicates were cut from their firsts", cut)
	}
}
