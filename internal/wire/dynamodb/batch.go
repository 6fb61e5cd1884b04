package dynamodb

import (
	"context"
	"errors"
	"slices"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
)

// Limits of batches: DynamoDB limits, "BatchGetItem", "BatchWriteItem".
const (
	maxGets  = 100
	maxBatch = 25
)

const duplicates = "Provided list of item keys contains duplicates"

// wanted is one table's part of a BatchGetItem.
type wanted struct {
	table string
	n     *node
	proj  *expr.Projection
	keys  []store.Item
	t     store.Table
}

// idOf is a text that two keys share only when they are the same.
func idOf(it store.Item) string { return string(appendItem(nil, it)) }

func (s *service) batchGet(ctx context.Context, c *call) ([]byte, error) {
	parts, msg := wantedOf(c.n.get("RequestItems"))
	if msg != "" {
		return nil, fail(msg)
	}
	var lookups []store.Lookup
	for _, w := range parts {
		var err error
		if w.t, err = s.tables.Table(ctx, c.tenant(), w.table); err != nil {
			return nil, err
		}
		for _, k := range w.keys {
			if msg := checkKey(k, w.t.Key); msg != "" {
				return nil, fail(msg)
			}
			lookups = append(lookups, store.Lookup{Table: w.table, Key: k})
		}
	}
	got, err := s.tables.Get(ctx, c.tenant(), lookups)
	if err != nil {
		return nil, err
	}
	return batchAnswer(c, parts, got), nil
}

func wantedOf(n *node) (parts []*wanted, msg string) {
	total := 0
	for i := range n.members {
		w := &wanted{table: n.members[i].key, n: &n.members[i].val}
		if msg = mixed(w.n, []string{"ProjectionExpression"}, []string{"AttributesToGet"}); msg != "" {
			return nil, msg
		}
		if w.proj, msg = attributesOf(w.n); msg != "" {
			return nil, msg
		}
		x, msg := parse(w.n)
		if msg != "" {
			return nil, msg
		}
		if x.proj != nil {
			w.proj = x.proj
		}
		seen := map[string]bool{}
		list := w.n.get("Keys").elems
		for j := range list {
			k, msg := itemOf(&list[j])
			if msg != "" {
				return nil, msg
			}
			if seen[idOf(k)] {
				return nil, duplicates
			}
			seen[idOf(k)] = true
			w.keys = append(w.keys, k)
			if total++; total > maxGets {
				return nil, "Too many items requested for the BatchGetItem call"
			}
		}
		parts = append(parts, w)
	}
	return parts, ""
}

// batchAnswer writes the Items found, up to the size of an answer; the keys of the others are unprocessed.
func batchAnswer(c *call, parts []*wanted, got []store.Item) []byte {
	b, left := []byte(`{"Responses":{`), []byte(`"UnprocessedKeys":{`)
	capacities := []byte{}
	bytes, at := 0, 0
	for i, w := range parts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(quote(b, w.table), ":["...)
		var rest []store.Item
		units, first := 0.0, true
		for j, k := range w.keys {
			it := got[at+j]
			if bytes+it.Size() > 1<<20+maxItem-3 {
				rest = append(rest, k)
				units++
				continue
			}
			bytes += it.Size()
			units += unitsFor(it.Size(), true, w.n.flag("ConsistentRead"))
			if it == nil {
				continue
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			b = appendItem(b, w.proj.Of(it))
		}
		b = append(b, ']')
		at += len(w.keys)
		if len(rest) > 0 {
			left = appendUnprocessed(left, w, rest)
		}
		capacities = append(appendCapacity(capacities, c.n.str("ReturnConsumedCapacity"), w.table, units), ',')
	}
	b = append(append(append(b, "},"...), finish(left)...), ',')
	return finish(batchCapacity(b, c, capacities))
}

