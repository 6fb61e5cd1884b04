package rule_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
)

func order(id, status string, total int) *event.Event {
	e := &event.Event{ID: id, Source: "shop.orders", Type: "Order " + status, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), DataContentType: "application/json",
		Data: fmt.Appendf(nil, `{"status":%q,"total":%d}`, status, total)}
	e.SetExtension("urgent", total > 100)
	e.SetExtension("total", int32(total))
	return e
}

func TestCompile_MatchesWhatTheFilterSays(t *testing.T) {
	t.Parallel()
	placed, paid := order("1", "placed", 20), order("2", "paid", 200)
	for _, row := range []struct {
		filter       string
		placed, paid bool
	}{
		{`{}`, true, true},
		{`{"pattern":{"source":["shop.orders"]}}`, true, true},
		{`{"pattern":{"detail-type":["Order paid"]}}`, false, true},
		{`{"pattern":{"detail":{"total":[{"numeric":["<",100]}]}}}`, true, false},
		{`{"pattern":{"account":["123456789012"],"region":["eu-west-1"]},"account":"123456789012","region":"eu-west-1"}`, true, true},
		{`{"pattern":{"account":["123456789012"]}}`, false, false},
		{`{"filters":{"exact":{"type":"Order paid"}}}`, false, true},
		{`{"filters":[{"prefix":{"source":"shop."}},{"not":{"suffix":{"type":"paid"}}}]}`, true, false},
		{`{"filters":{"sql":"urgent AND total > 100 AND type LIKE 'Order%'"}}`, false, true},
		{`{"filters":{"sql":"EXISTS nothing"}}`, false, false},
	} {
		m, err := rule.Compile(json.RawMessage(row.filter))
		if err != nil {
			t.Errorf("%s: %v", row.filter, err)
			continue
		}
		if a, b := m.Match(placed), m.Match(paid); a != row.placed || b != row.paid {
			t.Errorf("%s: matches %v and %v, want %v and %v", row.filter, a, b, row.placed, row.paid)
		}
	}
}

func TestCompile_RefusesWithThePlace(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		`{"pattern":{"source":"x"}}`:                         "line 1, column 2",
		`{"pattern":{"detail":{"n":[{"numeric":["~",1]}]}}}`: "~",
		`{"filters":{"exactly":{"type":"x"}}}`:               "exactly",
		`{"filters":{"sql":"a AND"}}`:                        "sql",
		`{"pattern":{"a":["b"]},"filters":[]}`:               "not several",
		`{"pattern":{"a":["b"]},"policy":{}}`:                "not several",
		`{"policy":{"a":"b"}}`:                               "line 1",
		`{"policy":{"a":["b"]},"scope":"Body"}`:              "Body",
		`[]`:                                                 "read the filter",
	} {
		_, err := rule.Compile(json.RawMessage(text))
		if errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want it to name %q", text, err, says)
		}
	}
}

func TestCompile_MatchesFilterPolicies(t *testing.T) {
	t.Parallel()
	red := order("1", "placed", 20)
	bus.SetAttributes(red, map[string]invocation.Attribute{"colour": {Type: "String", Text: "red"}, "n": {Type: "Number", Text: "7"}})
	bare := &event.Event{ID: "2", Source: "/s", Type: "t", Data: []byte("colour")}
	for _, row := range []struct {
		filter    string
		red, bare bool
	}{
		{`{"policy":{}}`, true, true},
		{`{"policy":{"colour":["red"]}}`, true, false},
		{`{"policy":{"colour":["blue"]},"scope":"MessageAttributes"}`, false, false},
		{`{"policy":{"n":[{"numeric":[">",5]}]}}`, true, false},
		{`{"policy":{"colour":[{"exists":false}]}}`, false, true},
		{`{"policy":{"status":["placed"]},"scope":"MessageBody"}`, true, false},
		{`{"policy":{"status":["paid"]},"scope":"MessageBody"}`, false, false},
	} {
		data := json.RawMessage(row.filter)
		m, err := rule.Compile(data)
		if err != nil {
			t.Errorf("%s: %v", row.filter, err)
			continue
		}
		if a, b := m.Match(red), m.Match(bare); a != row.red || b != row.bare {
			t.Errorf("%s: matches %v and %v, want %v and %v", row.filter, a, b, row.red, row.bare)
		}
		x := rule.NewIndex()
		if all := row.filter == `{"policy":{}}`; x.Add(1, data) == all {
			t.Errorf("%s: indexed %v", row.filter, !all)
		} else if a, b := len(x.Match(red)) == 1, len(x.Match(bare)) == 1; !all && (a != row.red || b != row.bare) {
			t.Errorf("%s: found %v and %v, want %v and %v", row.filter, a, b, row.red, row.bare)
		}
	}
}

func TestIndex_FindsWhatMatchersFind(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	statuses := []string{"placed", "paid", "sent", "lost"}
	x := rule.NewIndex()
	filters := map[int64]json.RawMessage{}
	for round := range 400 {
		id := int64(rnd.IntN(60))
		x.Remove(id)
		delete(filters, id)
		if rnd.IntN(3) > 0 {
			f := rule.Filter{Region: []string{"a", "b"}[rnd.IntN(2)]}
			switch rnd.IntN(3) {
			case 0:
				f.Pattern = fmt.Appendf(nil, `{"detail":{"status":[%q]}}`, statuses[rnd.IntN(4)])
			case 1:
				f.Pattern = fmt.Appendf(nil, `{"detail-type":[{"suffix":%q}],"region":["a"]}`, statuses[rnd.IntN(4)])
			case 2:
				f.Filters = json.RawMessage(`{"exact":{"source":"shop.orders"}}`)
			}
			data, err := f.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if x.Add(id, data) != (f.Pattern != nil) {
				t.Fatalf("Add of %s", data)
			}
			if f.Pattern != nil {
				filters[id] = data
			}
		}
		e := order(fmt.Sprint(round), statuses[rnd.IntN(4)], round)
		var want []int64
		for id, data := range filters {
			if m, err := rule.Compile(data); err != nil {
				t.Fatal(err)
			} else if m.Match(e) {
				want = append(want, id)
			}
		}
		got := x.Match(e)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: %v, want %v", round, got, want)
		}
	}
}

func TestInput_TakesTheEventsPlace(t *testing.T) {
	t.Parallel()
	var in rule.Input
	if err := json.Unmarshal([]byte(`{"InputTransformer":{"InputPathsMap":{"s":"$.detail.status"},"InputTemplate":"{\"now\": <s>}"}}`), &in); err != nil || in.Empty() {
		t.Fatal(in, err)
	}
	tr, err := in.Compile()
	if err != nil {
		t.Fatal(err)
	}
	out, err := tr.Apply(event.Envelope(nil, order("1", "paid", 3), "1", "r"), rule.Vars{})
	if err != nil || string(out) != `{"now":"paid"}` {
		t.Errorf("%s, %v", out, err)
	}
	if !(rule.Input{}).Empty() {
		t.Error("nothing is something")
	}
}
