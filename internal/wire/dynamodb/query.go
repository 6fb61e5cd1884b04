package dynamodb

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
)

// pageBytes is how much one Query or Scan reads: DynamoDB limits, "Query and Scan".
const pageBytes = 1 << 20

// reading is what Query and Scan have in common.
type reading struct {
	c      *call
	t      store.Table
	index  *store.Index // nil for the table's own order
	key    store.Key    // of the index or the table
	start  []string     // names of a starting key
	filter *expr.Condition
	proj   *expr.Projection
	after  store.Item
	limit  int
	count  bool // only a count is wanted
	fetch  bool // whole Items are wanted of an index that does not show them
}

// openReading finds the table and the index of a Query or Scan.
func (s *service) openReading(ctx context.Context, c *call, r *reading) (msg string, err error) {
	r.c = c
	if r.t, err = s.table(ctx, c); err != nil {
		return "", err
	}
	r.key, r.start = r.t.Key, r.t.Key.Names()
	if n, ok := c.n.num("Limit"); ok {
		r.limit = int(n)
	}
	sel := c.n.str("Select")
	r.count = sel == "COUNT"
	if name := c.n.str("IndexName"); name != "" {
		if r.index = r.t.Index(name); r.index == nil {
			return "The table does not have the specified index: " + name, nil
		}
		if !r.index.Local && c.n.flag("ConsistentRead") {
			return "Consistent reads are not supported on global secondary indexes", nil
		}
		r.key = r.index.Key
		r.fetch = sel == "ALL_ATTRIBUTES" && !r.index.All
		for _, name := range r.key.Names() {
			if !slices.Contains(r.start, name) {
				r.start = append(r.start, name)
			}
		}
	}
	return "", nil
}

const badStart = "The provided starting key is invalid"

// startOf reads ExclusiveStartKey.
func startOf(n *node) (store.Item, string) {
	list := n.get("ExclusiveStartKey")
	if list == nil {
		return nil, ""
	}
	it, msg := itemOf(list)
	if msg == "" {
		return it, ""
	}
	for _, plain := range []string{"contains duplicates", "number set", "numeric value", "significant digits", "number with magnitude"} {
		if strings.Contains(msg, plain) {
			return nil, msg
		}
	}
	return nil, badStart + ": " + msg
}

// tableStart checks the part of a starting key that is the table's.
func (r *reading) tableStart() string {
	if r.after == nil {
		return ""
	}
	if msg := checkKey(r.after.Only(r.t.Key.Names()...), r.t.Key); msg != "" {
		return badStart + ": " + msg
	}
	return ""
}

// parameters reads what both operations have besides their own.
func (r *reading) parameters(x exprs, filterName string) (tests []expr.Test, msg string) {
	if tests, msg = conditionsOf(r.c.n.get(filterName)); msg != "" {
		return nil, msg
	}
	r.filter = x.filter
	if r.filter == nil {
		r.filter = expr.Tests(tests, r.c.n.str("ConditionalOperator") == "OR")
	}
	r.proj, msg = attributesOf(r.c.n)
	if x.proj != nil {
		r.proj = x.proj
	}
	return tests, msg
}

func (r *reading) wholeOfGlobal() string {
	if r.fetch && !r.index.Local {
		return invalidPrefix + "Select type ALL_ATTRIBUTES is not supported for global secondary index " + r.index.Name + " because its projection type is not ALL"
	}
	return ""
}

