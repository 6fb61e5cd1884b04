package shape

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxDepth is how deep values may be nested.
const maxDepth = 128

// jsonReader reads JSON (RFC 8259) straight into values.
type jsonReader struct {
	data  []byte
	i     int
	depth int
	c     *checks
	rest  bool // names are those of rest bodies
}

func (r *jsonReader) space() {
	for r.i < len(r.data) {
		switch r.data[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

// next is the first byte of the next token, or 0.
func (r *jsonReader) next() byte {
	r.space()
	if r.i < len(r.data) {
		return r.data[r.i]
	}
	return 0
}

func (r *jsonReader) want(b byte) error {
	if r.next() != b {
		return malformed("Unexpected token at position %d: %q is expected", r.i, string(b))
	}
	r.i++
	return nil
}

// raw passes over a value and returns its text.
func (r *jsonReader) raw() ([]byte, error) {
	r.space()
	begin := r.i
	switch c := r.next(); c {
	case '"':
		_, _, err := r.quoted()
		return r.data[begin:r.i], err
	case '{', '[':
		if r.depth++; r.depth > maxDepth {
			return nil, malformed("Values are nested too deep")
		}
		r.i++
		end := c + 2
		for first := true; ; first = false {
			if r.next() == end {
				r.i++
				r.depth--
				return r.data[begin:r.i], nil
			}
			if !first {
				if err := r.want(','); err != nil {
					return nil, err
				}
			}
			if c == '{' {
				r.space()
				if _, _, err := r.quoted(); err != nil {
					return nil, err
				}
				if err := r.want(':'); err != nil {
					return nil, err
				}
			}
			if _, err := r.raw(); err != nil {
				return nil, err
			}
		}
	}
	for r.i < len(r.data) {
		switch r.data[r.i] {
		case ',', '}', ']', ' ', '\t', '\n', '\r', '{', '[', '"', ':':
			return r.word(begin)
		}
		r.i++
	}
	return r.word(begin)
}

// word checks a number or one of the three words.
func (r *jsonReader) word(begin int) ([]byte, error) {
	w := r.data[begin:r.i]
	switch string(w) {
	case "true", "false", "null":
		return w, nil
	}
	if !number(w) {
		return nil, malformed("Unexpected token at position %d", begin)
	}
	return w, nil
}

func number(w []byte) bool {
	i := 0
	digits := func() bool {
		begin := i
		for i < len(w) && w[i] >= '0' && w[i] <= '9' {
			i++
		}
		return i > begin
	}
	if i < len(w) && w[i] == '-' {
		i++
	}
	lead := i
	if !digits() || w[lead] == '0' && i > lead+1 {
		return false
	}
	if i < len(w) && w[i] == '.' {
		if i++; !digits() {
			return false
		}
	}
	if i < len(w) && (w[i] == 'e' || w[i] == 'E') {
		if i++; i < len(w) && (w[i] == '+' || w[i] == '-') {
			i++
		}
		if !digits() {
			return false
		}
	}
	return i == len(w)
}

// quoted reads a string. The bytes are those of the request where plain.
func (r *jsonReader) quoted() (text []byte, plain bool, err error) {
	if r.i >= len(r.data) || r.data[r.i] != '"' {
		return nil, false, malformed("Unexpected token at position %d: a string is expected", r.i)
	}
	begin := r.i
	plain = true
	for r.i++; r.i < len(r.data); r.i++ {
		switch c := r.data[r.i]; {
		case c == '"':
			r.i++
			return r.data[begin+1 : r.i-1], plain, nil
		case c == '\\':
			plain = false
			r.i++
		case c < ' ':
			return nil, false, malformed("Unexpected character in a string at position %d", r.i)
		case c >= utf8.RuneSelf:
			plain = false // to be made valid
		}
	}
	return nil, false, malformed("A string has no end")
}

func (r *jsonReader) str() (string, error) {
	begin := r.i
	text, plain, err := r.quoted()
	if err != nil {
		return "", err
	}
	if plain {
		return string(text), nil
	}
	var s string
	if err := json.Unmarshal(r.data[begin:r.i], &s); err != nil {
		return "", malformed("Bad string at position %d", begin)
	}
	return s, nil
}

// document reads a whole request.
func (r *jsonReader) document(p *plan, v reflect.Value) error {
	if r.next() == 0 {
		r.data, r.i = []byte("{}"), 0 // some clients send nothing at all
	}
	if err := r.value(p, v, nil); err != nil {
		return err
	}
	if r.next() != 0 {
		return malformed("Unexpected token at position %d: the request had ended", r.i)
	}
	return nil
}

// value reads into v, which is no pointer.
func (r *jsonReader) value(p *plan, v reflect.Value, at *trail) error {
	c := r.next()
	if p.kind == kCustom {
		text, err := r.raw()
		if err != nil {
			return err
		}
		if p.typ == rawType {
			v.SetBytes(append([]byte(nil), text...))
			return nil
		}
		return v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(text)
	}
	if p.kind == kAny {
		one := reflect.New(p.loose.typ).Elem()
		if err := r.value(p.loose, one, at); err != nil {
			return err
		}
		v.Set(one)
		return nil
	}
	switch p.kind {
	case kStruct, kMap:
		if c == '{' {
			return r.object(p, v, at)
		}
		if c == '[' {
			return mismatch("Unrecognized collection type %s", className(p))
		}
		return mismatch("Unexpected field type")
	case kList:
		if c == '[' {
			return r.list(p, v, at)
		}
		if c == '{' {
			return mismatch("Start of structure or map found where not expected.")
		}
		return mismatch("Unexpected field type")
	}
	return r.scalar(p, v, at, c)
}

func className(p *plan) string {
	switch p.kind {
	case kMap:
		return "java.util.Map"
	case kStruct:
		return "class " + p.shape.Name
	}
	return "class java.lang." + javaName(p)
}

func javaName(p *plan) string {
	switch p.kind {
	case kInt:
		if p.shape.Type == "long" {
			return "Long"
		}
		return "Integer"
	case kFloat:
		return "Double"
	case kBool:
		return "Boolean"
	case kTime:
		return "Date"
	case kBlob:
		return "ByteBuffer"
	}
	return "String"
}

func (r *jsonReader) scalar(p *plan, v reflect.Value, at *trail, c byte) error {
	switch c {
	case '{':
		return mismatch("Start of structure or map found where not expected.")
	case '[':
		return mismatch("Unrecognized collection type %s", className(p))
	case '"':
		s, err := r.str()
		if err != nil {
			return err
		}
		if p.kind == kInt || p.kind == kFloat && !nonFinite(s) || p.kind == kBool {
			return mismatch("STRING_VALUE cannot be converted to %s", javaName(p))
		}
		return scalar(p, v, s, at, r.c, false)
	}
	w, err := r.raw()
	if err != nil {
		return err
	}
	what := "NUMBER_VALUE"
	switch string(w) {
	case "true":
		what = "TRUE_VALUE"
	case "false":
		what = "FALSE_VALUE"
	}
	isBool := what != "NUMBER_VALUE"
	switch {
	case isBool && p.kind == kBool, !isBool && p.kind == kFloat, !isBool && p.kind == kTime:
		return scalar(p, v, string(w), at, r.c, false)
	case !isBool && p.kind == kInt:
		if n, err := strconv.ParseInt(string(w), 10, v.Type().Bits()); err == nil {
			v.SetInt(n)
			r.c.number(p.shape, at, float64(n))
			return nil
		}
		f, err := strconv.ParseFloat(string(w), 64)
		if n := int64(f); err == nil && f > -1<<53 && f < 1<<53 && !v.OverflowInt(n) { // 1.0 and 1e3 are whole, and 1.5 is cut
			v.SetInt(n)
			r.c.number(p.shape, at, f)
			return nil
		}
	}
	return mismatch("%s cannot be converted to %s", what, javaName(p))
}

func nonFinite(s string) bool { return s == "NaN" || s == "Infinity" || s == "-Infinity" }

// null passes over a null.
func (r *jsonReader) null() bool {
	if r.next() == 'n' && r.i+4 <= len(r.data) && string(r.data[r.i:r.i+4]) == "null" {
		r.i += 4
		return true
	}
	return false
}

func (r *jsonReader) object(p *plan, v reflect.Value, at *trail) error {
	if r.depth++; r.depth > maxDepth {
		return malformed("Values are nested too deep")
	}
	r.i++
	var seen seenSet
	if p.kind == kMap {
		v.Set(reflect.MakeMap(v.Type()))
	} else if p.typ == looseMapType {
		v.Set(reflect.MakeMap(p.typ))
	}
	for first := true; r.next() != '}'; first = false {
		if !first {
			if err := r.want(','); err != nil {
				return err
			}
			r.space()
		}
		key, err := r.str()
		if err != nil {
			return err
		}
		if err := r.want(':'); err != nil {
			return err
		}
		if r.null() {
			continue
		}
		if p.kind == kMap {
			one := reflect.New(v.Type().Elem()).Elem()
			if err := r.value(p.elem, settle(one), &trail{up: at, name: key, item: true}); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), one)
			continue
		}
		if err := r.member(p, v, key, &seen, at); err != nil {
			return err
		}
	}
	r.i++
	r.depth--
	if p.kind == kStruct {
		if at != nil || !r.rest { // the rest of the members of a rest request are elsewhere
			r.c.missing(p.shape, at, seen.of(p.shape))
		}
		return nil
	}
	r.c.length(p.shape, at, v.Len(), "")
	return nil
}

func (r *jsonReader) member(p *plan, v reflect.Value, key string, seen *seenSet, at *trail) error {
	fd := p.byName[key]
	if r.rest && (fd == nil || fd.ref.LocationName != "") {
		fd = p.byLocation(key)
	}
	if fd == nil {
		seen.mark(p.shape, key)
		_, err := r.raw()
		return err
	}
	seen.mark(p.shape, fd.name)
	return fd.into(v, func(one reflect.Value) error { return r.value(fd.plan, one, &trail{up: at, name: fd.name}) })
}

// byLocation finds a member by its name in rest bodies.
func (p *plan) byLocation(name string) *field {
	for i := range p.fields {
		if fd := &p.fields[i]; fd.ref.Location == "" && fd.ref.name(fd.name) == name {
			return fd
		}
	}
	return nil
}

func (r *jsonReader) list(p *plan, v reflect.Value, at *trail) error {
	if r.depth++; r.depth > maxDepth {
		return malformed("Values are nested too deep")
	}
	r.i++
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for n := 1; r.next() != ']'; n++ {
		if n > 1 {
			if err := r.want(','); err != nil {
				return err
			}
		}
		one := reflect.New(v.Type().Elem()).Elem()
		if !r.null() {
			if err := r.value(p.elem, settle(one), &trail{up: at, n: n, item: true}); err != nil {
				return err
			}
		}
		v.Set(reflect.Append(v, one))
	}
	r.i++
	r.depth--
	r.c.length(p.shape, at, v.Len(), "")
	return nil
}

// appendJSON writes v, which is no pointer.
func appendJSON(b []byte, p *plan, v reflect.Value, rest bool) ([]byte, error) {
	switch p.kind {
	case kAny:
		return appendJSON(b, p.loose, v.Elem(), rest)
	case kCustom:
		return appendCustom(b, v)
	case kStruct:
		return appendObject(b, p, v, rest)
	case kList:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendJSON(b, p.elem, reflect.Indirect(v.Index(i)), rest); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case kMap:
		b = append(b, '{')
		for i, k := range sortedKeys(v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, k.String()), ':')
			var err error
			if b, err = appendJSON(b, p.elem, reflect.Indirect(v.MapIndex(k)), rest); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case kString:
		return appendQuoted(b, v.String()), nil
	case kBlob:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"'), nil
	case kTime:
		form := p.shape.Timestamp
		if form == "" || form == unixForm {
			return append(b, unixText(v.Interface().(time.Time))...), nil
		}
		return appendQuoted(b, formTime(v.Interface().(time.Time), form)), nil
	case kFloat:
		return appendFloat(b, v.Float()), nil
	}
	return append(b, textOf(p, v, "")...), nil
}

