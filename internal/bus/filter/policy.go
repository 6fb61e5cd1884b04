package filter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/bus/pattern"
	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/diag"
)

// Limits of filter policies: Amazon SNS, "Filter policy constraints".
const (
	maxPolicyKeys         = 5
	maxPolicyCombinations = 150
	maxPolicyBytes        = 256 << 10
	maxPolicyNumber       = 1e9
)

// Scope is what a filter policy looks at.
type Scope string

// The scopes, as the subscription attribute FilterPolicyScope names them. Empty means the first.
const (
	MessageAttributes Scope = "MessageAttributes"
	MessageBody       Scope = "MessageBody"
)

// Attribute is a message attribute. Type is its DataType: String, String.Array, Number or Binary.
type Attribute struct {
	Type  string
	Value string // the StringValue
}

// Policy is a compiled filter policy. It is immutable.
type Policy struct {
	scope   Scope
	pattern *pattern.Pattern // nil lets everything pass
}

// CompilePolicy reads a filter policy. An empty object lets everything pass.
func CompilePolicy(source []byte, scope Scope, file string) (*Policy, diag.List) {
	if scope == "" {
		scope = MessageAttributes
	}
	c := &policyChecker{places: places{source: source, file: file}, scope: scope, r: rawjson.Reader{Data: source}}
	if scope != MessageAttributes && scope != MessageBody {
		c.errorf(0, "policy-scope", "It is MessageAttributes or MessageBody.", "there is no filter policy scope %q", scope)
		return nil, c.list
	}
	if strings.Join(strings.Fields(string(source)), "") == "{}" {
		return &Policy{scope: scope}, nil
	}
	if len(source) > maxPolicyBytes {
		c.errorf(0, "policy-too-large", "", "the filter policy has %d bytes; %d are allowed", len(source), maxPolicyBytes)
		return nil, c.list
	}
	if n := c.object(1, 1); n > maxPolicyCombinations {
		c.errorf(0, "policy-combinations", "They are the numbers of values multiplied with each other and, in nested fields, with the depth.",
			"the values make %d combinations; %d are allowed", n, maxPolicyCombinations)
	}
	if len(c.list) > 0 {
		return nil, c.list.Sorted()
	}
	p, list := pattern.Compile(source, pattern.Options{File: file, MaxBytes: maxPolicyBytes, MaxCombinations: maxPolicyCombinations, NumberLimit: maxPolicyNumber})
	if p == nil {
		return nil, list
	}
	return &Policy{scope: scope, pattern: p}, list
}

// policyChecker counts what SNS limits, before the policy is compiled; where the syntax is wrong it stops counting.
type policyChecker struct {
	places
	scope Scope
	r     rawjson.Reader
}

const plenty = 1 << 20 // of combinations; more need not be told apart

// object gives the combinations of what came before with those of an object.
func (c *policyChecker) object(depth, combinations int) int {
	keys := 0
	_ = c.r.Object(func(k []byte, at int) error {
		key := string(k)
		if keys++; keys == maxPolicyKeys+1 && len(c.at) == 0 {
			c.errorf(at, "policy-keys", "", "a filter policy may have %d keys", maxPolicyKeys)
		}
		return c.inside("."+key, func() error {
			switch {
			case key == "$or":
				sum := 0
				err := c.r.Array(func(i int) error {
					return c.inside(element(i), func() error { sum = min(plenty, sum+c.object(depth, combinations)); return nil })
				})
				combinations = sum
				return err
			case c.r.Peek() == rawjson.Object:
				if c.scope == MessageAttributes {
					c.errorf(at, "policy-nested", "Set FilterPolicyScope to MessageBody to filter by the body.", "message attributes do not nest")
					_, err := c.r.Skip()
					return err
				}
				combinations = c.object(depth+1, combinations)
				return nil
			}
			n := 0
			err := c.r.Array(func(int) error { n++; _, err := c.r.Skip(); return err })
			combinations = min(plenty, combinations*n*depth)
			return err
		})
	})
	return combinations
}

// Match says whether a message passes. In the scope MessageBody a body that is no JSON object does not.
func (p *Policy) Match(attributes map[string]Attribute, body []byte) (bool, error) {
	if p.pattern == nil {
		return true, nil
	}
	view, ok := View(p.scope, attributes, body)
	if !ok {
		return false, nil
	}
	return p.pattern.Match(view)
}

// View is what the policies of a scope see of a message: their patterns are matched against it. False means that no pattern matches.
func View(scope Scope, attributes map[string]Attribute, body []byte) ([]byte, bool) {
	if scope == MessageAttributes {
		return attributesJSON(attributes), true
	}
	r := rawjson.Reader{Data: body, MaxDepth: jsonDepth}
	return body, r.Peek() == rawjson.Object && structured(body)
}

// Pattern is the pattern over the View, for those who match many at once; nil lets everything pass.
func (p *Policy) Pattern() *pattern.Pattern { return p.pattern }

// Scope says what the policy looks at.
func (p *Policy) Scope() Scope { return p.scope }

// attributesJSON is the event that a policy over attributes sees: strings, numbers and lists by their types. Binary attributes, and
// those whose value is not of their type, are left out.
func attributesJSON(attributes map[string]Attribute) []byte {
	names := make([]string, 0, len(attributes))
	for name := range attributes {
		names = append(names, name)
	}
	slices.Sort(names)
	out := []byte{'{'}
	for _, name := range names {
		a := attributes[name]
		value := []byte(strings.TrimSpace(a.Value))
		r := rawjson.Reader{Data: value, MaxDepth: jsonDepth}
		ok := true
		switch kind, _, _ := strings.Cut(a.Type, "."); {
		case a.Type == "String.Array":
			ok = r.Peek() == rawjson.Array && structured(value)
		case kind == "Number":
			_, err := r.Literal()
			ok = err == nil && r.Finish() == nil && value[0] != 't' && value[0] != 'f' && value[0] != 'n'
		case kind == "String":
			value = quote(nil, a.Value)
		default:
			ok = false
		}
		if !ok {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(quote(out, name), ':'), value...)
	}
	return append(out, '}')
}

// String is the policy's source.
func (p *Policy) String() string {
	if p.pattern == nil {
		return "{}"
	}
	return fmt.Sprint(p.pattern)
}