func batchCapacity(b []byte, c *call, list []byte) []byte {
	if want := c.n.str("ReturnConsumedCapacity"); want != "TOTAL" && want != "INDEXES" {
		return b
	}
	b = append(append(b, `"ConsumedCapacity":[`...), list[:len(list)-1]...)
	return append(b, "],"...)
}

func appendUnprocessed(b []byte, w *wanted, rest []store.Item) []byte {
	b = append(quote(b, w.table), `:{"Keys":[`...)
	for i, k := range rest {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendItem(b, k)
	}
	b = append(b, ']')
	for _, m := range w.n.members {
		if m.key != "Keys" {
			b = appendNode(append(quote(append(b, ','), m.key), ':'), &m.val)
		}
	}
	return append(b, "},"...)
}

func (s *service) batchWrite(ctx context.Context, c *call) ([]byte, error) {
	n := c.n.get("RequestItems")
	writes, msg := writesOf(n)
	if msg != "" {
		return nil, fail(msg)
	}
	if msg, err := s.checkWrites(ctx, c, writes); err != nil || msg != "" {
		return nil, orFail(msg, err)
	}
	// Each is written by itself: a batch is no transaction. One transaction of the store is what costs least, and keeps that promise too.
	changes := make([]store.Change, len(writes))
	for i := range writes {
		changes[i] = writes[i].change()
	}
	if err := s.tables.Write(context.WithoutCancel(ctx), c.tenant(), changes); err != nil {
		return nil, err
	}
	b := append([]byte{'{'}, `"UnprocessedItems":{},`...)
	capacities := []byte{}
	for i := range n.members {
		units := 0.0
		for _, w := range writes {
			if w.t.Name == n.members[i].key {
				units += unitsFor(max(w.old.Size(), w.new.Size()), false, true)
			}
		}
		capacities = append(appendCapacity(capacities, c.n.str("ReturnConsumedCapacity"), n.members[i].key, units), ',')
	}
	return finish(batchCapacity(b, c, capacities)), nil
}

func writesOf(n *node) (writes []*write, msg string) {
	for i := range n.members {
		list := n.members[i].val.elems
		if slices.ContainsFunc(list, func(e node) bool { return len(e.members) == 0 }) {
			return nil, "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
		}
		for j := range list {
			w := &write{t: store.Table{Name: n.members[i].key}}
			if put := list[j].get("PutRequest"); put != nil {
				it, msg := itemOf(put.get("Item"))
				if msg != "" {
					return nil, msg
				}
				if it.Size() > maxItem {
					return nil, tooLarge
				}
				w.key, w.new = it, it
			} else if w.key, msg = itemOf(list[j].get("DeleteRequest").get("Key")); msg != "" {
				return nil, msg
			}
			it := w.new
			w.apply = func(store.Item) (store.Item, error) { return it, nil }
			writes = append(writes, w)
		}
	}
	if len(writes) > maxBatch {
		return nil, "Too many items requested for the BatchWriteItem call"
	}
	return writes, ""
}

// checkWrites finds the tables of a batch and checks the keys.
func (s *service) checkWrites(ctx context.Context, c *call, writes []*write) (msg string, err error) {
	seen := map[string]bool{}
	for _, w := range writes {
		if w.t, err = s.tables.Table(ctx, c.tenant(), w.t.Name); err != nil {
			return "", err
		}
		if w.new != nil {
			msg = checkItem(w.new, &w.t)
			if !w.t.Key.In(w.new) {
				msg = noMatch
			}
		} else {
			msg = checkKey(w.key, w.t.Key)
		}
		if msg != "" {
			return msg, nil
		}
		id := w.t.Name + " " + idOf(w.key.Only(w.t.Key.Names()...))
		if seen[id] {
			return duplicates, nil
		}
		seen[id] = true
	}
	return "", nil
}

// faultOf returns the words of a fault in an expression, or "".
func faultOf(err error) string {
	var bad *expr.Fault
	if errors.As(err, &bad) {
		return bad.Msg
	}
	var wrong *invalid
	if errors.As(err, &wrong) {
		return wrong.msg
	}
	return ""
}