func (s *service) query(ctx context.Context, c *call) ([]byte, error) {
	if msg := mixed(c.n, []string{"ProjectionExpression", "FilterExpression", "KeyConditionExpression"}, []string{"AttributesToGet", "QueryFilter", "ConditionalOperator", "KeyConditions"}); msg != "" {
		return nil, fail(msg)
	}
	r := &reading{c: c}
	older, msg := conditionsOf(c.n.get("QueryFilter"))
	if msg != "" {
		return nil, fail(msg)
	}
	if _, msg = attributesOf(c.n); msg != "" {
		return nil, fail(msg)
	}
	if r.after, msg = startOf(c.n); msg != "" {
		return nil, fail(msg)
	}
	if c.n.get("KeyConditions") == nil && c.n.get("KeyConditionExpression") == nil {
		return nil, fail("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
	}
	x, msg := parse(c.n)
	if msg != "" {
		return nil, fail(msg)
	}
	conds, msg := keyConditions(c.n, x.key)
	if msg != "" {
		return nil, fail(msg)
	}
	if _, msg = r.parameters(x, "QueryFilter"); msg != "" {
		return nil, fail(msg)
	}
	if msg, err := s.openReading(ctx, c, r); err != nil || msg != "" {
		return nil, orFail(msg, err)
	}
	q := store.Query{Table: r.t.Name, Index: c.n.str("IndexName"), After: r.after}
	if on := c.n.get("ScanIndexForward"); on != nil {
		q.Descending = !on.truth
	}
	if msg := r.bounds(&q, conds); msg != "" {
		return nil, fail(msg)
	}
	if msg := r.queryChecks(x, older); msg != "" {
		return nil, fail(msg)
	}
	return s.read(ctx, r, func(each func(store.Item) bool) error { return s.tables.Query(ctx, c.tenant(), q, each) })
}

func orFail(msg string, err error) error {
	if err != nil {
		return err
	}
	return fail(msg)
}

// keyConditions reads the conditions on keys of either form.
func keyConditions(n *node, c *expr.Condition) (tests []expr.Test, msg string) {
	if c != nil {
		var err error
		if tests, err = c.KeyTests(); err != nil {
			return nil, err.Error()
		}
		for _, t := range tests {
			if msg = checkTest(t); msg != "" {
				return nil, msg
			}
		}
	} else if tests, msg = conditionsOf(n.get("KeyConditions")); msg != "" {
		return nil, msg
	}
	if len(tests) != 1 && len(tests) != 2 {
		return nil, "Conditions can be of length 1 or 2 only"
	}
	return tests, ""
}

// bounds makes the range of a Query of its conditions, and checks the starting key against it.
func (r *reading) bounds(q *store.Query, conds []expr.Test) string {
	if r.after != nil && len(r.after) != len(r.start) {
		return badStart
	}
	by := map[string]*expr.Test{}
	for i := range conds {
		by[conds[i].Attr] = &conds[i]
	}
	attrs := attrsOf(r.key)
	for i, a := range attrs {
		if r.after != nil {
			if _, ok := r.after[a.Name]; !ok {
				return badStart
			}
			if msg := checkPiece(r.after, a, i == 0); msg != "" {
				return msg
			}
		}
		if msg := keyCondition(a, by[a.Name], i == 0, len(attrs), len(conds)); msg != "" {
			return msg
		}
	}
	q.Hash = by[r.key.Hash.Name].With[0]
	ranged := by[r.key.Range.Name]
	if msg := r.startInside(q.Hash, ranged); msg != "" {
		return msg
	}
	if ranged != nil {
		setRange(q, ranged)
	}
	return ""
}

// keyCondition tells what is wrong with the condition on one key attribute.
func keyCondition(a store.Attr, t *expr.Test, hash bool, attrs, conds int) string {
	if hash && attrs == 1 && conds > 1 {
		return "Query key condition not supported"
	}
	if t == nil {
		if hash || conds > 1 {
			return "Query condition missed key schema element: " + a.Name
		}
		return ""
	}
	switch t.Op {
	case "NULL", "NOT_NULL", "NE", "CONTAINS", "NOT_CONTAINS", "IN":
		return "Attempted conditional constraint is not an indexable operation"
	}
	for _, v := range t.With {
		if v.Kind != a.Kind {
			return invalidPrefix + "Condition parameter type does not match schema type"
		}
	}
	if hash && t.Op != "EQ" {
		return "Query key condition not supported"
	}
	for _, v := range t.With {
		if empty(v) {
			return "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty " + emptyWord(v) + " value. Key: " + a.Name
		}
	}
	return ""
}

// startInside checks that the starting key is one that the Query could have ended with.
func (r *reading) startInside(hash store.Value, ranged *expr.Test) string {
	if r.after == nil {
		return ""
	}
	if msg := r.tableStart(); msg != "" {
		return msg
	}
	inside := r.after[r.key.Hash.Name].Equal(hash)
	if ranged == nil {
		if !inside {
			return "The provided starting key is outside query boundaries based on provided conditions"
		}
		return ""
	}
	if !expr.Tests([]expr.Test{*ranged}, false).Match(r.after) {
		return "The provided starting key does not match the range key predicate"
	}
	if !inside {
		return "The query can return at most one row and cannot be restarted"
	}
	return ""
}

func setRange(q *store.Query, t *expr.Test) {
	bound := store.Bound{Value: t.With[0]}
	switch t.Op {
	case "EQ":
		q.Low, q.High = bound, bound
	case "LT", "LE":
		bound.Not = t.Op == "LT"
		q.High = bound
	case "GT", "GE":
		bound.Not = t.Op == "GT"
		q.Low = bound
	case "BETWEEN":
		q.Low, q.High = bound, store.Bound{Value: t.With[1]}
	case "BEGINS_WITH":
		q.Prefix = t.With[0]
	}
}

// queryChecks are those that come behind the keys.
func (r *reading) queryChecks(x exprs, older []expr.Test) string {
	if msg := scalarKeys(&r.t, x.proj.Nested); msg != "" {
		return msg
	}
	for _, a := range attrsOf(r.key) {
		if slices.ContainsFunc(older, func(t expr.Test) bool { return t.Attr == a.Name }) {
			return "QueryFilter can only contain non-primary key attributes: Primary key attribute: " + a.Name
		}
		if x.filter.Heads(a.Name) {
			return "Filter Expression can only contain non-primary key attributes: Primary key attribute: " + a.Name
		}
	}
	if msg := r.wholeOfGlobal(); msg != "" {
		return msg
	}
	return scalarKeys(&r.t, x.filter.Nested)
}

func (s *service) scan(ctx context.Context, c *call) ([]byte, error) {
	if msg := mixed(c.n, []string{"ProjectionExpression", "FilterExpression"}, []string{"AttributesToGet", "ScanFilter", "ConditionalOperator"}); msg != "" {
		return nil, fail(msg)
	}
	r := &reading{c: c}
	if _, msg := attributesOf(c.n); msg != "" {
		return nil, fail(msg)
	}
	_, msg := conditionsOf(c.n.get("ScanFilter"))
	if msg != "" {
		return nil, fail(msg)
	}
	if r.after, msg = startOf(c.n); msg != "" {
		return nil, fail(msg)
	}
	q := store.Scan{After: r.after}
	if msg = segments(c.n, &q); msg != "" {
		return nil, fail(msg)
	}
	x, msg := parse(c.n)
	if msg != "" {
		return nil, fail(msg)
	}
	if _, msg = r.parameters(x, "ScanFilter"); msg != "" {
		return nil, fail(msg)
	}
	if msg, err := s.openReading(ctx, c, r); err != nil || msg != "" {
		return nil, orFail(msg, err)
	}
	q.Table, q.Index = r.t.Name, c.n.str("IndexName")
	if msg := r.scanChecks(x, func() bool { return s.inSegment(ctx, c, q) }); msg != "" {
		return nil, fail(msg)
	}
	return s.read(ctx, r, func(each func(store.Item) bool) error { return s.tables.Scan(ctx, c.tenant(), q, each) })
}

func segments(n *node, q *store.Scan) string {
	segment, hasSegment := n.num("Segment")
	total, hasTotal := n.num("TotalSegments")
	switch {
	case hasSegment && segment > 0 && !hasTotal, hasSegment && !hasTotal:
		return "The TotalSegments parameter is required but was not present in the request when Segment parameter is present"
	case hasTotal && !hasSegment:
		return "The Segment parameter is required but was not present in the request when parameter TotalSegments is present"
	case hasTotal && segment >= total:
		return "The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: " + strconv.FormatInt(segment, 10) + " is not less than TotalSegments: " + strconv.FormatInt(total, 10)
	case hasTotal && total > 1_000_000:
		return "1 validation error detected: Value '" + strconv.FormatInt(total, 10) + "' at 'totalSegments' failed to satisfy constraint: Member must have value less than or equal to 1000000"
	}
	q.Segment, q.Segments = int(segment), int(total)
	return ""
}

// inSegment tells whether a Scan can go on from its starting key.
func (s *service) inSegment(ctx context.Context, c *call, q store.Scan) bool {
	if q.After == nil || q.Segments < 2 {
		return true
	}
	err := s.tables.Scan(ctx, c.tenant(), q, func(store.Item) bool { return false })
	return errs.CodeOf(err) != errs.Invalid
}

func (r *reading) scanChecks(x exprs, inSegment func() bool) string {
	if r.after != nil && len(r.after) != len(r.start) {
		if r.index != nil {
			return badStart
		}
		return badStart + ": " + noMatch
	}
	if r.index != nil && r.after != nil {
		for i, a := range attrsOf(r.key) {
			if _, ok := r.after[a.Name]; !ok {
				return badStart
			}
			if msg := checkPiece(r.after, a, i == 0); msg != "" {
				return msg
			}
		}
	}
	if msg := r.wholeOfGlobal(); msg != "" {
		return msg
	}
	if msg := r.tableStart(); msg != "" {
		return msg
	}
	if !inSegment() {
		return badStart + ": Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct Segment. TotalSegments: " + r.c.n.str("TotalSegments") + " Segment: " + r.c.n.str("Segment")
	}
	if msg := scalarKeys(&r.t, x.proj.Nested); msg != "" {
		return msg
	}
	return scalarKeys(&r.t, x.filter.Nested)
}

// page collects what one Query or Scan answers.
type page struct {
	items          []store.Item
	scanned, found int
	bytes, counted int
	whole          int // of Items fetched beside their index
	last           store.Item
	full           bool
}

// read runs a Query or Scan up to its limit and writes the answer.
func (s *service) read(ctx context.Context, r *reading, run func(each func(store.Item) bool) error) ([]byte, error) {
	p, err := s.gather(ctx, r, run)
	if err != nil {
		return nil, err
	}
	return r.answer(p), nil
}

// gather reads one page.
func (s *service) gather(ctx context.Context, r *reading, run func(each func(store.Item) bool) error) (*page, error) {
	var p page
	rangeKey := r.t.Key.Range.Name
	err := run(func(it store.Item) bool {
		if p.full {
			return false
		}
		p.scanned++
		p.last = it
		p.counted += it.Size()
		p.bytes += pageSize(it, rangeKey)
		if r.fetch || r.filter.Match(it) {
			p.found++
			if !r.count || r.fetch {
				p.items = append(p.items, it)
			}
		}
		p.full = r.limit > 0 && p.scanned >= r.limit || p.bytes >= pageBytes
		return !p.full
	})
	if err != nil {
		return nil, err
	}
	if r.fetch {
		if err := s.fetchWhole(ctx, r, &p); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// fetchWhole replaces what a local index shows by whole Items.
func (s *service) fetchWhole(ctx context.Context, r *reading, p *page) error {
	keys := make([]store.Lookup, len(p.items))
	for i, it := range p.items {
		keys[i] = store.Lookup{Table: r.t.Name, Key: it}
	}
	if len(keys) == 0 {
		return nil
	}
	got, err := s.tables.Get(ctx, r.c.tenant(), keys)
	if err != nil {
		return err
	}
	p.items, p.found = nil, 0
	for _, it := range got {
		if it == nil {
			continue
		}
		p.whole += it.Size()
		if r.filter.Match(it) {
			p.found++
			p.items = append(p.items, it)
		}
	}
	return nil
}

func (r *reading) answer(p *page) []byte {
	b := append(make([]byte, 0, 256+2*p.bytes), '{')
	b = append(strconv.AppendInt(append(b, `"Count":`...), int64(p.found), 10), ',')
	b = append(strconv.AppendInt(append(b, `"ScannedCount":`...), int64(p.scanned), 10), ',')
	if !r.count {
		b = append(b, `"Items":[`...)
		for i, it := range p.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendItem(b, r.proj.Of(it))
		}
		b = append(b, ']', ',')
	}
	if p.full && p.last != nil {
		b = append(appendItem(append(b, `"LastEvaluatedKey":`...), p.last.Only(r.start...)), ',')
	}
	return finish(r.capacity(b, p))
}

// capacity counts what was read of the table and of the index.
func (r *reading) capacity(b []byte, p *page) []byte {
	want := r.c.n.str("ReturnConsumedCapacity")
	if want != "TOTAL" && want != "INDEXES" {
		return b
	}
	each := 0.5
	if r.c.n.flag("ConsistentRead") {
		each = 1
	}
	units := func(bytes int) float64 { return math.Ceil(float64(bytes)/4096) * each }
	table, index := units(p.counted), 0.0
	if r.index != nil {
		table, index = units(p.whole), units(p.counted)
	}
	b = strconv.AppendFloat(append(b, `"ConsumedCapacity":{"CapacityUnits":`...), table+index, 'f', -1, 64)
	b = quote(append(b, `,"TableName":`...), r.t.Name)
	if want == "INDEXES" {
		b = append(strconv.AppendFloat(append(b, `,"Table":{"CapacityUnits":`...), table, 'f', -1, 64), '}')
		if r.index != nil {
			b = append(b, map[bool]string{true: `,"LocalSecondaryIndexes":{`, false: `,"GlobalSecondaryIndexes":{`}[r.index.Local]...)
			b = append(strconv.AppendFloat(append(quote(b, r.index.Name), `:{"CapacityUnits":`...), index, 'f', -1, 64), "}}"...)
		}
	}
	return append(b, '}', ',')
}

// pageSize is what an Item counts against the bytes of a page. It is less than its size and was found by measuring what DynamoDB
// returns: names count one byte, and there is a head for each 3 KB with the range key in it.
func pageSize(it store.Item, rangeKey string) int {
	size, ranged := 0, 0
	for name, v := range it {
		n := stored(v, name != rangeKey)
		if name == rangeKey {
			ranged = n
			continue
		}
		size += n + 1
	}
	return 2 + size + (1+(1+size)/3072)*(18+ranged)
}

func stored(v store.Value, packed bool) int {
	n := v.Size()
	if !packed {
		return n
	}
	switch v.Kind {
	case store.S:
		switch {
		case n < 128:
			return n + 1
		case n < 16384:
			return n + 2
		}
		return n + 3
	case store.B, store.N:
		return n + 1
	case store.SS, store.NS, store.BS:
		return n + len(v.Set) + 1
	case store.NULL:
		return 0
	case store.L:
		n = 3
		for _, e := range v.List {
			n += 1 + stored(e, true)
		}
	case store.M:
		n = 3 + len(v.Map)
		for _, e := range v.Map {
			n += 1 + stored(e, true)
		}
	}
	return n
}
