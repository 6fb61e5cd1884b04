package rawjson_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/bus/rawjson"
)

// build reads a value into what encoding/json would make of it.
func build(r *rawjson.Reader) (any, error) {
	switch r.Peek() {
	case rawjson.Object:
		m := map[string]any{}
		return m, r.Object(func(key []byte, _ int) error {
			k := string(key)
			v, err := build(r)
			m[k] = v
			return err
		})
	case rawjson.Array:
		a := []any{}
		err := r.Array(func(i int) error {
			if i != len(a) {
				return errors.New("wrong index")
			}
			v, err := build(r)
			a = append(a, v)
			return err
		})
		return a, err
	case rawjson.String:
		s, err := r.Text()
		return string(s), err
	}
	text, err := r.Literal()
	if err != nil {
		return nil, err
	}
	switch string(text) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return nil, nil
	}
	return json.Number(text), nil
}

func check(t *testing.T, data []byte) {
	t.Helper()
	r := rawjson.Reader{Data: data, MaxDepth: 10_000}
	got, err := build(&r)
	if err == nil {
		err = r.Finish()
	}
	if (err == nil) != json.Valid(data) {
		t.Fatalf("%q: error %v, but encoding/json says valid=%v", data, err, json.Valid(data))
	}
	skip := rawjson.Reader{Data: data, MaxDepth: 10_000}
	raw, skipErr := skip.Skip()
	if skipErr == nil {
		skipErr = skip.Finish()
	}
	if (skipErr == nil) != (err == nil) {
		t.Fatalf("%q: Skip says %v, reading says %v", data, skipErr, err)
	}
	if err != nil {
		var s *rawjson.SyntaxError
		if !errors.As(err, &s) || s.Offset < 0 || s.Offset > len(data) {
			t.Fatalf("%q: %v is no located fault", data, err)
		}
		return
	}
	if strings.TrimSpace(string(data)) != string(raw) {
		t.Fatalf("%q: Skip gave %q", data, raw)
	}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	var want any
	if err := dec.Decode(&want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q: got %#v, want %#v", data, got, want)
	}
}

var samples = []string{
	`{}`, `[]`, ` { "a" : [ 1 , -2.5e+3 , "x" ] , "b" : { "c" : null } } `, `"\u00e9\ud83d\ude00\ud800x\n\/\"\\"`, `true`, `false`, `null`, `0`, `-0`, `1E5`,
	"\"\xff\"", "\"é\xff\"", `"\ud800\u0041"`, `"\ud800\ud800"`, `"\udc00"`,
	``, ` `, `{`, `[`, `[1,]`, `{"a":1,}`, `{"a" 1}`, `{a:1}`, `01`, `1.`, `1e`, `-`, `+1`, `.5`, `tru`, `nul`, `"a`, `"\x"`, `"\u12"`, "\"\n\"", `1 2`, `"a\`, `]`, `[1}`, `{"a":1]`, `'a'`, "\ufeff1",
}

func TestReader_ReadsWhatEncodingJSONReads(t *testing.T) {
	t.Parallel()
	for _, s := range samples {
		t.Run(s, func(t *testing.T) { t.Parallel(); check(t, []byte(s)) })
	}
}

func TestReader_BoundsDepth(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		strings.Repeat("[", 512) + strings.Repeat("]", 512):            true,
		strings.Repeat("[", 513) + strings.Repeat("]", 513):            false,
		strings.Repeat(`{"a":`, 511) + "{}" + strings.Repeat("}", 511): true,
		strings.Repeat(`{"a":`, 512) + "{}" + strings.Repeat("}", 512): false,
		strings.Repeat("[", 1<<20):                                     false,
		"[" + strings.Repeat("[],", 1000) + "[]]":                      true, // beside each other is not within
	} {
		r := rawjson.Reader{Data: []byte(text)}
		if _, err := r.Skip(); (err == nil) != ok {
			t.Errorf("%.20s… of %d bytes: %v", text, len(text), err)
		}
	}
}

func TestPlace_CountsLinesAndColumnsFromOne(t *testing.T) {
	t.Parallel()
	data := []byte("{\n  \"a\": x\n}")
	for offset, want := range map[int][2]int{0: {1, 1}, 2: {2, 1}, 4: {2, 3}, 9: {2, 8}, 99: {3, 2}} {
		if line, col := rawjson.Place(data, offset); line != want[0] || col != want[1] {
			t.Errorf("offset %d is at %d:%d, want %v", offset, line, col, want)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}
