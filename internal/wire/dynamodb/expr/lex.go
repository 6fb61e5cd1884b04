package expr

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
)

// Fault is what is wrong with an expression, in DynamoDB's words.
type Fault struct{ Msg string }

// Error returns the message.
func (f *Fault) Error() string { return f.Msg }

func fault(format string, args ...any) *Fault { return &Fault{fmt.Sprintf(format, args...)} }

// maxNesting bounds parentheses and functions in one another.
const maxNesting = 150

type tokenKind uint8

const (
	end tokenKind = iota
	word
	nameRef  // #name
	valueRef // :value
	digits
	symbol
	junk
)

type token struct {
	kind     tokenKind
	text     string
	from, to int
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }

func digit(c byte) bool { return c >= '0' && c <= '9' }

// lex cuts an expression into tokens; the last is the end.
func lex(s string) []token {
	var all []token
	for i := 0; i < len(s); {
		c, from := s[i], i
		kind := junk
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			i++
			continue
		case letter(c), c == '#', c == ':':
			kind = map[bool]tokenKind{true: nameRef, false: valueRef}[c == '#']
			if letter(c) {
				kind = word
			}
			for i++; i < len(s) && (letter(s[i]) || digit(s[i])); i++ {
			}
		case digit(c):
			kind = digits
			for i++; i < len(s) && digit(s[i]); i++ {
			}
		case strings.HasPrefix(s[i:], "<="), strings.HasPrefix(s[i:], ">="), strings.HasPrefix(s[i:], "<>"):
			kind = symbol
			i += 2
		default:
			if strings.IndexByte("=<>(),.[]+-", c) >= 0 {
				kind = symbol
			}
			for i++; i < len(s) && s[i]&0xc0 == 0x80; i++ { // the rest of a character
			}
		}
		all = append(all, token{kind, s[from:i], from, i})
	}
	return append(all, token{kind: end, text: "<EOF>", from: len(s), to: len(s)})
}

// Scope holds the placeholders of one request and which of them were used.
type Scope struct {
	Names      map[string]string // "#n" to an attribute's name
	Values     map[string]store.Value
	usedNames  map[string]bool
	usedValues map[string]bool
}

// NewScope returns a Scope of placeholders.
func NewScope(names map[string]string, values map[string]store.Value) *Scope {
	return &Scope{Names: names, Values: values, usedNames: map[string]bool{}, usedValues: map[string]bool{}}
}

// UsedName and UsedValue tell whether an expression parsed in the Scope had the placeholder.
func (s *Scope) UsedName(name string) bool { return s.usedNames[name] }

// UsedValue tells it for ":value".
func (s *Scope) UsedValue(name string) bool { return s.usedValues[name] }

// Elem is one step of a Path: a name or, when Name is empty, a place in a list.
type Elem struct {
	Name  string
	Index int
}

// Path leads to a value in an Item.
type Path []Elem

// String shows a path as DynamoDB's messages do: "[a, [0], b]".
func (p Path) String() string {
	parts := make([]string, len(p))
	for i, e := range p {
		parts[i] = e.Name
		if e.Name == "" {
			parts[i] = "[" + strconv.Itoa(e.Index) + "]"
		}
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func (p Path) equal(q Path) bool {
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i] != q[i] {
			return false
		}
	}
	return true
}

// find returns the value in an Item that a path leads to.
func (p Path) find(it store.Item) (store.Value, bool) {
	if len(p) == 0 {
		return store.Value{}, false
	}
	v, ok := it[p[0].Name]
	for _, e := range p[1:] {
		switch {
		case !ok:
			return store.Value{}, false
		case e.Name != "" && v.Kind == store.M:
			v, ok = v.Map[e.Name]
		case e.Name == "" && v.Kind == store.L && e.Index < len(v.List):
			v = v.List[e.Index]
		default:
			return store.Value{}, false
		}
	}
	return v, ok
}

// parser walks the tokens of one expression. Errors of meaning are kept by class, the first of each; which one is told is decided at the end.
type parser struct {
	text   string
	toks   []token
	at     int
	depth  int
	scope  *Scope
	errs   map[string]string
	words  []string // keywords, which are no names
	heads  map[string]bool
	nested map[string]bool

	valueClass string // undefined values; in conditions they are of the class of undefined names
}

