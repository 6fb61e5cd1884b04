package cloudformation

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// args evaluates the arguments of a function that wants between lo and hi of them.
func (e *evaluator) args(pos diag.Pos, fn string, arg *Node, lo, hi int) ([]*Node, bool) {
	if arg == nil || arg.Kind != List || len(arg.Items) < lo || len(arg.Items) > hi {
		e.badArg(pos, fn, "a list of "+strconv.Itoa(lo)+" arguments")
		return nil, false
	}
	return arg.Items, true
}

// sub is Fn::Sub: ${Name}, ${Name.Attr}, ${!Literal}, and own variables in the long form.
func (e *evaluator) sub(pos diag.Pos, arg *Node) *Node {
	vars := map[string]*Node{}
	if arg != nil && arg.Kind == List {
		a, ok := e.args(pos, "Fn::Sub", arg, 1, 2)
		if !ok {
			return faulty(pos)
		}
		if len(a) == 2 && a[1].Kind == Map {
			for _, en := range a[1].Entries {
				vars[en.Key] = e.eval(en.Value)
			}
		}
		arg = a[0]
	}
	s, ok := arg.Text()
	if !ok || arg.Kind != Scalar {
		e.badArg(pos, "Fn::Sub", "a text, or a text and a map")
		return faulty(pos)
	}
	var parts []app.Value
	for {
		before, after, found := strings.Cut(s, "${")
		parts = append(parts, app.Lit(before))
		if !found {
			break
		}
		name, rest, closed := strings.Cut(after, "}")
		if !closed {
			parts = append(parts, app.Lit("${"+after))
			break
		}
		s = rest
		if lit, ok := strings.CutPrefix(name, "!"); ok {
			parts = append(parts, app.Lit("${"+lit+"}"))
			continue
		}
		v, ok := e.variable(arg.Pos, strings.TrimSpace(name), vars)
		if !ok || !e.cost(pos, len(v.String())) {
			return faulty(pos)
		}
		parts = append(parts, v)
	}
	return e.value(pos, app.Template(parts...))
}

// variable is one ${name} of Fn::Sub.
func (e *evaluator) variable(pos diag.Pos, name string, vars map[string]*Node) (app.Value, bool) {
	n, ok := vars[name]
	if !ok {
		if id, attr, dotted := strings.Cut(name, "."); dotted {
			if id == "" || attr == "" || !e.reaches(pos, id, "Fn::Sub") {
				return app.Value{}, false
			}
			return e.attribute(id, attr), true
		}
		before := len(e.diags)
		n = e.ref(pos, name, "Fn::Sub")
		if len(e.diags) > before {
			return app.Value{}, false
		}
	}
	if n == nil {
		return app.Lit(""), true
	}
	if n.Kind == List {
		return e.joined(n, ","), true
	}
	v, ok := asText(n)
	if !ok {
		e.badArg(pos, "Fn::Sub", "a text for ${"+name+"}")
	}
	return v, ok
}

// joined concatenates the texts of an evaluated List.
func (e *evaluator) joined(list *Node, sep string) app.Value {
	var parts []app.Value
	for i, it := range list.Items {
		v, ok := asText(it)
		if !ok {
			e.badArg(it.Place(), "Fn::Join", "a list of texts")
			continue
		}
		if !e.cost(it.Pos, len(sep)+len(v.String())) {
			return app.Value{}
		}
		if i > 0 {
			parts = append(parts, app.Lit(sep))
		}
		parts = append(parts, v)
	}
	return app.Template(parts...)
}

func (e *evaluator) join(pos diag.Pos, arg *Node) *Node {
	a, ok := e.args(pos, "Fn::Join", arg, 2, 2)
	if !ok {
		return faulty(pos)
	}
	sep, ok := e.literal(a[0], "Fn::Join")
	if !ok {
		return faulty(pos)
	}
	list := e.eval(a[1])
	if isFaulty(list) {
		return list
	}
	if was, v, ok := pendingSplit(list); ok {
		return e.value(pos, app.Replace(v, was, sep))
	}
	if list != nil && list.Kind == List {
		return e.value(pos, e.joined(list, sep))
	}
	// An attribute that is a list comes from the deploy with commas.
	if v, ok := asText(list); ok {
		if _, known := v.Literal(); !known {
			return e.value(pos, app.Replace(v, ",", sep))
		}
	}
	e.badArg(a[1].Pos, "Fn::Join", "a delimiter and a list")
	return faulty(pos)
}

