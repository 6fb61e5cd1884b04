package lambda

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
)

// verdictBatch has four Items: a to d of a queue, sequence numbers 9, 10, 11 and 100 else. In text 10 is before 9.
func verdictBatch(via invocation.Via) *invocation.Batch {
	b := &invocation.Batch{Via: via}
	for i, seq := range []string{"9", "10", "11", "100"} {
		b.Items = append(b.Items, invocation.Item{Event: &event.Event{ID: string(rune('a' + i))}, Sequence: seq})
	}
	return b
}

const allFour = 4

// verdictCases say what an answer means.
var verdictCases = []struct {
	name, answer string
	queue        []int // nil: none
	stream       []int // with a to d written as 9, 10, 11, 100
}{
	{"one", `{"batchItemFailures":[{"itemIdentifier":"b"}]}`, []int{1}, []int{1, 2, 3}},
	{"two, in another order", `{"batchItemFailures":[{"itemIdentifier":"d"},{"itemIdentifier":"b"}]}`, []int{1, 3}, []int{1, 2, 3}},
	{"the last", ` {"batchItemFailures" : [ {"itemIdentifier":"d"} ] } `, []int{3}, []int{3}},
	{"all", `{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"b"},{"itemIdentifier":"c"},{"itemIdentifier":"d"}]}`, []int{0, 1, 2, 3}, []int{0, 1, 2, 3}},
	{"one twice", `{"batchItemFailures":[{"itemIdentifier":"c"},{"itemIdentifier":"c"}]}`, []int{2}, []int{2, 3}},
	{"more in an entry and beside", `{"statusCode":200,"batchItemFailures":[{"itemIdentifier":"c","why":{}}]}`, []int{2}, []int{2, 3}},
	{"the list twice: the last counts", `{"batchItemFailures":[],"batchItemFailures":[{"itemIdentifier":"d"}]}`, []int{3}, []int{3}},
	{"escaped", `{"batchItemFailures":[{"itemIdentifier":"\u0064"}]}`, []int{3}, nil}, // of queues alone

	{"nothing", ``, nil, nil},
	{"white space", " \n", nil, nil},
	{"null", `null`, nil, nil},
	{"empty text", `""`, nil, nil},
	{"empty array", `[ ]`, nil, nil},
	{"empty object", `{}`, nil, nil},
	{"empty list", `{"batchItemFailures":[]}`, nil, nil},
	{"null list", `{"batchItemFailures":null}`, nil, nil},
	{"no list", `{"statusCode":200,"body":"{\"batchItemFailures\":[{\"itemIdentifier\":\"a\"}]}"}`, nil, nil},
	{"list under another name", `{"BatchItemFailures":[{"itemIdentifier":"b"}]}`, nil, nil},
}

// brokenAnswers fail all Items.
var brokenAnswers = []struct{ name, answer, why string }{
	{"empty identifier", `{"batchItemFailures":[{"itemIdentifier":""}]}`, "is empty"},
	{"null identifier", `{"batchItemFailures":[{"itemIdentifier":null}]}`, "is null, not a string"},
	{"unknown identifier", `{"batchItemFailures":[{"itemIdentifier":"z"}]}`, `names "z"`},
	{"one known, one unknown", `{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"10"},{"itemIdentifier":"z"}]}`, `not of the batch`},
	{"wrong key", `{"batchItemFailures":[{"itemIdentifer":"b"}]}`, "has no itemIdentifier"},
	{"key in capitals", `{"batchItemFailures":[{"ItemIdentifier":"b"}]}`, "has no itemIdentifier"},
	{"empty entry", `{"batchItemFailures":[{}]}`, "has no itemIdentifier"},
	{"null entry", `{"batchItemFailures":[null]}`, "has no itemIdentifier"},
	{"identifiers as entries", `{"batchItemFailures":["b"]}`, "not a list of objects"},
	{"number as identifier", `{"batchItemFailures":[{"itemIdentifier":10}]}`, "is 10, not a string"},
	{"object as identifier", `{"batchItemFailures":[{"itemIdentifier":{"a":"b"}}]}`, "not a string"},
	{"list that is an object", `{"batchItemFailures":{"itemIdentifier":"b"}}`, "not a list"},
	{"list that is text", `{"batchItemFailures":"b"}`, "not a list"},
	{"list that is empty text", `{"batchItemFailures":""}`, "not a list"},
	{"list that is false", `{"batchItemFailures":false}`, "not a list"},
	{"text", `"ok"`, "not an object"},
	{"number", `200`, "not an object"},
	{"true", `true`, "not an object"},
	{"array", `["b"]`, "not an object"},
	{"array of the entries", `[{"itemIdentifier":"b"}]`, "not an object"},
	{"no JSON", `OK`, "not JSON"},
	{"half", `{"batchItemFailures":[{"itemIdentifier":"b"}`, "not JSON"},
	{"more behind", `{"batchItemFailures":[]}{}`, "not JSON"},
	{"bytes", "\xff\x00", "not JSON"},
}

var sequences = strings.NewReplacer(`"a"`, `"9"`, `"b"`, `"10"`, `"c"`, `"11"`, `"d"`, `"100"`)

