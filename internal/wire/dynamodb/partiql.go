package dynamodb

import (
	"errors"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
)

// statement is a PartiQL statement in the terms of DynamoDB's expressions: "PartiQL for DynamoDB statements".
type statement struct {
	verb         string // "SELECT", "INSERT", "UPDATE", "DELETE"
	table, index string
	item         store.Item // of INSERT
	cond         *expr.Condition
	update       *expr.Update
	proj         *expr.Projection
	down         bool   // ORDER BY … DESC
	returning    string // as ReturnValues has it
}

type pqToken struct {
	kind byte // 'w' word, '"' quoted name, '\'' text, 'n' number, 's' symbol, 0 end
	text string
}

// translator makes expressions of a statement: names and values become placeholders.
type translator struct {
	toks   []pqToken
	at     int
	params []store.Value
	scope  *expr.Scope
}

func malformed(what string) error {
	return fail("Statement wasn't well formed, can't be processed: " + what)
}

func lexStatement(s string) (all []pqToken, err error) {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == ';':
			i++
		case c == '\'' || c == '"':
			var b strings.Builder
			for i++; ; i++ {
				if i >= len(s) {
					return nil, malformed("Unexpected end of a quoted text")
				}
				if s[i] == c {
					if i+1 < len(s) && s[i+1] == c {
						i++
					} else {
						break
					}
				}
				b.WriteByte(s[i])
			}
			i++
			all = append(all, pqToken{c, b.String()})
		case c >= '0' && c <= '9' || c == '-' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9':
			from := i
			for i++; i < len(s) && strings.IndexByte("0123456789.eE", s[i]) >= 0; i++ {
			}
			all = append(all, pqToken{'n', s[from:i]})
		case c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_':
			from := i
			for i++; i < len(s) && (s[i]|0x20 >= 'a' && s[i]|0x20 <= 'z' || s[i] == '_' || s[i] >= '0' && s[i] <= '9'); i++ {
			}
			all = append(all, pqToken{'w', s[from:i]})
		default:
			n := 1
			for _, two := range []string{"<=", ">=", "<>", "!=", "<<", ">>"} {
				if strings.HasPrefix(s[i:], two) {
					n = 2
				}
			}
			all = append(all, pqToken{'s', s[i : i+n]})
			i += n
		}
	}
	return append(all, pqToken{}), nil
}

func (t *translator) peek() pqToken { return t.toks[t.at] }

func (t *translator) next() pqToken {
	k := t.toks[t.at]
	if k.kind != 0 {
		t.at++
	}
	return k
}

func (t *translator) word(words ...string) bool {
	for _, w := range words {
		if k := t.peek(); k.kind == 'w' && strings.EqualFold(k.text, w) {
			return true
		}
	}
	return false
}

func (t *translator) takeWord(w string) bool {
	if t.word(w) {
		t.at++
		return true
	}
	return false
}

func (t *translator) symbol(s string) bool {
	if k := t.peek(); k.kind == 's' && k.text == s {
		t.at++
		return true
	}
	return false
}

// name makes a placeholder of an attribute's name.
func (t *translator) name(s string) string {
	p := "#p" + strconv.Itoa(len(t.scope.Names))
	t.scope.Names[p] = s
	return p
}

func (t *translator) placeholder(v store.Value) string {
	p := ":p" + strconv.Itoa(len(t.scope.Values))
	t.scope.Values[p] = v
	return p
}

// literal reads a value: text, number, truth value, NULL, a parameter, a list, a map or a set.
func (t *translator) literal() (v store.Value, err error) {
	k := t.next()
	switch {
	case k.kind == '\'':
		return store.Text(k.text), nil
	case k.kind == 'n':
		n, msg := numberOf(k.text)
		if msg != "" {
			return v, fail(msg)
		}
		return store.Num(n), nil
	case k.kind == 's' && k.text == "?":
		if len(t.params) == 0 {
			return v, fail("Number of parameters in request and statement don't match.")
		}
		v, t.params = t.params[0], t.params[1:]
		return v, nil
	case k.kind == 'w' && (strings.EqualFold(k.text, "true") || strings.EqualFold(k.text, "false")):
		return store.Value{Kind: store.BOOL, Bool: strings.EqualFold(k.text, "true")}, nil
	case k.kind == 'w' && strings.EqualFold(k.text, "null"):
		return store.Value{Kind: store.NULL}, nil
	case k.kind == 's' && (k.text == "[" || k.text == "<<"):
		return t.list(map[string]string{"[": "]", "<<": ">>"}[k.text])
	case k.kind == 's' && k.text == "{":
		return t.object()
	}
	return v, malformed("Unexpected " + strconv.Quote(k.text))
}

