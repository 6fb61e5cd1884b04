package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"strings"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/bus/filter"
	"github.com/ebb-run/ebb/internal/bus/pattern"
	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// draft is the text of a Subscription that somebody wants, and where its members stand in it.
type draft struct {
	api.SubscriptionSpec
	doc   []byte
	at    map[string]int // where the value of each member begins
	raw   map[string][]byte
	parts bool // places are those in a member, not in doc
}

// members are those of a SubscriptionSpec.
func (d *draft) members() map[string]any {
	s := &d.SubscriptionSpec
	return map[string]any{
		"name": &s.Name, "bus": &s.Bus, "pattern": &s.Pattern, "filters": &s.Filters, "sql": &s.SQL, "function": &s.Function, "queue": &s.Queue, "topic": &s.Topic,
		"endpoint": &s.Endpoint, "format": &s.Format, "input": &s.Input, "inputPath": &s.InputPath, "inputTransformer": &s.InputTransformer, "retry": &s.Retry,
		"deadLetters": &s.DeadLetters, "ordered": &s.Ordered, "group": &s.Group,
	}
}

// readDraft reads a SubscriptionSpec. What is wrong is told with its place.
func readDraft(doc []byte, parts bool) (*draft, error) {
	d := &draft{doc: doc, at: map[string]int{}, raw: map[string][]byte{}, parts: parts}
	members := d.members()
	r := rawjson.Reader{Data: doc}
	err := r.Object(func(key []byte, at int) error {
		name := string(key)
		into, known := members[name]
		if !known {
			return d.unknown(name, at, members)
		}
		if _, again := d.at[name]; again {
			return d.errorf(at, "", "%q stands there twice", name)
		}
		r.Peek()
		d.at[name] = r.Pos
		raw, err := r.Skip()
		if err != nil {
			return err
		}
		d.raw[name] = raw
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			return d.errorf(d.at[name], "", "%s: %s", name, plainJSON(err))
		}
		return nil
	})
	if err == nil {
		err = r.Finish()
	}
	var syntax *rawjson.SyntaxError
	if errors.As(err, &syntax) {
		return nil, d.errorf(syntax.Offset, "", "not JSON: %s", syntax.Msg)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (d *draft) unknown(name string, at int, members map[string]any) error {
	var names []string
	for n := range members {
		names = append(names, n)
	}
	hint := "See `ebb help subscriptions put` for the members of a subscription."
	if near := diag.Nearest(name, names); near != "" {
		hint = "Did you mean \"" + near + "\"?"
	}
	return d.errorf(at, hint, "a subscription has no %q", name)
}

// plainJSON says what is wrong with a member, without Go's words.
func plainJSON(err error) string {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return strings.TrimPrefix(err.Error(), "json: ")
	}
	want := "an object"
	switch wrong.Type.Kind() {
	case reflect.String:
		want = "a string"
	case reflect.Bool:
		want = "true or false"
	case reflect.Int:
		want = "a whole number"
	}
	text := want + " is wanted, not a " + wrong.Value
	if wrong.Field != "" {
		text = wrong.Field + ": " + text
	}
	return text
}

// errorf is an error at a place of the text.
func (d *draft) errorf(offset int, hint, format string, args ...any) error {
	if d.parts {
		return errs.New(errs.Invalid, format, args...).WithHint("%s", hint)
	}
	line, col := rawjson.Place(d.doc, offset)
	return errs.New(errs.Invalid, "line %d, column %d: "+format, append([]any{line, col}, args...)...).WithHint("%s", hint)
}

// wrong is an error at a member, or about one that is not there.
func (d *draft) wrong(member, format string, args ...any) error {
	if at, ok := d.at[member]; ok {
		return d.errorf(at, "", member+": "+format, args...)
	}
	return errs.New(errs.Invalid, member+": "+format, args...)
}

// fault is the first error of diagnostics of a member's text, which began before columns into it.
func (d *draft) fault(member string, list diag.List, before int) error {
	for _, one := range list {
		if one.Severity != diag.Error {
			continue
		}
		line, col := one.Line, one.Col
		if line <= 1 {
			line, col = 1, max(1, col-before)
		}
		if !d.parts {
			down, right := rawjson.Place(d.doc, d.at[member])
			if line == 1 {
				col += right - 1
			}
			line += down - 1
		}
		return errs.New(errs.Invalid, "line %d, column %d: %s: %s", line, col, member, one.Message).WithHint("%s", one.Hint)
	}
	return nil
}

