// Package policy decides whether statements of IAM allow a request.
//
// Main types: [Policy], statements that were read; [Request], what somebody wants to do; [Decision].
//
// Guarantees:
//
//  1. A statement that denies wins over every one that allows; what no statement speaks of is not allowed.
//  2. A Policy is read whole or refused with the place in it that is wrong: no condition is passed over.
//  3. Deciding is pure and safe for concurrent use.
//
// Region and account of an ARN count for nothing, in statements and requests: there is one of each here, whatever a project was written for.
//
// It knows nothing of services, functions and who asks.
package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

// Policy is a set of statements. The zero Policy allows nothing.
type Policy struct {
	statements []statement
}

// Request is what is to be decided.
type Request struct {
	Action   string              // as dynamodb:PutItem
	Resource string              // its ARN; "*" where the action is about none
	Context  map[string][]string // condition keys in lower case and their values, as aws:sourceip
	// Principals are the ARNs of who asks, without an account, "arn:aws:iam:::root" for every account, and the names of services: of a Policy
	// that was read by ParseShared, only statements count that name one of them.
	Principals []string
}

// Effect is what comes out.
type Effect int

// The effects. Silent is IAM's implicit deny.
const (
	Silent Effect = iota
	Allow
	Deny
)

// Decision is an Effect and where it comes from.
type Decision struct {
	Effect    Effect
	Statement string // the Sid of the statement that decided, or its place as "statement 2"; empty for Silent
}

// statement is one of a Policy.
type statement struct {
	name                 string
	deny                 bool
	actions, resources   []string
	notAction, notSource bool // the lists say what it is not about
	conditions           []condition
	shared               bool     // it is on a resource: principals says whom it is about
	principals           []string // "*" is everybody
	notPrincipal         bool     // the list says whom it is not about
}

