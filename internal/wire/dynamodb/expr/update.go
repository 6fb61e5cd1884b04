package expr

import (
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
)

// action is one thing an Update does.
type action struct {
	op   string // "SET", "REMOVE", "ADD", "DELETE"
	path Path
	val  operand
}

// Update is a parsed update expression.
type Update struct {
	actions []action
	nested  map[string]bool
	proj    *Projection
}

var sections = []string{"SET", "REMOVE", "ADD", "DELETE"}

// ParseUpdate reads an update expression.
func ParseUpdate(text string, scope *Scope) (*Update, error) {
	if text == "" {
		return nil, fault("The expression can not be empty;")
	}
	p := newParser(text, scope, sections...)
	p.valueClass = "value"
	u := &Update{nested: p.nested}
	seen := map[string]bool{}
	for first := true; first || p.peek().kind != end; first = false {
		if !p.keyword(sections...) {
			return nil, p.syntax()
		}
		op := strings.ToUpper(p.next().text)
		for {
			a, f := p.action(op)
			if f != nil {
				return nil, f
			}
			u.actions = append(u.actions, a)
			if !p.take(",") {
				break
			}
		}
		if seen[op] {
			p.note("section", `The "%s" section can only be used once in an update expression;`, op)
		}
		seen[op] = true
	}
	var paths []Path
	for _, a := range u.actions {
		paths = append(paths, a.path)
	}
	p.overlaps(paths)
	if msg := p.first("reserved", "unknown", "section", "name", "value", "overlap", "conflict", "operand", "function"); msg != "" {
		return nil, fault("%s", msg)
	}
	u.proj = project(paths, nil)
	return u, nil
}

func (p *parser) action(op string) (action, *Fault) {
	path, f := p.path()
	if f != nil {
		return action{}, f
	}
	a := action{op: op, path: path}
	switch op {
	case "SET":
		if !p.take("=") {
			return a, p.syntax()
		}
		a.val, f = p.setValue()
	case "ADD", "DELETE":
		if p.peek().kind != valueRef {
			return a, p.syntax()
		}
		a.val, f = p.value()
		p.checkOperator(op, a.val)
	}
	return a, f
}

// typeWords are the names of kinds in one message.
var typeWords = map[store.Kind]string{store.S: "STRING", store.N: "NUMBER", store.B: "BINARY", store.NULL: "NULL", store.BOOL: "BOOLEAN", store.L: "LIST", store.M: "MAP"}

func (p *parser) checkOperator(op string, o operand) {
	if o.form != literal {
		return
	}
	if w := typeWords[o.lit.Kind]; w != "" && (op != "ADD" || o.lit.Kind != store.N) {
		p.note("operand", "Incorrect operand type for operator or function; operator: %s, operand type: %s", op, w)
	}
}

// setValue reads an operand or a sum of two.
func (p *parser) setValue() (operand, *Fault) {
	x, f := p.setOperand()
	if f != nil || !p.is("+") && !p.is("-") || x.form == arithmetic {
		return x, f
	}
	op := p.next().text
	y, f := p.setOperand()
	if f != nil {
		return operand{}, f
	}
	if y.form == arithmetic {
		return operand{}, p.syntax()
	}
	o := operand{form: arithmetic, name: op, args: []operand{x, y}}
	o.kind = p.checkUpdate(op, o.args)
	return o, nil
}

// setOperand reads a value, a path, a function, or anything of these or a sum in parentheses.
func (p *parser) setOperand() (operand, *Fault) {
	if p.take("(") {
		if f := p.enter(); f != nil {
			return operand{}, f
		}
		o, f := p.setValue()
		p.depth--
		if f == nil && !p.take(")") {
			f = p.syntax()
		}
		return o, f
	}
	t := p.peek()
	switch {
	case t.kind == valueRef:
		return p.value()
	case t.kind == word && !p.keyword(p.words...) && p.toks[p.at+1].kind == symbol && p.toks[p.at+1].text == "(":
		return p.updateCall()
	}
	path, f := p.path()
	return operand{form: document, path: path}, f
}

func (p *parser) updateCall() (operand, *Fault) {
	if f := p.enter(); f != nil {
		return operand{}, f
	}
	defer func() { p.depth-- }()
	o := operand{form: function, name: p.next().text}
	p.at++
	for {
		a, f := p.setOperand()
		if f != nil {
			return operand{}, f
		}
		o.args = append(o.args, a)
		if p.take(",") {
			continue
		}
		if !p.take(")") {
			return operand{}, p.syntax()
		}
		break
	}
	o.kind = p.checkUpdate(o.name, o.args)
	return o, nil
}

// checkUpdate notes what is wrong with operands and returns the kind of the result, where that is known.
func (p *parser) checkUpdate(name string, args []operand) store.Kind {
	if !slices.Contains([]string{"if_not_exists", "list_append", "+", "-"}, name) {
		p.note("unknown", "Invalid function name; function: %s", name)
		return store.None
	}
	if len(args) != 2 {
		p.note("function", "Incorrect number of operands for operator or function; operator or function: %s, number of operands: %d", name, len(args))
		return store.None
	}
	want := store.N
	switch name {
	case "if_not_exists":
		if args[0].form != document {
			p.note("function", "Operator or function requires a document path; operator or function: %s", name)
		}
		return args[1].knownKind()
	case "list_append":
		want = store.L
	}
	for _, a := range args {
		if a.form == literal && a.lit.Kind != want {
			p.note("function", wrongKind, name, a.lit.Kind)
		}
	}
	return want
}

// Changes tells whether the update changes an attribute or a part of it.
func (u *Update) Changes(name string) bool {
	return u != nil && slices.ContainsFunc(u.actions, func(a action) bool { return a.path[0].Name == name })
}

// Nested returns whether a path leads into the attribute.
func (u *Update) Nested(name string) bool { return u != nil && u.nested[name] }

// Kind returns the kind that the update is known to give a whole attribute, or None.
func (u *Update) Kind(name string) store.Kind {
	for _, a := range u.actions {
		if len(a.path) == 1 && a.path[0].Name == name && a.op != "REMOVE" {
			return a.val.knownKind()
		}
	}
	return store.None
}

// Touched picks what the update names of an Item.
func (u *Update) Touched() *Projection { return u.proj }