// pending keeps an intrinsic over what only the deploy knows.
func pending(pos diag.Pos, fn string, args ...*Node) *Node {
	return NewMap(pos, Entry{Key: fn, Pos: pos, Value: NewList(pos, args...)})
}

// pendingSplit reads what pending made of Fn::Split.
func pendingSplit(n *Node) (sep string, v app.Value, ok bool) {
	a := n.Get("Fn::Split")
	if a == nil || a.Kind != List || len(a.Items) != 2 {
		return "", app.Value{}, false
	}
	sep, ok1 := asLiteral(a.Items[0])
	v, ok2 := asText(a.Items[1])
	return sep, v, ok1 && ok2
}

func isPending(n *Node) bool {
	return n != nil && n.Kind == Map && len(n.Entries) == 1 && isIntrinsic(n.Entries[0].Key)
}

func (e *evaluator) split(pos diag.Pos, arg *Node) *Node {
	a, ok := e.args(pos, "Fn::Split", arg, 2, 2)
	if !ok {
		return faulty(pos)
	}
	sep, ok := e.literal(a[0], "Fn::Split")
	if !ok {
		return faulty(pos)
	}
	v, ok := e.text(a[1], "Fn::Split")
	if !ok {
		return faulty(pos)
	}
	if sep == "" {
		e.badArg(pos, "Fn::Split", "a delimiter")
		return faulty(pos)
	}
	s, known := v.Literal()
	if !known {
		return pending(pos, "Fn::Split", Str(pos, sep), e.value(pos, v))
	}
	parts := strings.Split(s, sep)
	if !e.cost(pos, len(s)+16*len(parts)) {
		return faulty(pos)
	}
	return From(pos, parts)
}

func (e *evaluator) selectOf(pos diag.Pos, arg *Node) *Node {
	a, ok := e.args(pos, "Fn::Select", arg, 2, 2)
	if !ok {
		return faulty(pos)
	}
	at, ok := e.literal(a[0], "Fn::Select")
	if !ok {
		return faulty(pos)
	}
	i, err := strconv.Atoi(at)
	if err != nil || i < 0 {
		e.badArg(a[0].Pos, "Fn::Select", "an index from 0")
		return faulty(pos)
	}
	list := e.eval(a[1])
	if isFaulty(list) {
		return list
	}
	if sep, v, ok := pendingSplit(list); ok {
		return e.value(pos, app.Pick(v, sep, i))
	}
	switch {
	case isPending(list):
		return pending(pos, "Fn::Select", From(pos, i), list)
	case list == nil || list.Kind != List:
		if v, ok := asText(list); ok {
			if _, known := v.Literal(); !known {
				return e.value(pos, app.Pick(v, ",", i))
			}
		}
		e.badArg(a[1].Pos, "Fn::Select", "an index and a list")
	case i >= len(list.Items):
		e.diags.Errorf(pos, "bad-argument", "", "Fn::Select asks for item %d of a list of %d", i, len(list.Items))
	default:
		return list.Items[i]
	}
	return faulty(pos)
}

func (e *evaluator) findInMap(pos diag.Pos, arg *Node) *Node {
	a, ok := e.args(pos, "Fn::FindInMap", arg, 3, 4)
	if !ok {
		return faulty(pos)
	}
	at := e.root.Get("Mappings")
	for i, what := range []string{"mapping", "top-level key", "second-level key"} {
		key, ok := e.literal(a[i], "Fn::FindInMap")
		if !ok {
			return faulty(pos)
		}
		next := at.Get(key)
		if next == nil {
			if len(a) == 4 && a[3].Get("DefaultValue") != nil {
				return e.eval(a[3].Get("DefaultValue"))
			}
			e.diags.Errorf(a[i].Pos, "unknown-ref", nearHint(key, mapKeys(at)), "there is no %s %q", what, key)
			return faulty(pos)
		}
		at = next
	}
	return e.copied(pos, at)
}

