package dynamodb

import (
	"encoding/json"
	"testing"
)

// What is taken for JSON is JSON to others too, and the other way round.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e3,true,null,"x\u00e9\n\ud83d\ude00"]}`, `{`, `"\ud800"`, `[1,]`, `{"S":{"a":1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := parseJSON(body)
		if err != nil {
			return
		}
		if again, err := parseJSON(appendNode(nil, n)); n.kind != 0 && n.kind != 'n' && (err != nil || string(appendNode(nil, again)) != string(appendNode(nil, n))) {
			t.Errorf("%q was read as %q", body, appendNode(nil, n))
		}
		if err := (&rule{kind: attribute}).fit(n); err == nil && n.kind == 'o' {
			if v, msg := valueOf(n, 1); msg == "" && !json.Valid(appendValue(nil, v)) {
				t.Errorf("%q was written as %q", body, appendValue(nil, v))
			}
		}
		_ = check(n, queryShape)
	})
}
