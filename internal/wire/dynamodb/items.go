package dynamodb

import (
	"context"
	"errors"
	"maps"
	"math"
	"strconv"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// unitsFor counts the capacity of reading or writing bytes: 4 KB or 1 KB a unit, half for reads that need not be consistent.
func unitsFor(bytes int, read, consistent bool) float64 {
	per := 1024.0
	if read {
		per = 4096
	}
	n := math.Max(1, math.Ceil(float64(bytes)/per))
	if read && !consistent {
		n /= 2
	}
	return n
}

// capacityOf appends a ConsumedCapacity, when it was asked for.
func capacityOf(b []byte, c *call, table string, units float64) []byte {
	want := c.n.str("ReturnConsumedCapacity")
	if want != "TOTAL" && want != "INDEXES" {
		return b
	}
	b = append(b, `"ConsumedCapacity":`...)
	return append(appendCapacity(b, want, table, units), ',')
}

func appendCapacity(b []byte, want, table string, units float64) []byte {
	b = strconv.AppendFloat(append(b, `{"CapacityUnits":`...), units, 'f', -1, 64)
	b = quote(append(b, `,"TableName":`...), table)
	if want == "INDEXES" {
		b = append(strconv.AppendFloat(append(b, `,"Table":{"CapacityUnits":`...), units, 'f', -1, 64), '}')
	}
	return append(b, '}')
}

// finish ends an object whose members each have a comma behind them.
func finish(b []byte) []byte {
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, '}')
}

func (s *service) getItem(ctx context.Context, c *call) ([]byte, error) {
	if msg := mixed(c.n, []string{"ProjectionExpression"}, []string{"AttributesToGet"}); msg != "" {
		return nil, fail(msg)
	}
	k, msg := itemOf(c.n.get("Key"))
	if msg != "" {
		return nil, fail(msg)
	}
	proj, msg := attributesOf(c.n)
	if msg != "" {
		return nil, fail(msg)
	}
	x, msg := parse(c.n)
	if msg != "" {
		return nil, fail(msg)
	}
	if x.proj != nil {
		proj = x.proj
	}
	t, err := s.table(ctx, c)
	if err != nil {
		return nil, err
	}
	if msg := checkKey(k, t.Key); msg != "" {
		return nil, fail(msg)
	}
	if msg := scalarKeys(&t, x.proj.Nested); msg != "" {
		return nil, fail(msg)
	}
	got, err := s.tables.Get(ctx, c.tenant(), []store.Lookup{{Table: t.Name, Key: k}})
	if err != nil {
		return nil, err
	}
	b := []byte{'{'}
	b = capacityOf(b, c, t.Name, unitsFor(got[0].Size(), true, c.n.flag("ConsistentRead")))
	if got[0] != nil {
		b = append(appendItem(append(b, `"Item":`...), proj.Of(got[0])), ',')
	}
	return finish(b), nil
}

// errFailed is a condition that does not hold, with the Item that it does not hold for.
type errFailed struct {
	old  store.Item
	show bool
}

func (e *errFailed) Error() string { return "The conditional request failed" }

// write is one change as a request describes it.
type write struct {
	t     store.Table
	key   store.Item
	cond  *expr.Condition
	show  bool // the old Item, when the condition does not hold
	apply func(old store.Item) (store.Item, error)

	old, new store.Item // what was and is there, once it is written
}

func (w *write) change() store.Change {
	return store.Change{Table: w.t.Name, Key: w.key, Apply: func(old store.Item) (store.Item, error) {
		if !w.cond.Match(old) {
			return nil, &errFailed{old, w.show}
		}
		it, err := w.apply(old)
		w.old, w.new = old, it
		return it, err
	}}
}

// commit writes one change and gives its refusal the name that clients know.
func (s *service) commit(ctx context.Context, c *call, w *write) error {
	err := s.tables.Write(context.WithoutCancel(ctx), c.tenant(), []store.Change{w.change()})
	var failed *errFailed
	if errors.As(err, &failed) {
		e := wire.Errorf("ConditionalCheckFailedException", "The conditional request failed")
		if failed.show && failed.old != nil {
			e.Fields = map[string]any{"Item": shape.JSONText(appendItem(nil, failed.old))}
		}
		return e
	}
	var bad *expr.Fault
	if errors.As(err, &bad) {
		return fail(bad.Msg)
	}
	return err
}

