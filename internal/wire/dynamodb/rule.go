package dynamodb

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/wire/shape"
)

// rule is what a member of a request must be. Its order of checks and words are DynamoDB's own, which the published models do not have.
type rule struct {
	kind   kind
	of     string // what a structure or map holds, for messages
	elem   *rule
	fields []field

	notNull, required, table bool
	enum                     []string
	pattern                  string
	least                    int64 // of a number; 0 with hasLeast
	hasLeast                 bool
	most                     int64 // of a number; 0 is no bound
	minLen, maxLen           int   // of texts, lists and maps; 0 is no bound
	keys                     *rule // of a map's keys
	values                   *rule // of a map's values
}

type field struct {
	name string
	s    *rule
}

type kind uint8

const (
	text kind = iota
	truth
	integer
	long
	blob
	list
	rawList // in messages a parameterised type of Java
	mapping
	rawMap
	value      // a structure in a list or map
	structured // a structure in a structure
	attribute  // an AttributeValue in a list or map
	attrField  // an AttributeValue in a structure
)

// serialization is a request that does not have the form of its shape.
type serialization struct{ msg string }

func (e *serialization) Error() string { return e.msg }

const reflective = "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class java.lang.Class (sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl and java.lang.Class are in module java.base of loader 'bootstrap')"

const models = "com.amazonaws.dynamodb.v20120810."

// fit checks a value's form and leaves out what the shape does not know. null stays null.
func (s *rule) fit(n *node) error {
	if n.kind == 0 {
		return nil
	}
	switch s.kind {
	case text, truth, integer, long, blob:
		return s.fitScalar(n)
	case list, rawList:
		if n.kind == 'o' {
			return &serialization{"Start of structure or map found where not expected"}
		}
		if n.kind != 'a' {
			return &serialization{map[bool]string{true: reflective, false: "Unexpected field type"}[s.kind == rawList]}
		}
		for i := range n.elems {
			if err := s.elem.fit(&n.elems[i]); err != nil {
				return err
			}
		}
		return nil
	case mapping, rawMap:
		return s.fitMap(n)
	}
	if n.kind == 'a' {
		of := s.of
		if s.kind == attribute || s.kind == attrField {
			of = "AttributeValue"
		}
		return &serialization{"Unrecognized collection type class " + models + of}
	}
	if n.kind != 'o' {
		return &serialization{map[bool]string{true: "Unexpected field type", false: "Unexpected value type in payload"}[s.kind == structured || s.kind == attrField]}
	}
	fields := s.fields
	if s.kind == attribute || s.kind == attrField {
		fields = attrFields
	}
	return fitFields(n, fields)
}

func (s *rule) fitMap(n *node) error {
	if n.kind == 'a' {
		of := s.of
		if s.kind == rawMap {
			of = "AttributeValue"
		}
		if !strings.Contains(of, ".") {
			of = models + of
		}
		return &serialization{"Unrecognized collection type java.util.Map<java.lang.String, " + of + ">"}
	}
	if n.kind != 'o' {
		return &serialization{map[bool]string{true: reflective, false: "Unexpected field type"}[s.kind == rawMap]}
	}
	for i := range n.members {
		if err := s.elem.fit(&n.members[i].val); err != nil {
			return err
		}
	}
	return nil
}

// fitFields checks a structure's members in the shape's order, which it gives them.
func fitFields(n *node, fields []field) error {
	kept := make([]member, 0, min(len(fields), len(n.members)))
	for _, f := range fields {
		m := n.get(f.name)
		if m == nil {
			continue
		}
		if err := f.s.fit(m); err != nil {
			return err
		}
		kept = append(kept, member{f.name, *m})
	}
	n.members = kept
	return nil
}

var javaNames = map[kind]string{text: "String", truth: "Boolean", integer: "Integer", long: "Long"}

func (s *rule) fitScalar(n *node) error {
	name := javaNames[s.kind]
	switch {
	case n.kind == 'o':
		return &serialization{"Start of structure or map found where not expected"}
	case n.kind == 'a' && s.kind == blob:
		return &serialization{"Unrecognized collection type class java.nio.ByteBuffer"}
	case n.kind == 'a':
		return &serialization{"Unrecognized collection type class java.lang." + name}
	}
	switch s.kind {
	case blob:
		return fitBlob(n)
	case truth:
		switch {
		case n.kind == 'n':
			return &serialization{numberWord(n) + " cannot be converted to " + name}
		case n.kind == 's':
			return fitTruth(n)
		}
		return nil
	}
	want := byte('n')
	if s.kind == text {
		want = 's'
	}
	switch {
	case n.kind == 'b':
		return &serialization{strings.ToUpper(told(n)) + "_VALUE cannot be converted to " + name}
	case n.kind == 'n' && want == 's':
		return &serialization{numberWord(n) + " cannot be converted to " + name}
	case n.kind == 's' && want == 'n':
		return &serialization{"STRING_VALUE cannot be converted to " + name}
	case want == 'n':
		if f, err := strconv.ParseFloat(n.text, 64); err == nil && math.Abs(f) < 1<<62 {
			n.text = strconv.FormatInt(int64(math.Floor(f)), 10)
		}
	}
	return nil
}

func numberWord(n *node) string {
	if f, _ := strconv.ParseFloat(n.text, 64); f == math.Trunc(f) {
		return "NUMBER_VALUE"
	}
	return "DECIMAL_VALUE"
}

