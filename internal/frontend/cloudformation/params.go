package cloudformation

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// evalParams gives every declared parameter its value.
func (e *evaluator) evalParams() {
	e.params = map[string]*Node{}
	decls := e.root.Get("Parameters")
	if !decls.IsNull() && decls.Kind != Map {
		e.diags.Errorf(decls.Pos, "bad-value", "", "Parameters must be a map")
		return
	}
	if decls != nil {
		for _, en := range decls.Entries {
			e.params[en.Key] = e.param(en)
		}
	}
	for _, name := range sortedKeys(e.in.Params) {
		if _, ok := e.params[name]; !ok {
			e.diags.Warnf(e.root.Place(), "unknown-parameter", nearHint(name, sortedKeys(e.params)), "a value is given for the parameter %q, which the template does not declare", name)
		}
	}
}

func (e *evaluator) param(en Entry) *Node {
	d := en.Value
	typ, ok := d.Get("Type").Text()
	if !ok {
		e.diags.Errorf(en.Pos, "missing-key", "Give it a Type, for example String.", "the parameter %q has no Type", en.Key)
	}
	for _, k := range mapEntries(d) {
		known := strings.Fields("Type Default Description AllowedValues AllowedPattern ConstraintDescription MinLength MaxLength MinValue MaxValue NoEcho")
		if !slices.Contains(known, k.Key) {
			e.diags.Warnf(k.Pos, "unknown-key", nearHint(k.Key, known), "a parameter has no key %q", k.Key)
		}
	}
	text, given := e.in.Params[en.Key]
	if !given {
		def := d.Get("Default")
		switch {
		case def != nil && def.Kind == List:
			var parts []string
			for _, it := range def.Items {
				s, _ := asLiteral(it)
				parts = append(parts, s)
			}
			text = strings.Join(parts, ",")
		case def != nil && def.Kind == Scalar:
			text, _ = asLiteral(def)
		default:
			e.diags.Errorf(en.Pos, "missing-parameter", fmt.Sprintf("Give it with --param %s=…, or write a Default.", en.Key), "the parameter %q has no value", en.Key)
			return e.placeholder(en, typ)
		}
	}
	e.checkParam(en, typ, text, given)
	pos := d.Place()
	if inner, ok := strings.CutPrefix(typ, "AWS::SSM::Parameter::Value<"); ok {
		if text == "" {
			return Str(pos, "")
		}
		secret := e.value(pos, app.SecretRef("ssm:"+text))
		if strings.HasPrefix(inner, "List<") || strings.HasPrefix(inner, "CommaDelimitedList") {
			return pending(pos, "Fn::Split", Str(pos, ","), secret)
		}
		return secret
	}
	if typ == "CommaDelimitedList" || strings.HasPrefix(typ, "List<") {
		if text == "" {
			return NewList(pos)
		}
		parts := strings.Split(text, ",")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		return From(pos, parts)
	}
	return Str(pos, text)
}

// placeholder stands for a parameter without a value, so that the rest can be checked too.
func (e *evaluator) placeholder(en Entry, typ string) *Node {
	if typ == "CommaDelimitedList" || strings.HasPrefix(typ, "List<") {
		return NewList(en.Pos)
	}
	return Str(en.Pos, "")
}

// mapEntries is n's entries, also when n is no Map.
func mapEntries(n *Node) []Entry {
	if n == nil {
		return nil
	}
	return n.Entries
}

