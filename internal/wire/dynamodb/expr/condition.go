package expr

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
)

type form uint8

const (
	missing form = iota // a placeholder that is not defined
	literal
	document // a path
	function
	arithmetic
)

// operand is what a comparison or function works on.
type operand struct {
	form form
	lit  store.Value
	path Path
	name string // of a function, or + and -
	args []operand
	kind store.Kind // of a function's result
}

// knownKind is the kind that an operand has whatever the Item.
func (o *operand) knownKind() store.Kind {
	if o.form == literal {
		return o.lit.Kind
	}
	return o.kind
}

// node is a condition: a comparison or function with operands, or and, or, not with nodes.
type node struct {
	op   string
	args []operand
	sub  []*node
}

// Condition is a parsed condition, filter or key condition.
type Condition struct {
	root   *node
	heads  map[string]bool
	nested map[string]bool
}

// Heads returns whether an attribute's name begins a path in the condition.
func (c *Condition) Heads(name string) bool { return c != nil && c.heads[name] }

// Nested returns whether a path leads into the attribute.
func (c *Condition) Nested(name string) bool { return c != nil && c.nested[name] }

var comparators = []string{">=", "<=", "<>", "=", "<", ">"}

// functionArgs says how many operands each function of a condition takes.
var functionArgs = map[string]int{"attribute_exists": 1, "attribute_not_exists": 1, "attribute_type": 2, "begins_with": 2, "contains": 2, "size": 1}

// ParseCondition reads a condition.
func ParseCondition(text string, scope *Scope) (*Condition, error) {
	if text == "" {
		return nil, fault("The expression can not be empty;")
	}
	p := newParser(text, scope, "BETWEEN", "IN", "AND", "OR", "NOT")
	x, f := p.or()
	if f != nil {
		return nil, f
	}
	root := p.cond(x)
	if p.peek().kind != end || root == nil {
		return nil, p.syntax()
	}
	p.misusedSize(root)
	if msg := p.first("parens", "unknown", "misused", "reserved", "condition"); msg != "" {
		return nil, fault("%s", msg)
	}
	return &Condition{root: root, heads: p.heads, nested: p.nested}, nil
}

// term is what stands between operators: a condition or an operand, which only what follows tells apart.
type term struct {
	cond   *node
	oper   operand
	parens bool // written in parentheses
}

// cond makes a condition of a term that is a function by itself, and returns nil for what is none.
func (p *parser) cond(x term) *node {
	if x.cond == nil && x.oper.form == function {
		p.settle()
		return &node{op: x.oper.name, args: x.oper.args}
	}
	return x.cond
}

func (p *parser) or() (term, *Fault) { return p.chain("OR", "or", p.and) }

func (p *parser) and() (term, *Fault) { return p.chain("AND", "and", p.not) }

// chain reads conditions joined by a keyword, or the one thing that stands alone.
func (p *parser) chain(keyword, op string, part func() (term, *Fault)) (term, *Fault) {
	x, f := part()
	for f == nil && p.keyword(keyword) {
		left := p.cond(x)
		if left == nil {
			return x, nil // an operand; the keyword is for whoever asked
		}
		p.at++
		y, f := part()
		if f != nil {
			return x, f
		}
		right := p.cond(y)
		if right == nil {
			return x, p.syntax()
		}
		p.misusedSize(left)
		p.misusedSize(right)
		x = term{cond: &node{op: op, sub: []*node{left, right}}}
	}
	return x, f
}

func (p *parser) not() (term, *Fault) {
	if !p.keyword("NOT") {
		return p.comparison()
	}
	if f := p.enter(); f != nil {
		return term{}, f
	}
	defer func() { p.depth-- }()
	p.at++
	x, f := p.not()
	if f != nil {
		return term{}, f
	}
	n := p.cond(x)
	if n == nil {
		return term{}, p.syntax()
	}
	p.misusedSize(n)
	return term{cond: &node{op: "not", sub: []*node{n}}}, nil
}

