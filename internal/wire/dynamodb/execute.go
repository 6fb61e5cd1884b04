package dynamodb

import (
	"context"
	"encoding/base64"
	"errors"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
)

// statementOf reads the statement of a request or of one in a batch.
func statementOf(n *node) (*statement, error) {
	params, msg := valuesOf(n.get("Parameters"))
	if msg != "" {
		return nil, fail(msg)
	}
	return parseStatement(n.str("Statement"), params)
}

// keyIn finds the key that a statement names: every attribute of it, equal to a value.
func (st *statement) keyIn(k store.Key) store.Item {
	it := store.Item{}
	for _, t := range st.cond.Conjuncts() {
		if t.Op == "EQ" && contains(k, t.Attr) {
			it[t.Attr] = t.With[0]
		}
	}
	if len(it) != len(k.Names()) {
		return nil
	}
	return it
}

// writeOf makes the write of a statement that changes an item.
func (st *statement) writeOf(t store.Table) (*write, error) {
	if st.verb == "INSERT" {
		if msg := checkItem(st.item, &t); msg != "" {
			return nil, fail(msg)
		}
		if st.item.Size() > maxItem {
			return nil, fail(tooLarge)
		}
		return &write{t: t, key: st.item, cond: expr.Tests([]expr.Test{{Attr: t.Key.Hash.Name, Op: "NULL"}}, false), apply: func(store.Item) (store.Item, error) { return st.item, nil }}, nil
	}
	k := st.keyIn(t.Key)
	if k == nil {
		return nil, fail("Where clause does not contain a mandatory equality on all key attributes")
	}
	if msg := checkKey(k, t.Key); msg != "" {
		return nil, fail(msg)
	}
	w := &write{t: t, key: k, apply: func(store.Item) (store.Item, error) { return nil, nil }}
	if st.verb == "UPDATE" {
		var msg string
		if w, msg = updating(t, k, st.update, nil); msg != "" {
			return nil, fail(msg)
		}
		w.cond = st.cond // the item must be there, for its key is asked for
		return w, nil
	}
	if len(st.cond.Conjuncts()) > len(k) { // a removal of what is not there is none
		w.cond = st.cond
	}
	return w, nil
}

// execute runs a statement that changes an item and returns what it is to show.
func (s *service) execute(ctx context.Context, c *call, st *statement) (store.Item, error) {
	t, err := s.tables.Table(ctx, c.tenant(), st.table)
	if err != nil {
		return nil, err
	}
	w, err := st.writeOf(t)
	if err != nil {
		return nil, err
	}
	err = s.commit(ctx, c, w)
	var e *wire.Error
	if errors.As(err, &e) && st.verb == "INSERT" && e.Code == "ConditionalCheckFailedException" {
		return nil, wire.Errorf("DuplicateItemException", "Duplicate primary key exists in table")
	}
	if err != nil {
		return nil, err
	}
	switch st.returning {
	case "ALL_OLD":
		return w.old, nil
	case "ALL_NEW":
		return w.new, nil
	case "UPDATED_OLD":
		return st.update.Touched().Of(w.old), nil
	case "UPDATED_NEW":
		return st.update.Touched().Of(w.new), nil
	}
	return nil, nil
}

func (s *service) executeStatement(ctx context.Context, c *call) ([]byte, error) {
	st, err := statementOf(c.n)
	if err != nil {
		return nil, err
	}
	if st.verb == "SELECT" {
		return s.selectItems(ctx, c, st)
	}
	it, err := s.execute(ctx, c, st)
	if err != nil {
		return nil, err
	}
	if it == nil {
		return []byte(`{"Items":[]}`), nil
	}
	return append(appendItem([]byte(`{"Items":[`), it), "]}"...), nil
}

// selectItems reads a page of what a SELECT asks for: by key where its condition has one, else by a scan.
func (s *service) selectItems(ctx context.Context, c *call, st *statement) ([]byte, error) {
	c.n.members = append(c.n.members, member{"TableName", node{kind: 's', text: st.table}})
	if st.index != "" {
		c.n.members = append(c.n.members, member{"IndexName", node{kind: 's', text: st.index}})
	}
	r := &reading{c: c}
	if msg, err := s.openReading(ctx, c, r); err != nil || msg != "" {
		return nil, orFail(msg, err)
	}
	r.filter, r.proj = st.cond, st.proj
	if token := c.n.str("NextToken"); token != "" {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		n, parseErr := parseJSON(raw)
		if err != nil || parseErr != nil {
			return nil, fail("Invalid NextToken")
		}
		var msg string
		if r.after, msg = itemOf(n); msg != "" || len(r.after) != len(r.start) {
			return nil, fail("Invalid NextToken")
		}
	}
	p, err := s.gather(ctx, r, s.selecting(ctx, r, st))
	if err != nil {
		return nil, err
	}
	b := []byte(`{"Items":[`)
	for i, it := range p.items {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendItem(b, r.proj.Of(it))
	}
	b = append(b, ']', ',')
	if p.full && p.last != nil {
		last := appendItem(nil, p.last.Only(r.start...))
		b = quote(append(b, `"NextToken":`...), base64.RawURLEncoding.EncodeToString(last))
		b = append(append(append(b, `,"LastEvaluatedKey":`...), last...), ',')
	}
	return finish(r.capacity(b, p)), nil
}

