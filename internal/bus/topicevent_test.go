package bus

import (
	"reflect"
	"testing"

	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
)

// What is accepted as a publication is a valid event, in the log and out of it again, and each protocol has a text of it.
func FuzzPublication_IsAnEvent(f *testing.F) {
	f.Add("hello", "subject", "name", "String", "value", []byte{1}, "g", "d", false)
	f.Add(`{"default":"d","sqs":"q"}`, "", "a.b", "Binary.gif", "", []byte{0, 255}, "g", "", true)
	f.Add(`{"default":null}`, "\u0085", "n", "Number", "1e5", []byte(nil), "g g", "d\x00", true)
	f.Add("\ufffe", "s\ufffe", "list", "String.Array", `["\u0000"]`, []byte(nil), "~", "!", false)
	f.Fuzz(func(t *testing.T, message, subject, name, kind, text string, binary []byte, group, dedup string, structured bool) {
		k := &knownTopic{spec: Topic{Tenant: "default", Name: "t.fifo", FIFO: true, ContentDedup: true}, id: 7}
		p := &Publication{Message: []byte(message), Subject: subject, Structured: structured, Group: group, Dedup: dedup}
		if name != "" {
			p.Attributes = map[string]invocation.Attribute{name: {Type: kind, Text: text, Binary: binary}}
		}
		if p.validate(&k.spec, DefaultData) != nil {
			return
		}
		e := k.event(p)
		if err := e.Validate(DefaultData + MaxHead); err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		back, rest, err := event.ParseLog(e.AppendLog(nil))
		if err != nil || len(rest) > 0 {
			t.Fatal(rest, err)
		}
		got := Attributes(back)
		for _, all := range []map[string]invocation.Attribute{got, p.Attributes} {
			for n, a := range all {
				a.Binary = append([]byte{}, a.Binary...) // none and no bytes are the same
				all[n] = a
			}
		}
		if !reflect.DeepEqual(got, p.Attributes) {
			t.Errorf("%+v, want %+v", got, p.Attributes)
		}
		if string(back.Data) != message || back.Subject != subject || Dedup(back) == "" || back.ID != k.event(p).ID {
			t.Errorf("%+v", back)
		}
		if len(MessageFor(back, "sqs")) == 0 && !structured {
			t.Error("it has no text")
		}
	})
}