// comparison reads an operand and what compares it, or a condition in parentheses, or an operand alone.
func (p *parser) comparison() (term, *Fault) {
	x, f := p.primary()
	if f != nil || x.cond != nil {
		return x, f
	}
	var n *node
	switch {
	case p.peek().kind == symbol && slices.Contains(comparators, p.peek().text):
		n, f = p.compare(x.oper)
	case p.keyword("BETWEEN"):
		n, f = p.between(x.oper)
	case p.keyword("IN"):
		n, f = p.in(x.oper)
	default:
		return x, nil
	}
	if f != nil {
		return term{}, f
	}
	p.settle()
	return term{cond: n}, nil
}

// settle keeps the error of the first condition that has one.
func (p *parser) settle() {
	if p.errs["condition"] == "" {
		p.errs["condition"] = p.first("name", "operand", "distinct", "function")
	}
}

// primary reads an operand, or anything in parentheses.
func (p *parser) primary() (term, *Fault) {
	if !p.is("(") {
		o, f := p.operand()
		return term{oper: o}, f
	}
	if f := p.enter(); f != nil {
		return term{}, f
	}
	p.at++
	x, f := p.or()
	p.depth--
	if f == nil && !p.take(")") {
		f = p.syntax()
	}
	if f != nil {
		return term{}, f
	}
	if x.parens {
		p.note("parens", "The expression has redundant parentheses;")
	}
	if x.cond == nil && x.oper.form == document && (p.is(".") || p.is("[")) {
		x.oper.path, f = p.tail(x.oper.path)
	}
	x.parens = true
	return x, f
}

func (p *parser) compare(x operand) (*node, *Fault) {
	op := p.next().text
	y, f := p.operandOnly()
	if f != nil {
		return nil, f
	}
	p.misused(x, y)
	p.distinct(op, x, y)
	return &node{op: op, args: []operand{x, y}}, nil
}

func (p *parser) between(x operand) (*node, *Fault) {
	p.at++
	y, f := p.operandOnly()
	if f != nil {
		return nil, f
	}
	if !p.keyword("AND") {
		return nil, p.syntax()
	}
	p.at++
	z, f := p.operandOnly()
	if f != nil {
		return nil, f
	}
	p.misused(x, y, z)
	if y.form == literal && z.form == literal {
		a, b := y.lit, z.lit
		c, ordered := a.Compare(b)
		switch {
		case a.Kind != b.Kind:
			p.note("function", "The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: {%s:%s}, upper bound operand: AttributeValue: {%s:%s}", a.Kind, shown(a), b.Kind, shown(b))
		case ordered && c > 0:
			p.note("function", "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {%s:%s}, upper bound operand: AttributeValue: {%s:%s}", a.Kind, shown(a), b.Kind, shown(b))
		}
	}
	return &node{op: "between", args: []operand{x, y, z}}, nil
}

// shown is a value as messages have it.
func shown(v store.Value) string {
	if v.Kind == store.B {
		return base64.StdEncoding.EncodeToString([]byte(v.Str))
	}
	return v.Str
}

func (p *parser) in(x operand) (*node, *Fault) {
	p.at++
	if !p.take("(") {
		return nil, p.syntax()
	}
	args, f := p.arguments()
	if f != nil {
		return nil, f
	}
	all := append([]operand{x}, args...)
	p.misused(all...)
	if len(args) > 100 {
		p.note("operand", "The IN operator is provided with too many operands; number of operands: %d", len(args))
	}
	return &node{op: "in", args: all}, nil
}

// operandOnly reads an operand, in parentheses or not.
func (p *parser) operandOnly() (operand, *Fault) {
	if !p.is("(") {
		return p.operand()
	}
	if f := p.enter(); f != nil {
		return operand{}, f
	}
	p.at++
	again := p.is("(")
	o, f := p.operandOnly()
	p.depth--
	if f == nil && !p.take(")") {
		f = p.syntax()
	}
	if f != nil {
		return operand{}, f
	}
	if again {
		p.note("parens", "The expression has redundant parentheses;")
	}
	if o.form == document && (p.is(".") || p.is("[")) {
		o.path, f = p.tail(o.path)
	}
	return o, f
}