func (t *translator) list(end string) (v store.Value, err error) {
	v = store.Value{Kind: store.L}
	for !t.symbol(end) {
		if len(v.List) > 0 && !t.symbol(",") {
			return v, malformed("Expected " + end)
		}
		e, err := t.literal()
		if err != nil {
			return v, err
		}
		v.List = append(v.List, e)
	}
	if end == "]" {
		return v, nil
	}
	set := store.Value{}
	for _, e := range v.List {
		kind := map[store.Kind]store.Kind{store.S: store.SS, store.N: store.NS, store.B: store.BS}[e.Kind]
		if kind == store.None || set.Kind != store.None && set.Kind != kind {
			return v, fail("A set holds values of one kind: texts, numbers or bytes")
		}
		set.Kind, set.Set = kind, append(set.Set, e.Str)
	}
	if set.Kind == store.None {
		return v, fail(invalidPrefix + "An string set  may not be empty")
	}
	return set, nil
}

func (t *translator) object() (v store.Value, err error) {
	v = store.Value{Kind: store.M, Map: store.Item{}}
	for !t.symbol("}") {
		if len(v.Map) > 0 && !t.symbol(",") {
			return v, malformed("Expected }")
		}
		k := t.next()
		if k.kind != '\'' && k.kind != '"' || !t.symbol(":") {
			return v, malformed("Expected a name and :")
		}
		if v.Map[k.text], err = t.literal(); err != nil {
			return v, err
		}
	}
	return v, nil
}

// clause translates tokens up to one of the words into an expression.
func (t *translator) clause(stop ...string) (string, error) {
	var out []string
	path := 0 // where the last path begins
	for {
		k := t.peek()
		switch {
		case k.kind == 0, len(stop) > 0 && t.word(stop...):
			return strings.Join(out, " "), nil
		case t.word("AND", "OR", "NOT", "BETWEEN"):
			out = append(out, t.next().text)
		case t.word("IN"):
			t.at++
			out = append(out, "IN")
			if t.symbol("[") || t.symbol("(") {
				out = append(out, "(")
				for !t.symbol("]") && !t.symbol(")") {
					v, err := t.literal()
					if err != nil {
						return "", err
					}
					out = append(out, t.placeholder(v))
					if t.symbol(",") {
						out = append(out, ",")
					}
				}
				out = append(out, ")")
			}
		case t.word("IS"):
			t.at++
			f := "attribute_not_exists"
			if t.takeWord("NOT") {
				f = "attribute_exists"
			}
			if !t.takeWord("MISSING") {
				return "", malformed("Expected MISSING")
			}
			out = append(append(out[:path:path], f, "("), append(append([]string{}, out[path:]...), ")")...)
		case t.word("true", "false", "null"), k.kind == '\'', k.kind == 'n', k.kind == 's' && strings.Contains("?[{<<", k.text) && k.text != "<":
			v, err := t.literal()
			if err != nil {
				return "", err
			}
			out = append(out, t.placeholder(v))
		case k.kind == 'w' && t.toks[t.at+1].text == "(":
			out = append(out, strings.ToLower(t.next().text))
		case k.kind == 'w' || k.kind == '"':
			path = len(out)
			out = append(out, t.path())
		case k.kind == 's' && strings.Contains("=<=>=<>!=(),+-*", k.text):
			t.at++
			if k.text == "!=" {
				k.text = "<>"
			}
			out = append(out, k.text)
		default:
			return "", malformed("Unexpected " + strconv.Quote(k.text))
		}
	}
}

// path translates a name with what follows it.
func (t *translator) path() string {
	out := t.name(t.next().text)
	for {
		switch {
		case t.symbol("."):
			out += "." + t.name(t.next().text)
		case t.peek().text == "[" && t.peek().kind == 's':
			t.at++
			out += "[" + t.next().text + "]"
			t.symbol("]")
		default:
			return out
		}
	}
}

