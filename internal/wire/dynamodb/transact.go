package dynamodb

import (
	"context"
	"crypto/sha256"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// maxTransactBytes bounds the Items of a transaction together: DynamoDB limits, "Transactions".
const maxTransactBytes = 4 << 20

func (s *service) transactGet(ctx context.Context, c *call) ([]byte, error) {
	list := c.n.get("TransactItems").elems
	lookups := make([]store.Lookup, len(list))
	projs := make([]*expr.Projection, len(list))
	for i := range list {
		get := list[i].get("Get")
		k, msg := itemOf(get.get("Key"))
		if msg != "" {
			return nil, fail(msg)
		}
		byARN(get)
		x, msg := parse(get)
		if msg != "" {
			return nil, fail(msg)
		}
		t, err := s.tables.Table(ctx, c.tenant(), get.str("TableName"))
		if err != nil {
			return nil, err
		}
		if msg := checkKey(k, t.Key); msg != "" {
			return nil, cancelled(len(list), i, reason{code: "ValidationError", msg: msg})
		}
		lookups[i], projs[i] = store.Lookup{Table: t.Name, Key: k}, x.proj
	}
	got, err := s.tables.Get(ctx, c.tenant(), lookups)
	if err != nil {
		return nil, err
	}
	b := []byte(`{"Responses":[`)
	units := map[string]float64{}
	for i, it := range got {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if it != nil {
			b = appendItem(append(b, `"Item":`...), projs[i].Of(it))
		}
		b = append(b, '}')
		units[lookups[i].Table] += 2 * unitsFor(it.Size(), true, true)
	}
	return finish(transactCapacity(append(b, "],"...), c, units)), nil
}

func transactCapacity(b []byte, c *call, units map[string]float64) []byte {
	var list []byte
	for table, u := range units {
		list = append(appendCapacity(list, c.n.str("ReturnConsumedCapacity"), table, u), ',')
	}
	if len(list) == 0 {
		return b
	}
	return batchCapacity(b, c, list)
}

// reason is why one step of a transaction did not happen.
type reason struct {
	code, msg string
	old       store.Item
}

// canceledBy is the error of a transaction with the reasons of all its steps.
func canceledBy(reasons []reason) *wire.Error {
	codes := make([]string, len(reasons))
	b := []byte{'['}
	for i, r := range reasons {
		if codes[i] = r.code; r.code == "" {
			codes[i] = "None"
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = quote(append(b, `{"Code":`...), codes[i])
		if r.msg != "" {
			b = quote(append(b, `,"Message":`...), r.msg)
		}
		if r.old != nil {
			b = appendItem(append(b, `,"Item":`...), r.old)
		}
		b = append(b, '}')
	}
	e := wire.Errorf("TransactionCanceledException", "Transaction cancelled, please refer cancellation reasons for specific reasons [%s]", strings.Join(codes, ", "))
	e.Fields = map[string]any{"CancellationReasons": shape.JSONText(append(b, ']'))}
	return e
}

func cancelled(n, at int, r reason) error {
	all := make([]reason, n)
	all[at] = r
	return canceledBy(all)
}

func (s *service) transactWrite(ctx context.Context, c *call) ([]byte, error) {
	list := c.n.get("TransactItems").elems
	writes := make([]*write, len(list))
	seen := map[string]bool{}
	size := 0
	for i := range list {
		w, msg, err := s.step(ctx, c, &list[i])
		if err != nil {
			return nil, err
		}
		if msg != "" {
			return nil, cancelled(len(list), i, reason{code: "ValidationError", msg: msg})
		}
		id := w.t.Name + " " + idOf(w.key.Only(w.t.Key.Names()...))
		if seen[id] {
			return nil, fail("Transaction request cannot include multiple operations on one item")
		}
		seen[id] = true
		size += w.new.Size()
		writes[i] = w
	}
	if size > maxTransactBytes {
		return nil, fail("Transaction request exceeds the maximum size of 4 MB")
	}
	if err := s.transact(ctx, c, writes); err != nil {
		return nil, err
	}
	b := []byte{'{'}
	units := map[string]float64{}
	for _, w := range writes {
		units[w.t.Name] += 2 * unitsFor(max(w.old.Size(), w.new.Size()), false, true)
	}
	return finish(transactCapacity(b, c, units)), nil
}

// step reads one step of a transaction.
func (s *service) step(ctx context.Context, c *call, n *node) (w *write, msg string, err error) {
	if len(n.members) != 1 {
		return nil, "", fail("TransactItems can only contain one of Check, Put, Update or Delete")
	}
	kind, of := n.members[0].key, &n.members[0].val
	byARN(of)
	k, msg := itemOf(of.get(map[bool]string{true: "Item", false: "Key"}[kind == "Put"]))
	if msg != "" {
		return nil, "", fail(msg)
	}
	if kind == "Put" && k.Size() > maxItem {
		return nil, "", fail(tooLarge)
	}
	if msg := mixed(of, []string{"UpdateExpression", "ConditionExpression"}, nil); msg != "" {
		return nil, "", fail(msg)
	}
	x, msg := parse(of)
	if msg != "" {
		return nil, "", fail(msg)
	}
	t, err := s.tables.Table(ctx, c.tenant(), of.str("TableName"))
	if err != nil {
		return nil, "", err
	}
	w = &write{t: t, key: k}
	switch kind {
	case "Put":
		msg = checkItem(k, &t)
		w.new, w.apply = k, func(store.Item) (store.Item, error) { return k, nil }
	case "Delete":
		msg = checkKey(k, t.Key)
		w.apply = func(store.Item) (store.Item, error) { return nil, nil }
	case "ConditionCheck":
		msg = checkKey(k, t.Key)
		w.apply = func(old store.Item) (store.Item, error) { return old, nil }
	default:
		w, msg = updating(t, k, x.update, nil)
	}
	if msg != "" {
		return nil, msg, nil
	}
	w.cond, w.show = x.cond, of.str("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
	return w, "", nil
}

// transact writes all steps together, and once for each token of a client.
func (s *service) transact(ctx context.Context, c *call, writes []*write) error {
	changes := make([]store.Change, 0, len(writes)+1)
	for _, w := range writes {
		changes = append(changes, w.change())
	}
	token, err := s.tokenOf(ctx, c)
	if err != nil {
		return err
	}
	if token != nil {
		changes = append(changes, *token)
	}
	err = s.tables.Write(context.WithoutCancel(ctx), c.tenant(), changes)
	var aborted *store.Aborted
	if !errors.As(err, &aborted) {
		return err
	}
	if token != nil {
		if last := aborted.Errs[len(writes)]; last != nil {
			if errors.Is(last, errAgain) {
				return nil
			}
			return last
		}
	}
	reasons := make([]reason, len(writes))
	for i, e := range aborted.Errs[:len(writes)] {
		var failed *errFailed
		switch {
		case e == nil:
		case errors.As(e, &failed):
			reasons[i] = reason{code: "ConditionalCheckFailed", msg: failed.Error()}
			if failed.show {
				reasons[i].old = failed.old
			}
		case faultOf(e) != "":
			reasons[i] = reason{code: "ValidationError", msg: faultOf(e)}
		default:
			return e
		}
	}
	return canceledBy(reasons)
}

// tokens is the table of the tokens of transactions. A token stands for ten minutes.
const (
	tokens    = hidden + "transactions"
	tokenLife = 10 * time.Minute
)

var errAgain = errors.New("done before")

// tokenOf returns the change that remembers a client's token, or nil when it gave none. It refuses when a transaction with the token stands.
func (s *service) tokenOf(ctx context.Context, c *call) (*store.Change, error) {
	text := c.n.str("ClientRequestToken")
	if text == "" {
		return nil, nil
	}
	if _, err := s.tables.Table(ctx, c.tenant(), tokens); errs.CodeOf(err) == errs.NotFound {
		_, err = s.tables.Create(ctx, c.tenant(), store.Table{Name: tokens, Key: store.Key{Hash: store.Attr{Name: "token", Kind: store.S}}, TTL: "until"})
		if err != nil && errs.CodeOf(err) != errs.Exists {
			return nil, err
		}
	}
	what := c.n.get("TransactItems")
	if what == nil {
		what = c.n.get("TransactStatements")
	}
	sum := sha256.Sum256(appendNode(nil, what))
	now := s.now()
	want := store.Item{"token": store.Text(text), "digest": store.Bytes(sum[:]), "until": store.Num(strconv.FormatInt(now.Add(tokenLife).Unix(), 10))}
	return &store.Change{Table: tokens, Key: want, Apply: func(old store.Item) (store.Item, error) {
		until, _ := strconv.ParseInt(old["until"].Str, 10, 64)
		switch {
		case old == nil || until < now.Unix():
			return want, nil
		case old["digest"].Equal(want["digest"]):
			return nil, errAgain
		}
		return nil, wire.Errorf("IdempotentParameterMismatchException", "The request uses the same client token as a previous, but non-identical request. Do not reuse a client token with different requests, unless the requests are identical")
	}}, nil
}
