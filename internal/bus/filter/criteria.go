package filter

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/ebb-run/ebb/internal/bus/pattern"
	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// Source is the kind of thing that an event source mapping polls.
type Source string

// The sources whose records can be filtered.
const (
	Queue  Source = "sqs"      // by body
	Stream Source = "kinesis"  // by data, and by the fields beside it
	Table  Source = "dynamodb" // by dynamodb, and by the record's other fields
)

// maxFilters is Lambda's highest quota, "Filters in an event source mapping"; 5 by default.
const maxFilters = 10

// dataKey is the field whose form must be the pattern's.
func (s Source) dataKey() string {
	return map[Source]string{Queue: "body", Stream: "data", Table: "dynamodb"}[s]
}

// Criteria are the compiled filters of an event source mapping; a record passes by any of them. They are immutable.
type Criteria struct {
	source  Source
	filters []criterion
}

type criterion struct {
	pattern *pattern.Pattern
	fields  bool // it looks for fields in the data
	text    bool // it looks at the data as a string
}

// CompileCriteria reads the patterns of a FilterCriteria. None at all lets everything pass. In diagnostics, lines are those of the
// pattern that the message begins with.
func CompileCriteria(patterns []string, source Source, file string) (*Criteria, diag.List) {
	c := &Criteria{source: source}
	all := diag.List{}
	if source.dataKey() == "" {
		all.Errorf(diag.Pos{File: file}, "criteria-source", "", "records of %q cannot be filtered", source)
		return nil, all
	}
	if len(patterns) > maxFilters {
		all.Errorf(diag.Pos{File: file}, "criteria-count", "", "%d filters; %d are allowed", len(patterns), maxFilters)
	}
	for i, text := range patterns {
		p, list := pattern.Compile([]byte(text), pattern.Options{File: file})
		if p != nil {
			k := formChecker{places: places{source: []byte(text), file: file}, of: source, r: rawjson.Reader{Data: []byte(text)}}
			k.object()
			list = append(list, k.list...)
			c.filters = append(c.filters, criterion{pattern: p, fields: k.fields, text: k.text})
		}
		for _, d := range list {
			d.Message = fmt.Sprintf("filter %d: %s", i+1, d.Message)
			all.Add(d)
		}
	}
	if all.HasErrors() {
		return nil, all
	}
	return c, all
}

// formChecker finds out in which form a pattern expects the data.
type formChecker struct {
	places
	of           Source
	r            rawjson.Reader
	fields, text bool
}

func (k *formChecker) object() {
	_ = k.r.Object(func(name []byte, at int) error {
		key, data := string(name), k.of.dataKey()
		return k.inside("."+key, func() error {
			if key == "$or" {
				return k.r.Array(func(i int) error { return k.inside(element(i), func() error { k.object(); return nil }) })
			}
			kind := k.r.Peek()
			switch {
			case strings.HasPrefix(key, data+".") || key == data && kind == rawjson.Object:
				k.fields = true
			case key == data:
				if k.text = true; k.of != Queue {
					k.errorf(at, "criteria-form", "Name the fields in it: {\""+data+"\": {\"field\": [...]}}.", "the pattern for %s must be JSON", data)
				}
			case k.of == Queue:
				k.warnf(at, "criteria-metadata", "", "AWS filters messages of a queue by their body alone")
			}
			_, err := k.r.Skip()
			return err
		})
	})
}

// Match says whether a record passes: one element of the Records of the function's event. A plain string does not pass a pattern
// that looks for fields in it, nor JSON one that looks at a string.
func (c *Criteria) Match(record []byte) (bool, error) {
	if len(c.filters) == 0 {
		return true, nil
	}
	view, isJSON, err := c.view(record)
	if err != nil {
		return false, err
	}
	for _, f := range c.filters {
		if f.fields && !f.text && !isJSON || f.text && !f.fields && isJSON {
			continue
		}
		if ok, err := f.pattern.Match(view); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// view is what patterns see of a record, and whether its data is JSON.
func (c *Criteria) view(record []byte) (view []byte, isJSON bool, err error) {
	r := rawjson.Reader{Data: record}
	switch c.source {
	case Table:
		isJSON = true
		if _, err = r.Skip(); err == nil {
			err = r.Finish()
		}
		view = record
	case Queue:
		view, isJSON, err = rewrite(&r, "body", false)
	case Stream:
		found := false
		err = r.Object(func(key []byte, _ int) error {
			if string(key) != "kinesis" {
				_, err := r.Skip()
				return err
			}
			found = true
			var err error
			view, isJSON, err = rewrite(&r, "data", true)
			return err
		})
		if err == nil && !found {
			return nil, false, errs.New(errs.Invalid, "the record has no kinesis field")
		}
	}
	if err == nil {
		err = r.Finish()
	}
	if err != nil {
		return nil, false, errs.New(errs.Invalid, "the record cannot be filtered: %w", err)
	}
	return view, isJSON, nil
}

// rewrite copies an object with what one string field holds in the string's place, if that is JSON. Encoded fields are base64.
func rewrite(r *rawjson.Reader, field string, encoded bool) (out []byte, isJSON bool, err error) {
	out = []byte{'{'}
	err = r.Object(func(key []byte, _ int) error {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(quote(out, string(key)), ':')
		if string(key) != field || r.Peek() != rawjson.String {
			raw, err := r.Skip()
			out = append(out, raw...)
			return err
		}
		text, err := r.Text()
		if err != nil {
			return err
		}
		if encoded {
			plain, err := base64.StdEncoding.DecodeString(string(text))
			if err != nil {
				return fmt.Errorf("%s is not base64: %w", field, err)
			}
			text = plain
		}
		if isJSON = structured(text); isJSON {
			out = append(out, text...)
		} else {
			out = quote(out, string(text))
		}
		return nil
	})
	return append(out, '}'), isJSON, err
}