// operand reads a value, a path or a function.
func (p *parser) operand() (operand, *Fault) {
	t := p.peek()
	switch {
	case t.kind == valueRef:
		return p.value()
	case t.kind == word && !p.keyword(p.words...) && p.toks[p.at+1].kind == symbol && p.toks[p.at+1].text == "(":
		return p.call()
	}
	path, f := p.path()
	return operand{form: document, path: path}, f
}

// arguments reads operands up to the closing parenthesis.
func (p *parser) arguments() ([]operand, *Fault) {
	var args []operand
	for {
		o, f := p.operandOnly()
		if f != nil {
			return nil, f
		}
		args = append(args, o)
		if p.take(",") {
			continue
		}
		if !p.take(")") {
			return nil, p.syntax()
		}
		return args, nil
	}
}

func (p *parser) call() (operand, *Fault) {
	if f := p.enter(); f != nil {
		return operand{}, f
	}
	defer func() { p.depth-- }()
	name := p.next().text
	p.at++
	args, f := p.arguments()
	if f != nil {
		return operand{}, f
	}
	p.misused(args...)
	o := operand{form: function, name: name, args: args}
	o.kind = p.check(name, args)
	return o, nil
}

// misused notes functions that may not be operands.
func (p *parser) misused(args ...operand) {
	for _, a := range args {
		if a.form == function && a.name != "size" {
			p.note("misused", "The function is not allowed to be used this way in an expression; function: %s", a.name)
		}
	}
}

// misusedSize notes a size that stands where a condition must.
func (p *parser) misusedSize(n *node) {
	if n.op == "size" {
		p.note("misused", "The function is not allowed to be used this way in an expression; function: %s", n.op)
	}
}

// distinct notes two operands that are the same path.
func (p *parser) distinct(name string, args ...operand) {
	if len(args) == 2 && args[0].form == document && args[1].form == document && args[0].path.equal(args[1].path) {
		p.note("distinct", "The first operand must be distinct from the remaining operands for this operator or function; operator: %s, first operand: %s", name, args[0].path)
	}
}

const wrongKind = "Incorrect operand type for operator or function; operator or function: %s, operand type: %s"

// check notes what is wrong with a function's operands and returns the kind of its result.
func (p *parser) check(name string, args []operand) store.Kind {
	want, ok := functionArgs[name]
	if !ok {
		p.note("unknown", "Invalid function name; function: %s", name)
		return store.None
	}
	if p.errs["operand"] != "" {
		return store.None
	}
	if want != len(args) {
		p.note("operand", "Incorrect number of operands for operator or function; operator or function: %s, number of operands: %d", name, len(args))
		return store.None
	}
	p.distinct(name, args...)
	switch name {
	case "attribute_exists", "attribute_not_exists":
		if args[0].form != document && args[0].form != missing {
			p.note("function", "Operator or function requires a document path; operator or function: %s", name)
		}
		return store.None
	case "begins_with":
		for _, a := range args {
			if k := a.knownKind(); k != store.None && k != store.S && k != store.B {
				p.note("function", wrongKind, name, k)
			}
		}
	case "attribute_type":
		p.checkType(args[1])
	case "size":
		if k := args[0].knownKind(); k == store.N || k == store.BOOL || k == store.NULL {
			p.note("function", wrongKind, name, k)
		}
		return store.N
	}
	return store.BOOL
}

func (p *parser) checkType(a operand) {
	switch k := a.knownKind(); {
	case k == store.None:
		p.note("function", wrongKind, "attribute_type", "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}")
	case k != store.S:
		p.note("function", wrongKind, "attribute_type", k)
	case a.form == literal && (store.KindOf(a.lit.Str) == store.None || strings.TrimSpace(a.lit.Str) == ""):
		p.note("function", "Invalid attribute type name found; type: %s, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}", a.lit.Str)
	}
}