// checkParam holds a value against what its declaration allows.
func (e *evaluator) checkParam(en Entry, typ, text string, given bool) {
	d := en.Value
	bad := func(format string, args ...any) {
		hint, _ := d.Get("ConstraintDescription").Text()
		if hint == "" && given {
			hint = "Give another with --param " + en.Key + "=…"
		}
		e.diags.Errorf(en.Pos, "bad-parameter", hint, "the parameter %q: the value %q %s", en.Key, text, fmt.Sprintf(format, args...))
	}
	if allowed := d.Get("AllowedValues"); allowed != nil && allowed.Kind == List {
		var names []string
		for _, it := range allowed.Items {
			s, _ := asLiteral(it)
			names = append(names, s)
		}
		values := []string{text}
		if typ == "CommaDelimitedList" || strings.HasPrefix(typ, "List<") {
			values = strings.Split(text, ",")
		}
		for _, v := range values {
			if !slices.Contains(names, strings.TrimSpace(v)) && !slices.Contains(names, v) {
				bad("is not one of %s", strings.Join(names, ", "))
				break
			}
		}
	}
	if pattern, ok := d.Get("AllowedPattern").Text(); ok {
		// Java's patterns differ in corners from Go's; one that Go cannot read is not held against the value.
		if re, err := regexp.Compile("^(?:" + pattern + ")$"); err == nil && !re.MatchString(text) {
			bad("does not match %s", pattern)
		}
	}
	limit := func(key string, wrong func(max float64) bool, what string) {
		s, ok := d.Get(key).Text()
		if !ok {
			return
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil && wrong(f) {
			bad("%s %s", what, s)
		}
	}
	limit("MinLength", func(f float64) bool { return float64(len([]rune(text))) < f }, "is shorter than")
	limit("MaxLength", func(f float64) bool { return float64(len([]rune(text))) > f }, "is longer than")
	if typ == "Number" {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			bad("is not a number")
			return
		}
		limit("MinValue", func(f float64) bool { return n < f }, "is less than")
		limit("MaxValue", func(f float64) bool { return n > f }, "is more than")
	}
}

type condState uint8

const (
	condBusy condState = iota + 1
	condTrue
	condFalse
)

// condition says whether a named condition holds.
func (e *evaluator) condition(pos diag.Pos, name string) bool {
	switch e.conds[name] {
	case condTrue:
		return true
	case condFalse:
		return false
	case condBusy:
		e.diags.Errorf(pos, "cycle", "", "the condition %q depends on itself", name)
		return false
	}
	decls := e.root.Get("Conditions")
	n := decls.Get(name)
	if n == nil {
		e.diags.Errorf(pos, "unknown-ref", nearHint(name, mapKeys(decls)), "there is no condition %q", name)
		return false
	}
	e.conds[name] = condBusy
	holds := e.holds(n)
	e.conds[name] = condFalse
	if holds {
		e.conds[name] = condTrue
	}
	return holds
}

// holds evaluates a condition function.
func (e *evaluator) holds(n *Node) bool {
	if !e.cost(n.Place(), 0) {
		return false
	}
	if n == nil || n.Kind != Map || len(n.Entries) != 1 {
		e.diags.Errorf(n.Place(), "bad-argument", "", "a condition must be one of Fn::Equals, Fn::And, Fn::Or, Fn::Not or Condition")
		return false
	}
	fn, arg := n.Entries[0].Key, n.Entries[0].Value
	switch fn {
	case "Condition":
		if name, ok := e.literal(arg, "Condition"); ok {
			return e.condition(arg.Pos, name)
		}
	case "Fn::Not":
		if a, ok := e.args(n.Pos, fn, arg, 1, 1); ok {
			return !e.holds(a[0])
		}
	case "Fn::And", "Fn::Or":
		a, ok := e.args(n.Pos, fn, arg, 2, 10)
		if !ok {
			return false
		}
		// All of them are evaluated, so that faults in any are seen.
		any, all := false, true
		for _, it := range a {
			h := e.holds(it)
			any, all = any || h, all && h
		}
		return fn == "Fn::And" && all || fn == "Fn::Or" && any
	case "Fn::Equals":
		if a, ok := e.args(n.Pos, fn, arg, 2, 2); ok {
			return e.equals(n.Pos, e.eval(a[0]), e.eval(a[1]))
		}
	default:
		e.diags.Errorf(n.Pos, "bad-argument", nearHint(fn, strings.Fields("Fn::Equals Fn::And Fn::Or Fn::Not Condition")), "%s is not a condition function", fn)
	}
	return false
}

func (e *evaluator) equals(pos diag.Pos, a, b *Node) bool {
	if isFaulty(a) || isFaulty(b) {
		return false
	}
	va, oka := asText(a)
	vb, okb := asText(b)
	if !oka || !okb {
		return reflect.DeepEqual(a.Plain(), b.Plain())
	}
	sa, known1 := va.Literal()
	sb, known2 := vb.Literal()
	if known1 && known2 {
		return sa == sb
	}
	if va.Equal(vb) {
		return true
	}
	e.diags.Warnf(pos, "condition-unknown", "Give the parameter a plain value for local use.", "the condition compares %s with %s, which only a deploy knows; it is taken as false", va, vb)
	return false
}