// Parse reads statements, as they come out of JSON or YAML: maps of strings, lists, numbers and booleans. The error has the code Invalid and names the place.
func Parse(statements []map[string]any) (Policy, error) {
	var p Policy
	for i, m := range statements {
		s, err := parseStatement(fmt.Sprintf("statement %d", i+1), m)
		if err != nil {
			return Policy{}, err
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

// ParseShared reads the statements of a policy that is on a resource, where each has a Principal.
func ParseShared(statements []map[string]any) (Policy, error) {
	p, err := Parse(statements)
	for i := range p.statements {
		s, m := &p.statements[i], statements[i]
		s.shared = true
		v, ok := m["Principal"]
		if !ok {
			v, s.notPrincipal = m["NotPrincipal"]
		}
		if s.principals = principals(v); len(s.principals) == 0 {
			return Policy{}, errs.New(errs.Invalid, "%s of the policy: it has to have a Principal", s.name)
		}
	}
	return p, err
}

// principals reads "*", or a map of kinds of principals to one or several.
func principals(v any) (out []string) {
	m, ok := v.(map[string]any)
	if !ok {
		m = map[string]any{"AWS": v}
	}
	for _, one := range m {
		list, _ := texts(one)
		for _, p := range list {
			if len(p) == 12 && strings.Trim(p, "0123456789") == "" {
				p = "arn:aws:iam:::root"
			}
			out = append(out, anywhere(p))
		}
	}
	return out
}

// ParseDocument reads a policy document in JSON.
func ParseDocument(text []byte) (Policy, error) {
	var d struct {
		Statement json.RawMessage
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return Policy{}, errs.New(errs.Invalid, "the policy is not JSON: %w", err)
	}
	var list []map[string]any
	if one := map[string]any{}; json.Unmarshal(d.Statement, &one) == nil {
		list = append(list, one)
	} else if err := json.Unmarshal(d.Statement, &list); err != nil {
		return Policy{}, errs.New(errs.Invalid, "Statement of the policy is not a statement or a list of them")
	}
	return Parse(list)
}

// Documents are the statements in what is or holds a policy document: one statement, or a list of them.
func Documents(document any) (list []map[string]any) {
	m, _ := document.(map[string]any)
	switch st := m["Statement"].(type) {
	case map[string]any:
		return []map[string]any{st}
	case []any:
		for _, one := range st {
			if m, ok := one.(map[string]any); ok {
				list = append(list, m)
			}
		}
	}
	return list
}

// Join makes one Policy of several.
func Join(all ...Policy) Policy {
	var p Policy
	for _, one := range all {
		p.statements = append(p.statements, one.statements...)
	}
	return p
}

// Decide gives what the Policy says of a request.
func (p Policy) Decide(r Request) Decision {
	var d Decision
	resource := anywhere(r.Resource)
	for i := range p.statements {
		s := &p.statements[i]
		if d.Effect != Silent && !s.deny || !s.meets(r, resource) {
			continue
		}
		if s.deny {
			return Decision{Deny, s.name}
		}
		d = Decision{Allow, s.name}
	}
	return d
}

// MayDeny says whether a statement could deny an action, with whatever resource and conditions. An action that ends in ":*" stands for all of its service.
func (p Policy) MayDeny(action string) bool {
	action = strings.ToLower(action)
	service, all := strings.CutSuffix(action, ":*")
	return slices.ContainsFunc(p.statements, func(s statement) bool {
		if !s.deny {
			return false
		}
		if s.notAction {
			return !slices.ContainsFunc(s.actions, func(a string) bool { return like(a, action) })
		}
		return slices.ContainsFunc(s.actions, func(a string) bool {
			prefix, _, ok := strings.Cut(a, ":")
			return like(a, action) || all && ok && like(prefix, service)
		})
	})
}

func (s *statement) meets(r Request, resource string) bool {
	if s.shared && s.about(r.Principals) == s.notPrincipal {
		return false
	}
	action := slices.ContainsFunc(s.actions, func(a string) bool { return like(a, strings.ToLower(r.Action)) })
	if action == s.notAction {
		return false
	}
	named := slices.ContainsFunc(s.resources, func(p string) bool { return like(fill(p, r.Context), resource) })
	if named == s.notSource {
		return false
	}
	return !slices.ContainsFunc(s.conditions, func(c condition) bool { return !c.holds(r.Context) })
}

// NamesIn says whether a statement allows some action of a service on the thing with the ARN, which it names as in Names.
func (p Policy) NamesIn(service, thing string) bool {
	thing = anywhere(thing)
	return slices.ContainsFunc(p.statements, func(s statement) bool {
		return !s.deny && !s.notAction && !s.notSource &&
			slices.ContainsFunc(s.actions, func(a string) bool { return a == "*" || strings.HasPrefix(a, service+":") }) &&
			slices.ContainsFunc(s.resources, func(r string) bool { return whole(r, thing) })
	})
}

// whole says whether a pattern has an ARN whole, and perhaps something behind it.
func whole(pattern, thing string) bool {
	rest, ok := strings.CutPrefix(pattern, thing)
	return ok && (rest == "" || rest[0] == '/' || rest[0] == ':')
}

// about says whether one of those who ask is among a statement's principals.
func (s *statement) about(who []string) bool {
	return slices.ContainsFunc(s.principals, func(p string) bool { return p == "*" || slices.Contains(who, p) })
}

// Names says whether a statement that allows a request names the thing with the ARN, which may be more than the request is about (a table, of which an
// index is asked for): its Resource has that ARN whole. A wildcard in the name names nothing; behind it, and in the place of region and account, it may stand.
func (p Policy) Names(r Request, thing string) bool {
	resource := anywhere(r.Resource)
	thing = anywhere(thing)
	for i := range p.statements {
		s := &p.statements[i]
		if s.deny || s.notSource || !s.meets(r, resource) {
			continue
		}
		for _, pattern := range s.resources {
			pattern = fill(pattern, r.Context)
			if whole(pattern, thing) && like(pattern, resource) {
				return true
			}
		}
	}
	return false
}

// Missing is the statement that would allow a request, as a project file would have it.
func Missing(r Request) string {
	b, _ := json.Marshal(struct { // strings encode
		Effect, Action, Resource string
	}{"Allow", r.Action, r.Resource})
	return string(b)
}

func parseStatement(name string, m map[string]any) (statement, error) {
	s := statement{name: name}
	bad := func(format string, args ...any) (statement, error) {
		return s, errs.New(errs.Invalid, name+" of the policy: "+format, args...)
	}
	if sid, ok := m["Sid"].(string); ok && sid != "" {
		s.name = sid
	}
	switch effect, _ := m["Effect"].(string); effect {
	case "Allow":
	case "Deny":
		s.deny = true
	default:
		return bad("Effect is %s, and not Allow or Deny", shown(m["Effect"]))
	}
	for _, l := range []struct {
		key, not string
		into     *[]string
		is       *bool
	}{{"Action", "NotAction", &s.actions, &s.notAction}, {"Resource", "NotResource", &s.resources, &s.notSource}} {
		v, ok := m[l.key]
		other, both := m[l.not]
		if ok == both {
			return bad("it has to have one of %s and %s", l.key, l.not)
		}
		if both {
			v, *l.is = other, true
		}
		list, err := texts(v)
		if err != nil || len(list) == 0 {
			return bad("%s is no string or list of strings", l.key)
		}
		*l.into = list
	}
	for i, a := range s.actions {
		s.actions[i] = strings.ToLower(a)
	}
	for i, a := range s.resources {
		s.resources[i] = anywhere(a)
	}
	conditions, ok := m["Condition"].(map[string]any)
	if m["Condition"] != nil && !ok {
		return bad("Condition is no map of operators")
	}
	for op, v := range conditions {
		keys, ok := v.(map[string]any)
		if !ok {
			return bad("Condition.%s is no map of condition keys", op)
		}
		for key, v := range keys {
			values, err := texts(v)
			if err != nil {
				return bad("Condition.%s.%s is no string or list of strings", op, key)
			}
			c, err := newCondition(op, key, values)
			if err != nil {
				return bad("Condition.%s.%s: %v", op, key, err)
			}
			s.conditions = append(s.conditions, c)
		}
	}
	return s, nil
}

func shown(v any) string {
	if v == nil {
		return "missing"
	}
	return fmt.Sprintf("%q", fmt.Sprint(v))
}

// texts reads one value or a list of them. Numbers and booleans are strings to IAM.
func texts(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		if l, ok := v.([]string); ok {
			return slices.Clone(l), nil
		}
		list = []any{v}
	}
	var out []string
	for _, one := range list {
		switch one := one.(type) {
		case string:
			out = append(out, one)
		case bool, int, int64, uint64, float64, json.Number:
			out = append(out, fmt.Sprint(one))
		default:
			return nil, errs.New(errs.Invalid, "not a string")
		}
	}
	return out, nil
}

// anywhere takes region and account out of an ARN.
func anywhere(a string) string {
	parts := strings.SplitN(a, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return a
	}
	// A wildcard may stand for several parts: such an ARN stays as it is, with what is asked for having none of them.
	parts[3], parts[4] = "", ""
	return strings.Join(parts, ":")
}

// fill puts the values of policy variables into a pattern. One without a value matches nothing, as IAM has it.
func fill(p string, context map[string][]string) string {
	if !strings.Contains(p, "${") {
		return p
	}
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(p, "${")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			return b.String() + "${" + rest
		}
		p = after
		name, def, hasDefault := strings.Cut(name, ",")
		values := context[strings.ToLower(strings.TrimSpace(name))]
		switch {
		case name == "*" || name == "?" || name == "$":
			b.WriteString(literal + name)
		case len(values) == 1:
			b.WriteString(escape(values[0]))
		case hasDefault:
			b.WriteString(escape(strings.Trim(strings.TrimSpace(def), "'")))
		default:
			return literal // nothing ends so
		}
	}
}

// literal before a byte of a pattern takes its meaning from it.
const literal = "\x00"

func escape(s string) string {
	return strings.NewReplacer("*", literal+"*", "?", literal+"?", literal, "").Replace(s)
}

// like matches a string against a pattern with * and ?, in time that is bounded by the product of their lengths.
func like(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
			continue
		case p < len(pattern) && pattern[p] == '?':
			p, i = p+1, i+1
			continue
		case p+1 < len(pattern) && pattern[p] == literal[0] && pattern[p+1] == s[i]:
			p, i = p+2, i+1
			continue
		case p < len(pattern) && pattern[p] == s[i] && pattern[p] != literal[0]:
			p, i = p+1, i+1
			continue
		case star < 0:
			return false
		}
		mark++
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