// conditionOf reads what must hold for a write: an expression, or the older parameters.
func conditionOf(n *node, x exprs) (*expr.Condition, string) {
	tests, msg := expectedOf(n)
	if msg != "" || x.cond != nil {
		return x.cond, msg
	}
	return expr.Tests(tests, n.str("ConditionalOperator") == "OR"), ""
}

// written is the answer to a write: old attributes if asked for, and the capacity.
func written(c *call, w *write, attributes store.Item) []byte {
	b := []byte{'{'}
	if attributes != nil {
		b = append(appendItem(append(b, `"Attributes":`...), attributes), ',')
	}
	b = capacityOf(b, c, w.t.Name, unitsFor(max(w.old.Size(), w.new.Size()), false, true))
	if c.n.str("ReturnItemCollectionMetrics") == "SIZE" && hasLocal(&w.t) {
		hash := w.t.Key.Hash.Name
		b = append(appendItem(append(b, `"ItemCollectionMetrics":{"ItemCollectionKey":`...), w.key.Only(hash)), `,"SizeEstimateRangeGB":[0,1]},`...)
	}
	return finish(b)
}

func hasLocal(t *store.Table) bool {
	for _, x := range t.Indexes {
		if x.Local {
			return true
		}
	}
	return false
}

const (
	tooLarge       = "Item size has exceeded the maximum allowed size"
	tooLargeUpdate = "Item size to update has exceeded the maximum allowed size"
	onlyOld        = "ReturnValues can only be ALL_OLD or NONE"
)

func (s *service) putItem(ctx context.Context, c *call) ([]byte, error) {
	if msg := mixed(c.n, []string{"ConditionExpression"}, []string{"Expected"}); msg != "" {
		return nil, fail(msg)
	}
	it, msg := itemOf(c.n.get("Item"))
	if msg != "" {
		return nil, fail(msg)
	}
	returns := c.n.str("ReturnValues")
	if returns != "" && returns != "ALL_OLD" && returns != "NONE" {
		return nil, fail(onlyOld)
	}
	if it.Size() > maxItem {
		return nil, fail(tooLarge)
	}
	w, err := s.prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	if msg := checkItem(it, &w.t); msg != "" {
		return nil, fail(msg)
	}
	w.key, w.apply = it, func(store.Item) (store.Item, error) { return it, nil }
	if err := s.commit(ctx, c, w); err != nil {
		return nil, err
	}
	if returns != "ALL_OLD" {
		return written(c, w, nil), nil
	}
	return written(c, w, w.old), nil
}

