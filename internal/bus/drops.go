package bus

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/ebb-run/ebb/internal/errs"
)

// A purge may come between an item and a duplicate of it that was dropped. Whoever folds what is left of the log does not know the first, and would take the
// duplicate for one: so the base names such duplicates. To keep the firsts instead would keep the whole log of a publisher that always sends twice.

// wholeBlock is the number of all that a block says of queues.
const wholeBlock = -1

// baseDrop is a duplicate behind the base, of something before it: block and item.
type baseDrop [2]int64

// maxDrops is how many of them are in one key.
const maxDrops = 10_000

func (p *partition) baseDrops(seq uint64, part int) string {
	return p.baseKey() + "." + strconv.FormatUint(seq, 10) + ".d" + strconv.Itoa(part)
}

func (b *Bus) readBaseDrops(ctx context.Context, p *partition, to *base) error {
	for i := range to.Drops {
		e, err := b.kv.Get(ctx, p.baseDrops(to.Seq, i))
		if err != nil {
			return fault("read the base of the event log", err)
		}
		var part []baseDrop
		if err := json.Unmarshal(e.Value(), &part); err != nil {
			return errs.New(errs.Failed, "the base of partition %d of the event log cannot be read: %w", p.num, err)
		}
		to.drops = append(to.drops, part...)
	}
	return nil
}

// dropsAt gives the duplicates from a block on whose firsts are before it.
func (x *index) dropsAt(ctx context.Context, floor uint64) ([]baseDrop, error) {
	rows, err := x.query(ctx, "SELECT seq, idx FROM drops WHERE seq >= ?1 AND first < ?1 ORDER BY seq, idx", int64(floor))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []baseDrop
	for rows.Next() {
		var d baseDrop
		if err := rows.Scan(&d[0], &d[1]); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, rows.Err()
}

// putDrops writes the duplicates of a base into a new index.
func (x *index) putDrops(ctx context.Context, all []baseDrop) error {
	for _, d := range all {
		if err := x.exec(ctx, "INSERT INTO drops(seq, idx, first) VALUES(?, ?, 0)", d[0], d[1]); err != nil {
			return err
		}
	}
	return nil
}

// loadDrops reads the duplicates that are known before they are folded.
func (f *folder) loadDrops(ctx context.Context) error {
	f.known = map[spot]bool{}
	rows, err := f.x.query(ctx, "SELECT seq, idx FROM drops WHERE seq > ?", int64(f.x.applied))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var idx int
		if err := rows.Scan(&seq, &idx); err != nil {
			return err
		}
		f.known[spot{uint64(seq), idx}] = true
	}
	return rows.Err()
}