// from reads the name of a table and, behind a point, of an index.
func (t *translator) from(st *statement) error {
	k := t.next()
	if k.kind != 'w' && k.kind != '"' {
		return malformed("Expected a table's name")
	}
	st.table = k.text
	if t.symbol(".") {
		st.index = t.next().text
	}
	return nil
}

// parseStatement reads a statement.
func parseStatement(text string, params []store.Value) (*statement, error) {
	toks, err := lexStatement(text)
	if err != nil {
		return nil, err
	}
	t := &translator{toks: toks, params: params, scope: expr.NewScope(map[string]string{}, map[string]store.Value{})}
	st := &statement{verb: strings.ToUpper(t.next().text)}
	switch st.verb {
	case "SELECT":
		err = t.selection(st)
	case "INSERT":
		err = t.insertion(st)
	case "UPDATE":
		err = t.updating(st)
	case "DELETE":
		if !t.takeWord("FROM") {
			return nil, malformed("Expected FROM")
		}
		err = t.from(st)
	default:
		return nil, malformed("Expected SELECT, INSERT, UPDATE or DELETE")
	}
	if err == nil {
		err = t.rest(st)
	}
	if err == nil && len(t.params) > 0 {
		err = fail("Number of parameters in request and statement don't match.")
	}
	var bad *expr.Fault
	if errors.As(err, &bad) {
		err = fail(bad.Msg)
	}
	return st, err
}

func (t *translator) selection(st *statement) error {
	if !t.symbol("*") {
		list, err := t.clause("FROM")
		if err != nil {
			return err
		}
		if st.proj, err = expr.ParseProjection(list, t.scope); err != nil {
			return err
		}
	}
	if !t.takeWord("FROM") {
		return malformed("Expected FROM")
	}
	return t.from(st)
}

func (t *translator) insertion(st *statement) error {
	if !t.takeWord("INTO") {
		return malformed("Expected INTO")
	}
	if err := t.from(st); err != nil {
		return err
	}
	if !t.takeWord("VALUE") {
		return malformed("Expected VALUE")
	}
	v, err := t.literal()
	if err == nil && v.Kind != store.M {
		err = malformed("Expected an item")
	}
	st.item = v.Map
	return err
}

func (t *translator) updating(st *statement) error {
	if err := t.from(st); err != nil {
		return err
	}
	parts := map[string][]string{}
	for t.word("SET", "REMOVE") {
		verb := strings.ToUpper(t.next().text)
		text, err := t.clause("SET", "REMOVE", "WHERE")
		if err != nil {
			return err
		}
		parts[verb] = append(parts[verb], text)
	}
	var whole []string
	for _, verb := range []string{"SET", "REMOVE"} {
		if len(parts[verb]) > 0 {
			whole = append(whole, verb+" "+strings.Join(parts[verb], ", "))
		}
	}
	var err error
	st.update, err = expr.ParseUpdate(strings.Join(whole, " "), t.scope)
	return err
}

// rest reads what may stand at the end of a statement.
func (t *translator) rest(st *statement) error {
	if t.takeWord("WHERE") {
		text, err := t.clause("ORDER", "RETURNING")
		if err != nil {
			return err
		}
		if st.cond, err = expr.ParseCondition(text, t.scope); err != nil {
			return err
		}
	}
	if t.takeWord("ORDER") {
		t.takeWord("BY")
		for t.peek().kind != 0 && !t.word("ASC", "DESC") {
			t.at++
		}
		st.down = t.takeWord("DESC")
		t.takeWord("ASC")
	}
	if t.takeWord("RETURNING") {
		which, age := strings.ToUpper(t.next().text), strings.ToUpper(t.next().text)
		st.returning = map[string]string{"ALL OLD": "ALL_OLD", "ALL NEW": "ALL_NEW", "MODIFIED OLD": "UPDATED_OLD", "MODIFIED NEW": "UPDATED_NEW"}[which+" "+age]
		if st.returning == "" || !t.symbol("*") {
			return malformed("Unexpected RETURNING")
		}
	}
	if t.peek().kind != 0 {
		return malformed("Unexpected " + strconv.Quote(t.peek().text))
	}
	return nil
}