func newParser(text string, scope *Scope, words ...string) *parser {
	return &parser{text: text, toks: lex(text), scope: scope, errs: map[string]string{}, words: words, heads: map[string]bool{}, nested: map[string]bool{}, valueClass: "name"}
}

func (p *parser) note(class, format string, args ...any) {
	if p.errs[class] == "" {
		p.errs[class] = fmt.Sprintf(format, args...)
	}
}

// first returns the first error in an order of classes.
func (p *parser) first(classes ...string) string {
	for _, c := range classes {
		if p.errs[c] != "" {
			return p.errs[c]
		}
	}
	return ""
}

func (p *parser) peek() token { return p.toks[p.at] }

func (p *parser) next() token {
	t := p.toks[p.at]
	if t.kind != end {
		p.at++
	}
	return t
}

func (p *parser) is(symbolText string) bool {
	t := p.peek()
	return t.kind == symbol && t.text == symbolText
}

func (p *parser) take(symbolText string) bool {
	if p.is(symbolText) {
		p.at++
		return true
	}
	return false
}

// keyword tells whether the next token is one of the words, whatever its case.
func (p *parser) keyword(words ...string) bool {
	t := p.peek()
	if t.kind != word {
		return false
	}
	for _, w := range words {
		if strings.EqualFold(t.text, w) {
			return true
		}
	}
	return false
}

// syntax returns the fault of an unexpected token, with what is around it.
func (p *parser) syntax() *Fault {
	t := p.peek()
	from, to := t.from, t.to
	if p.at > 0 {
		from = p.toks[p.at-1].from
	}
	if p.at+1 < len(p.toks) {
		to = p.toks[p.at+1].to
	}
	return fault("Syntax error; token: %q, near: %q", t.text, p.text[from:to])
}

func (p *parser) enter() *Fault {
	if p.depth++; p.depth > maxNesting {
		return fault("The expression contains too many nested parentheses;")
	}
	return nil
}

// name reads one name of a path.
func (p *parser) name() (string, *Fault) {
	t := p.peek()
	switch {
	case t.kind == word && !p.keyword(p.words...):
		p.at++
		if isReserved(t.text) {
			p.note("reserved", "Attribute name is a reserved keyword; reserved keyword: %s", t.text)
		}
		return t.text, nil
	case t.kind == nameRef:
		p.at++
		real, ok := p.scope.Names[t.text]
		if !ok {
			p.note("name", "An expression attribute name used in the document path is not defined; attribute name: %s", t.text)
			return t.text, nil
		}
		p.scope.usedNames[t.text] = true
		return real, nil
	}
	return "", p.syntax()
}

// tail reads what follows the first name of a path.
func (p *parser) tail(path Path) (Path, *Fault) {
	for {
		switch {
		case p.take("."):
			n, f := p.name()
			if f != nil {
				return nil, f
			}
			path = append(path, Elem{Name: n})
		case p.take("["):
			t := p.peek()
			if t.kind != digits {
				return nil, p.syntax()
			}
			p.at++
			if !p.take("]") {
				return nil, p.syntax()
			}
			n, err := strconv.Atoi(t.text)
			if err != nil {
				n = 1 << 30
			}
			path = append(path, Elem{Index: n})
		default:
			if len(path) > 1 {
				p.nested[path[0].Name] = true
			}
			p.heads[path[0].Name] = true
			return path, nil
		}
	}
}

func (p *parser) path() (Path, *Fault) {
	n, f := p.name()
	if f != nil {
		return nil, f
	}
	return p.tail(Path{{Name: n}})
}

// value reads a placeholder of a value.
func (p *parser) value() (operand, *Fault) {
	t := p.next()
	v, ok := p.scope.Values[t.text]
	if !ok {
		p.note(p.valueClass, "An expression attribute value used in expression is not defined; attribute value: %s", t.text)
		return operand{}, nil
	}
	p.scope.usedValues[t.text] = true
	return operand{lit: v, form: literal}, nil
}