// selecting chooses how a SELECT reads.
func (s *service) selecting(ctx context.Context, r *reading, st *statement) func(func(store.Item) bool) error {
	q := store.Query{Table: r.t.Name, Index: st.index, After: r.after, Descending: st.down}
	ranged := false
	for _, t := range st.cond.Conjuncts() {
		switch {
		case t.Attr == r.key.Hash.Name && t.Op == "EQ" && t.With[0].Kind == r.key.Hash.Kind:
			q.Hash = t.With[0]
		case t.Attr == r.key.Range.Name && !ranged && sameKind(t.With) && t.With[0].Kind == r.key.Range.Kind:
			setRange(&q, &t)
			ranged = true
		}
	}
	return func(each func(store.Item) bool) error {
		if q.Hash.Kind == store.None {
			return s.tables.Scan(ctx, r.c.tenant(), store.Scan{Table: r.t.Name, Index: st.index, After: r.after}, each)
		}
		return s.tables.Query(ctx, r.c.tenant(), q, each)
	}
}

// one runs a statement of a batch and returns the item that it shows.
func (s *service) one(ctx context.Context, c *call, n *node) (table string, it store.Item, err error) {
	st, err := statementOf(n)
	if err != nil {
		return "", nil, err
	}
	if st.verb != "SELECT" {
		it, err = s.execute(ctx, c, st)
		return st.table, it, err
	}
	t, err := s.tables.Table(ctx, c.tenant(), st.table)
	if err != nil {
		return st.table, nil, err
	}
	k := st.keyIn(t.Key)
	if k == nil {
		return st.table, nil, fail("Select statements within BatchExecuteStatement must specify the primary key in the where clause.")
	}
	got, err := s.tables.Get(ctx, c.tenant(), []store.Lookup{{Table: st.table, Key: k}})
	if err != nil || !st.cond.Match(got[0]) {
		return st.table, nil, err
	}
	return st.table, st.proj.Of(got[0]), nil
}

func (s *service) batchExecute(ctx context.Context, c *call) ([]byte, error) {
	b := []byte(`{"Responses":[`)
	list := c.n.get("Statements").elems
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		table, it, err := s.one(ctx, c, &list[i])
		b = append(b, '{')
		if err != nil {
			e := asError(c, err)
			b = quote(append(b, `"Error":{"Code":`...), batchCode(e.Code))
			b = append(quote(append(b, `,"Message":`...), e.Message), '}', ',')
		}
		if table != "" {
			b = append(quote(append(b, `"TableName":`...), table), ',')
		}
		if it != nil {
			b = append(appendItem(append(b, `"Item":`...), it), ',')
		}
		b = finish(b)
	}
	return append(b, "]}"...), nil
}

// asError is an error as a client is told it.
func asError(c *call, err error) *wire.Error {
	var e *wire.Error
	if errors.As(err, &e) {
		return e
	}
	if e = translate(c.Call, err); e != nil {
		return e
	}
	return wire.Errorf("InternalServerError", "Internal server error")
}

// batchCode is the name of an error among the results of a batch: API reference, "BatchStatementError".
func batchCode(code string) string {
	return map[string]string{"ValidationException": "ValidationError", "ConditionalCheckFailedException": "ConditionalCheckFailed", "ResourceNotFoundException": "ResourceNotFound",
		"DuplicateItemException": "DuplicateItem", "InternalServerError": "InternalServerError"}[code]
}

func (s *service) executeTransaction(ctx context.Context, c *call) ([]byte, error) {
	list := c.n.get("TransactStatements").elems
	var writes []*write
	var lookups []store.Lookup
	var reads []*statement
	for i := range list {
		st, err := statementOf(&list[i])
		if err != nil {
			return nil, err
		}
		t, err := s.tables.Table(ctx, c.tenant(), st.table)
		if err != nil {
			return nil, err
		}
		if st.verb != "SELECT" {
			w, err := st.writeOf(t)
			if err != nil {
				return nil, cancelled(len(list), i, reason{code: "ValidationError", msg: faultOf(err)})
			}
			writes = append(writes, w)
			continue
		}
		k := st.keyIn(t.Key)
		if k == nil {
			return nil, fail("Select statements within ExecuteTransaction must specify the primary key in the where clause.")
		}
		lookups, reads = append(lookups, store.Lookup{Table: st.table, Key: k}), append(reads, st)
	}
	if len(writes) > 0 && len(reads) > 0 {
		return nil, fail("ExecuteTransaction does not allow mixed reads and writes.")
	}
	if len(writes) > 0 {
		seen := map[string]bool{}
		for _, w := range writes {
			id := w.t.Name + " " + idOf(w.key.Only(w.t.Key.Names()...))
			if seen[id] {
				return nil, fail("Transaction request cannot include multiple operations on one item")
			}
			seen[id] = true
		}
		return []byte(`{}`), s.transact(ctx, c, writes)
	}
	got, err := s.tables.Get(ctx, c.tenant(), lookups)
	if err != nil {
		return nil, err
	}
	b := []byte(`{"Responses":[`)
	for i, it := range got {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if it != nil && reads[i].cond.Match(it) {
			b = appendItem(append(b, `"Item":`...), reads[i].proj.Of(it))
		}
		b = append(b, '}')
	}
	return append(b, "]}"...), nil
}