func mapKeys(n *Node) []string {
	var keys []string
	if n != nil {
		for _, en := range n.Entries {
			keys = append(keys, en.Key)
		}
	}
	return keys
}

func (e *evaluator) ifElse(pos diag.Pos, arg *Node) *Node {
	a, ok := e.args(pos, "Fn::If", arg, 3, 3)
	if !ok {
		return faulty(pos)
	}
	name, ok := e.literal(a[0], "Fn::If")
	if !ok {
		return faulty(pos)
	}
	if e.condition(a[0].Pos, name) {
		return e.eval(a[1])
	}
	return e.eval(a[2])
}

// cidr is Fn::Cidr: count blocks of 2^bits addresses each.
func (e *evaluator) cidr(pos diag.Pos, arg *Node) *Node {
	a, ok := e.args(pos, "Fn::Cidr", arg, 2, 3)
	if !ok {
		return faulty(pos)
	}
	evaluated := make([]*Node, len(a))
	var texts []string
	for i := range a {
		evaluated[i] = e.eval(a[i])
		if s, ok := asLiteral(evaluated[i]); ok {
			texts = append(texts, s)
		} else if evaluated[i] == nil {
			evaluated[i] = faulty(pos)
		}
	}
	if len(texts) < len(a) {
		return pending(pos, "Fn::Cidr", evaluated...)
	}
	block, err := netip.ParsePrefix(texts[0])
	if err != nil {
		e.badArg(a[0].Pos, "Fn::Cidr", "an address block like 10.0.0.0/16")
		return faulty(pos)
	}
	count, err := strconv.Atoi(texts[1])
	bits := 8
	if !block.Addr().Is4() {
		bits = 64
	}
	size := block.Addr().BitLen()
	if err == nil && len(texts) == 3 {
		bits, err = strconv.Atoi(texts[2])
	}
	length := size - bits
	if err != nil || count < 1 || count > 256 || bits < 1 || length < block.Bits() || length-block.Bits() < 30 && count > 1<<(length-block.Bits()) {
		e.badArg(pos, "Fn::Cidr", "between 1 and 256 blocks that fit into the first one")
		return faulty(pos)
	}
	out := NewList(pos)
	addr := block.Masked().Addr()
	for range count {
		out.Items = append(out.Items, Str(pos, netip.PrefixFrom(addr, length).String()))
		addr = advance(addr, bits)
	}
	return out
}

// advance adds 2^bits to the address.
func advance(a netip.Addr, bits int) netip.Addr {
	b := a.AsSlice()
	i := len(b) - 1 - bits/8
	for carry := 1 << (bits % 8); i >= 0 && carry > 0; i-- {
		carry += int(b[i])
		b[i] = byte(carry)
		carry >>= 8
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}

func (e *evaluator) toJSON(pos diag.Pos, arg *Node) *Node {
	var parts []app.Value
	e.writeJSON(&parts, e.eval(arg))
	return e.value(pos, app.Template(parts...))
}

// writeJSON appends n as JSON; a Value stands inside the quotes of its string.
func (e *evaluator) writeJSON(parts *[]app.Value, n *Node) {
	put := func(s string) {
		if e.cost(n.Place(), len(s)) {
			*parts = append(*parts, app.Lit(s))
		}
	}
	quote := func(s string) string {
		b, _ := json.Marshal(s)
		return string(b)
	}
	switch {
	case n.IsNull():
		put("null")
	case n.Kind == List:
		put("[")
		for i, it := range n.Items {
			if i > 0 {
				put(",")
			}
			e.writeJSON(parts, it)
		}
		put("]")
	case n.Kind == Map:
		put("{")
		for i, en := range n.Entries {
			if i > 0 {
				put(",")
			}
			put(quote(en.Key) + ":")
			e.writeJSON(parts, en.Value)
		}
		put("}")
	default:
		switch v := n.Value.(type) {
		case app.Value:
			put(`"`)
			for _, p := range v.Parts() {
				if s, ok := p.Literal(); ok {
					q := quote(s)
					p = app.Lit(q[1 : len(q)-1])
				}
				*parts = append(*parts, p)
			}
			put(`"`)
		case string:
			put(quote(v))
		default:
			b, err := json.Marshal(v)
			if err != nil {
				b = []byte("null")
			}
			put(string(b))
		}
	}
}