func fitTruth(n *node) error {
	switch strings.ToUpper(n.text) {
	case "TRUE", "1", "YES":
		n.kind, n.truth = 'b', true
	case "FALSE", "0", "NO":
		n.kind, n.truth = 'b', false
	default:
		return &serialization{"Unexpected token received from parser"}
	}
	return nil
}

func fitBlob(n *node) error {
	if n.kind != 's' {
		return &serialization{"only base-64-encoded strings are convertible to bytes"}
	}
	if len(n.text)%4 != 0 {
		return &serialization{"Base64 encoded length is expected a multiple of 4 bytes but found: " + strconv.Itoa(len(n.text))}
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(n.text); err != nil || strings.ContainsAny(n.text, "\r\n") {
		return &serialization{"Invalid last non-pad Base64 character dectected"}
	}
	return nil
}

// invalid is a request that breaks a rule.
type invalid struct{ msg string }

func (e *invalid) Error() string { return e.msg }

// maxProblems is how many problems one message lists.
const maxProblems = 10

// check tells every rule of its shape that a request breaks.
func check(n *node, fields []field) error {
	for _, f := range fields {
		m := n.get(f.name)
		if f.s.required && m == nil {
			return &invalid{"The parameter '" + f.name + "' is required but was not present in the request"}
		}
		if f.s.table && m != nil && (len(m.text) < 3 || len(m.text) > 255) {
			return &invalid{f.name + " must be at least 3 characters long and at most 255 characters long"}
		}
	}
	var p problems
	p.fields(n, fields, "")
	if len(p) == 0 {
		return nil
	}
	noun := " validation error"
	if len(p) > 1 {
		noun += "s"
	}
	return &invalid{strconv.Itoa(len(p)) + noun + " detected: " + strings.Join(p, "; ")}
}

type problems []string

func (p *problems) add(n *node, at, what string) {
	if len(*p) >= maxProblems {
		return
	}
	v := shape.Shown(told(n))
	if v != "null" {
		v = "'" + v + "'"
	}
	*p = append(*p, "Value "+v+" at '"+at+"' failed to satisfy constraint: "+what)
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

func (p *problems) fields(n *node, fields []field, parent string) {
	for _, f := range fields {
		p.one(n.get(f.name), f.s, parent+lowerFirst(f.name))
	}
}

func (p *problems) one(n *node, s *rule, at string) {
	if n == nil || n.kind == 0 {
		if s.notNull {
			p.add(nil, at, "Member must not be null")
		}
		return
	}
	if s.enum != nil && !slices.Contains(s.enum, n.text) {
		p.add(n, at, "Member must satisfy enum value set: ["+strings.Join(s.enum, ", ")+"]")
	}
	if s.pattern != "" && s.kind == text && !isName(n.text) {
		p.add(n, at, "Member must satisfy regular expression pattern: "+s.pattern)
	}
	if v, err := strconv.ParseFloat(n.text, 64); s.hasLeast && err == nil && v < float64(s.least) {
		p.add(n, at, "Member must have value greater than or equal to "+strconv.FormatInt(s.least, 10))
	}
	if v, err := strconv.ParseFloat(n.text, 64); s.most > 0 && err == nil && v > float64(s.most) {
		p.add(n, at, "Member must have value less than or equal to "+strconv.FormatInt(s.most, 10))
	}
	size := len(n.text) + len(n.members) + len(n.elems)
	if s.minLen > 0 && size < s.minLen {
		p.add(n, at, "Member must have length greater than or equal to "+strconv.Itoa(s.minLen))
	}
	if s.maxLen > 0 && size > s.maxLen {
		p.add(n, at, "Member must have length less than or equal to "+strconv.Itoa(s.maxLen))
	}
	p.mapRules(n, s, at)
	switch s.kind {
	case list, rawList:
		for i := range n.elems {
			p.one(&n.elems[i], s.elem, at+"."+strconv.Itoa(i+1)+".member")
		}
	case mapping, rawMap:
		for i := range n.members {
			p.one(&n.members[i].val, s.elem, at+"."+n.members[i].key+".member")
		}
	case value, structured:
		p.fields(n, s.fields, at+".")
	}
}

// names is the one pattern there is: that of the names of tables and indexes.
const names = "[a-zA-Z0-9_.-]+"

func isName(text string) bool {
	for i := range len(text) {
		c := text[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return text != ""
}

// mapRules checks the keys of a map and the lengths of its values.
func (p *problems) mapRules(n *node, s *rule, at string) {
	for i := range n.members {
		if k := s.keys; k != nil {
			key := n.members[i].key
			if len(key) < k.minLen || len(key) > k.maxLen || !isName(key) {
				p.add(n, at, "Map keys must satisfy constraint: [Member must have length less than or equal to "+strconv.Itoa(k.maxLen)+
					", Member must have length greater than or equal to "+strconv.Itoa(k.minLen)+", Member must satisfy regular expression pattern: "+k.pattern+"]")
			}
		}
		if v := s.values; v != nil {
			if l := len(n.members[i].val.elems); l < v.minLen || l > v.maxLen {
				p.add(n, at, "Map value must satisfy constraint: [Member must have length less than or equal to "+strconv.Itoa(v.maxLen)+
					", Member must have length greater than or equal to "+strconv.Itoa(v.minLen)+"]")
			}
		}
	}
}