func TestVerdict_FollowsTheDocumentsOfPartialBatches(t *testing.T) {
	t.Parallel()
	var p Protocol
	for _, c := range verdictCases {
		if v := p.Verdict(verdictBatch(invocation.ViaQueue), true, []byte(c.answer), nil); !slices.Equal(v.Failed, c.queue) || v.Err != nil {
			t.Errorf("queue, %s: %v, %v; want %v", c.name, v.Failed, v.Err, c.queue)
		}
		if strings.Contains(c.answer, `\u`) {
			continue
		}
		for _, via := range []invocation.Via{invocation.ViaStream, invocation.ViaTable} {
			if v := p.Verdict(verdictBatch(via), true, []byte(sequences.Replace(c.answer)), nil); !slices.Equal(v.Failed, c.stream) || v.Err != nil {
				t.Errorf("%s, %s: %v, %v; want %v", via, c.name, v.Failed, v.Err, c.stream)
			}
		}
	}
	for _, c := range brokenAnswers {
		for _, via := range []invocation.Via{invocation.ViaQueue, invocation.ViaStream, invocation.ViaTable} {
			v := p.Verdict(verdictBatch(via), true, []byte(c.answer), nil)
			if len(v.Failed) != allFour || v.Err == nil {
				t.Errorf("%s, %s: %v, %v; want all", via, c.name, v.Failed, v.Err)
				continue
			}
			if via == invocation.ViaQueue && !strings.Contains(v.Err.Error(), c.why) {
				t.Errorf("%s: %v, want %q", c.name, v.Err, c.why)
			}
		}
	}
}

func TestVerdict_WithoutReportAnyAnswerIsASuccess(t *testing.T) {
	t.Parallel()
	var p Protocol
	answers := []string{}
	for _, c := range verdictCases {
		answers = append(answers, c.answer)
	}
	for _, c := range brokenAnswers {
		answers = append(answers, c.answer)
	}
	for _, a := range answers {
		for _, via := range []invocation.Via{invocation.ViaQueue, invocation.ViaStream, invocation.ViaTable} {
			if v := p.Verdict(verdictBatch(via), false, []byte(a), nil); v.Failed != nil || v.Err != nil {
				t.Errorf("%s: %s: %v, %v", via, a, v.Failed, v.Err)
			}
		}
		for _, via := range []invocation.Via{invocation.ViaEvent, invocation.ViaSchedule, invocation.ViaTopic, invocation.ViaBucket} {
			b := verdictBatch(via)
			b.Items = b.Items[:1]
			if v := p.Verdict(b, true, []byte(a), nil); v.Failed != nil || v.Err != nil {
				t.Errorf("%s knows no reports: %s: %v, %v", via, a, v.Failed, v.Err)
			}
		}
	}
}

func TestVerdict_AnErrorFailsTheWholeBatch(t *testing.T) {
	t.Parallel()
	var p Protocol
	for _, cause := range []invocation.Cause{invocation.CauseHandler, invocation.CauseTimeout, invocation.CauseExit, invocation.CauseResponse} {
		for _, report := range []bool{true, false} {
			for _, answer := range []string{`{"batchItemFailures":[]}`, `{"batchItemFailures":[{"itemIdentifier":"b"}]}`, ``} {
				v := p.Verdict(verdictBatch(invocation.ViaQueue), report, []byte(answer), &invocation.FunctionError{Cause: cause, Type: "Oops", Message: "it broke"})
				if len(v.Failed) != allFour || v.Err == nil || v.Err.Error() != "Oops: it broke" {
					t.Errorf("%s, %v, %s: %v, %v", cause, report, answer, v.Failed, v.Err)
				}
			}
		}
	}
}

func FuzzVerdict(f *testing.F) {
	for _, c := range verdictCases {
		f.Add([]byte(c.answer))
	}
	for _, c := range brokenAnswers {
		f.Add([]byte(c.answer))
	}
	var p Protocol
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, via := range []invocation.Via{invocation.ViaQueue, invocation.ViaStream} {
			b := verdictBatch(via)
			v := p.Verdict(b, true, answer, nil)
			for i, n := range v.Failed {
				if n < 0 || n >= len(b.Items) || i > 0 && n <= v.Failed[i-1] {
					t.Fatalf("%s: %v", answer, v.Failed)
				}
				if via == invocation.ViaStream && n != len(b.Items)-len(v.Failed)+i {
					t.Fatalf("%s: %v does not reach to the end", answer, v.Failed)
				}
				if v.Err == nil && !json.Valid(answer) {
					t.Fatalf("%q names %v and is no JSON", answer, v.Failed)
				}
			}
			if v.Err != nil && len(v.Failed) != len(b.Items) {
				t.Fatalf("%s: %v, but %v", answer, v.Err, v.Failed)
			}
			// Nothing is called done that the answer names.
			for i := range b.Items {
				entry := `{"itemIdentifier":"` + identifier(b, i) + `"}`
				if string(answer) == `{"batchItemFailures":[`+entry+`]}` && !slices.Contains(v.Failed, i) {
					t.Fatalf("%s: %v", answer, v.Failed)
				}
			}
		}
	})
}