// prepare reads the condition and the table of a write.
func (s *service) prepare(ctx context.Context, c *call) (*write, error) {
	_, msg := expectedOf(c.n)
	if msg != "" {
		return nil, fail(msg)
	}
	x, msg := parse(c.n)
	if msg != "" {
		return nil, fail(msg)
	}
	w := &write{show: c.n.str("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"}
	if w.cond, msg = conditionOf(c.n, x); msg != "" {
		return nil, fail(msg)
	}
	var err error
	w.t, err = s.table(ctx, c)
	return w, err
}

func (s *service) deleteItem(ctx context.Context, c *call) ([]byte, error) {
	if msg := mixed(c.n, []string{"ConditionExpression"}, []string{"Expected"}); msg != "" {
		return nil, fail(msg)
	}
	k, msg := itemOf(c.n.get("Key"))
	if msg != "" {
		return nil, fail(msg)
	}
	returns := c.n.str("ReturnValues")
	w, err := s.prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	if returns != "" && returns != "ALL_OLD" && returns != "NONE" {
		return nil, fail(onlyOld)
	}
	if msg := checkKey(k, w.t.Key); msg != "" {
		return nil, fail(msg)
	}
	w.key, w.apply = k, func(store.Item) (store.Item, error) { return nil, nil }
	if err := s.commit(ctx, c, w); err != nil {
		return nil, err
	}
	if returns != "ALL_OLD" {
		return written(c, w, nil), nil
	}
	return written(c, w, w.old), nil
}

// attrUpdates reads the older parameter AttributeUpdates.
func attrUpdates(n *node) (updates []expr.AttrUpdate, msg string) {
	list := n.get("AttributeUpdates")
	if list == nil {
		return nil, ""
	}
	for i := range list.members {
		m := &list.members[i]
		u := expr.AttrUpdate{Attr: m.key, Action: m.val.str("Action")}
		if v := m.val.get("Value"); v != nil {
			if u.Value, msg = valueOf(v, 1); msg != "" {
				return nil, msg
			}
		}
		k := u.Value.Kind
		set := k == store.SS || k == store.NS || k == store.BS
		switch {
		case k == store.None && u.Action != "DELETE":
			return nil, invalidPrefix + "Only DELETE action is allowed when no attribute value is specified"
		case k != store.None && u.Action == "DELETE" && !set:
			return nil, invalidPrefix + "DELETE action with value is not supported for the type " + k.String()
		case u.Action == "ADD" && !set && k != store.L && k != store.N:
			return nil, invalidPrefix + "ADD action is not supported for the type " + k.String()
		}
		updates = append(updates, u)
	}
	return updates, ""
}

func (s *service) updateItem(ctx context.Context, c *call) ([]byte, error) {
	if msg := mixed(c.n, []string{"UpdateExpression", "ConditionExpression"}, []string{"AttributeUpdates", "Expected"}); msg != "" {
		return nil, fail(msg)
	}
	k, msg := itemOf(c.n.get("Key"))
	if msg != "" {
		return nil, fail(msg)
	}
	older, msg := attrUpdates(c.n)
	if msg != "" {
		return nil, fail(msg)
	}
	if _, msg = expectedOf(c.n); msg != "" {
		return nil, fail(msg)
	}
	x, msg := parse(c.n)
	if msg != "" {
		return nil, fail(msg)
	}
	t, err := s.table(ctx, c)
	if err != nil {
		return nil, err
	}
	w, msg := updating(t, k, x.update, older)
	if msg != "" {
		return nil, fail(msg)
	}
	w.show = c.n.str("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
	if w.cond, msg = conditionOf(c.n, x); msg != "" {
		return nil, fail(msg)
	}
	if err := s.commit(ctx, c, w); err != nil {
		return nil, err
	}
	return written(c, w, returned(c, w, x.update, older)), nil
}

// updating makes the write of an update.
func updating(t store.Table, k store.Item, u *expr.Update, older []expr.AttrUpdate) (*write, string) {
	if msg := checkKey(k, t.Key); msg != "" {
		return nil, msg
	}
	if msg := checkUpdates(&t, u, older); msg != "" {
		return nil, msg
	}
	w := &write{t: t, key: k}
	w.apply = func(old store.Item) (store.Item, error) {
		base := old
		if base == nil {
			base = k
		}
		var now store.Item
		var err error
		if u != nil {
			now, err = u.Apply(base)
		} else {
			now, err = expr.ApplyAttrs(base, older)
		}
		if err != nil {
			return nil, err
		}
		if now.Size() > maxItem {
			return nil, fail(tooLargeUpdate)
		}
		if msg := updatedKeys(&t, old, now); msg != "" {
			return nil, fail(msg)
		}
		if old == nil && len(now) == len(k) {
			now = maps.Clone(now)
		}
		return now, nil
	}
	return w, ""
}

// updatedKeys refuses values that an index cannot hold, where only the Item told what they would be.
func updatedKeys(t *store.Table, old, now store.Item) string {
	for i := range t.Indexes {
		x := &t.Indexes[i]
		for j, a := range attrsOf(x.Key) {
			v, ok := now[a.Name]
			if !ok || old[a.Name].Equal(v) {
				continue
			}
			if v.Kind != a.Kind {
				return "The update expression attempted to update the secondary index key to unsupported type"
			}
			if empty(v) {
				return "The update expression attempted to update the secondary index key to a value that is not supported. The AttributeValue for a key attribute cannot contain an empty " + emptyWord(v) + " value."
			}
			if msg := keySize(v, j == 0); msg != "" {
				return msg
			}
		}
	}
	return ""
}

// returned picks what the answer to an update shows.
func returned(c *call, w *write, u *expr.Update, older []expr.AttrUpdate) store.Item {
	var touched *expr.Projection
	if u != nil {
		touched = u.Touched()
	} else {
		var attrs []string
		for _, o := range older {
			attrs = append(attrs, o.Attr)
		}
		touched = expr.Attributes(attrs)
	}
	switch c.n.str("ReturnValues") {
	case "ALL_OLD":
		return w.old
	case "ALL_NEW":
		return w.new
	case "UPDATED_OLD":
		if w.old == nil {
			return nil
		}
		return touched.Of(w.old)
	case "UPDATED_NEW":
		return touched.Of(w.new)
	}
	return nil
}
