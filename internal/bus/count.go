package bus

import "context"

// countSchema is the part of the index that says how many deliveries stand where, so that nobody has to count them. The fold keeps it by block; what is
// removed from the table is counted off as it goes.
const countSchema = `
CREATE TABLE counts(sub INTEGER NOT NULL, state INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(sub, state)) WITHOUT ROWID;
CREATE TRIGGER counted AFTER DELETE ON deliveries BEGIN UPDATE counts SET n = n - 1 WHERE sub = OLD.sub AND state = OLD.state; END;
`

type countKey struct {
	sub   int64
	state State
}

// count notes that n more deliveries of a Subscription stand in a state.
func (f *folder) count(sub int64, s State, n int) {
	if f.moved == nil {
		f.moved = map[countKey]int{}
	}
	f.moved[countKey{sub, s}] += n
}

// move notes that one went from a state to another.
func (f *folder) move(sub int64, from, to State) {
	if from != to {
		f.count(sub, from, -1)
		f.count(sub, to, 1)
	}
}

// flushCounts writes what a block has changed.
func (f *folder) flushCounts(ctx context.Context) error {
	for k, n := range f.moved {
		if n == 0 {
			continue
		}
		if err := f.x.exec(ctx, "INSERT INTO counts(sub, state, n) VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", k.sub, k.state, n); err != nil {
			return err
		}
	}
	clear(f.moved)
	return nil
}

// counts tells how many stand where.
func (o *owner) counts(ctx context.Context) (Counts, error) {
	rows, err := o.x.db.QueryContext(ctx, `SELECT coalesce(s.name, ''), c.state, sum(c.n) FROM counts c LEFT JOIN subs s ON s.id = c.sub
		WHERE c.n <> 0 AND (coalesce(s.live, 1) = 1 OR s.name NOT IN (SELECT name FROM subs WHERE live = 1)) GROUP BY 1, 2`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := Counts{}
	for rows.Next() {
		var name string
		var state State
		var n int
		if err := rows.Scan(&name, &state, &n); err != nil {
			return nil, err
		}
		if out[name] == nil {
			out[name] = map[State]int{}
		}
		out[name][state] = n
	}
	return out, rows.Err()
}

// runningNow tells how many run, by the name of their Subscription.
func (o *owner) runningNow(ctx context.Context) (map[string]int, error) {
	bySub := map[int64]int{}
	o.running.Range(func(id, _ any) bool {
		bySub[id.(did).Sub]++
		return true
	})
	out := map[string]int{}
	for sub, n := range bySub {
		var name string
		if err := o.x.db.QueryRowContext(ctx, "SELECT name FROM subs WHERE id = ?", sub).Scan(&name); err != nil {
			return nil, err
		}
		out[name] += n
	}
	return out, nil
}