func appendObject(b []byte, p *plan, v reflect.Value, rest bool) ([]byte, error) {
	b = append(b, '{')
	first := true
	for i := range p.fields {
		fd := &p.fields[i]
		one, ok := fd.from(v)
		if !ok || rest && fd.ref.Location != "" {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		name := fd.name
		if rest {
			name = fd.ref.name(name)
		}
		b = append(appendQuoted(b, name), ':')
		var err error
		if b, err = appendJSON(b, fd.plan, one, rest); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendCustom(b []byte, v reflect.Value) ([]byte, error) {
	if m, ok := v.Interface().(json.Marshaler); ok {
		data, err := m.MarshalJSON()
		return append(b, data...), err
	}
	data, err := json.Marshal(v.Interface())
	return append(b, data...), err
}

func appendFloat(b []byte, f float64) []byte {
	data, err := json.Marshal(f)
	if err != nil { // NaN and the infinities, which JSON does not have
		return appendQuoted(b, map[bool]string{true: "Infinity", false: "NaN"}[f > 0])
	}
	return append(b, data...)
}

const hexDigits = "0123456789abcdef"

// appendQuoted writes a JSON string; what is no UTF-8 becomes the replacement character.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	begin := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[begin:i]...), `\ufffd`...)
				begin = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[begin:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		begin = i
	}
	return append(append(b, s[begin:]...), '"')
}