// filter gives the bus's filter.
func (d *draft) filter(account, region string) (json.RawMessage, error) {
	given := 0
	for _, member := range []string{"pattern", "filters", "sql"} {
		if _, ok := d.at[member]; !ok {
			continue
		}
		if given++; given > 1 {
			return nil, d.wrong(member, "a subscription has a pattern, filters or an SQL expression, not several of them")
		}
	}
	f := rule.Filter{Account: account, Region: region}
	switch {
	case d.raw["pattern"] != nil:
		f.Pattern = d.raw["pattern"]
		_, list := pattern.Compile(f.Pattern, pattern.Options{})
		if err := d.fault("pattern", list, 0); err != nil {
			return nil, err
		}
	case d.raw["filters"] != nil:
		f.Filters = d.raw["filters"]
		_, list := filter.CompileFilter(f.Filters, "")
		if err := d.fault("filters", list, 0); err != nil {
			return nil, err
		}
	case d.raw["sql"] != nil:
		const head = `{"sql":`
		f.Filters = []byte(head + string(d.raw["sql"]) + "}")
		_, list := filter.CompileFilter(f.Filters, "")
		before := len(head)
		if d.parts { // there the expression stands without its quotes
			before++
		}
		if err := d.fault("sql", list, before); err != nil {
			return nil, err
		}
	}
	return f.Encode()
}

var subscriptionRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// check says what is wrong with what needs no look at what stands.
func (d *draft) check(name string) error {
	if !subscriptionRE.MatchString(name) {
		return errs.New(errs.Invalid, "%q is no name of a subscription", name).WithHint("Letters, digits and . _ - are allowed, 128 of them, and a letter or digit comes first.")
	}
	if d.Name != "" && d.Name != name {
		return d.wrong("name", "it says %s, and is put as %s", d.Name, name)
	}
	if d.Bus != "" && !busRE.MatchString(d.Bus) {
		return d.wrong("bus", "%q is no name of an event bus", d.Bus)
	}
	n, last := 0, "function"
	for _, member := range []string{"function", "queue", "topic", "endpoint"} {
		if text, _ := d.members()[member].(*string); *text != "" {
			n, last = n+1, member
		}
	}
	switch {
	case n == 0:
		return errs.New(errs.Invalid, "it has no target").WithHint("Give one of function, queue, topic and endpoint.")
	case n > 1:
		return d.wrong(last, "a subscription has one target, not several")
	}
	if d.Endpoint != "" {
		scheme, _, _ := strings.Cut(d.Endpoint, ":")
		if scheme != "https" {
			scheme = "http"
		}
		if err := endpointURL(scheme, d.Endpoint); err != nil {
			return d.wrong("endpoint", "%w", err)
		}
	}
	switch d.Format {
	case "", api.FormatEventBridge, api.FormatCloudEvents, api.FormatData:
	case api.FormatBinary:
		if d.Endpoint == "" {
			return d.wrong("format", "binary is for endpoints")
		}
	default:
		e := d.wrong("format", "%q is no format: %s, %s, %s or %s", d.Format, api.FormatEventBridge, api.FormatCloudEvents, api.FormatBinary, api.FormatData)
		return e
	}
	if in := inputGiven(&d.SubscriptionSpec); !in.Empty() {
		if d.Format != "" && d.Format != api.FormatEventBridge {
			return d.wrong("format", "an input takes the place of the EventBridge form, not of %s", d.Format)
		}
		if _, err := in.Compile(); err != nil {
			return errs.New(errs.Invalid, "its input: %w", err)
		}
	}
	return nil
}

// inputGiven is what takes the event's place.
func inputGiven(s *api.SubscriptionSpec) rule.Input {
	var in rule.Input
	in.Input, in.InputPath = s.Input, s.InputPath
	if s.InputTransformer != nil {
		in.Transformer = &rule.Transformer{Paths: s.InputTransformer.Paths, Template: s.InputTransformer.Template}
	}
	return in
}
