package dynamodb

import (
	"encoding/json"
	"testing"

	"github.com/ebb-run/ebb/internal/store"
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

func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{`SELECT a.b[0], c FROM "t"."i" WHERE h = 'x' AND n IN [1, ?] AND m IS NOT MISSING ORDER BY r DESC`, `INSERT INTO t VALUE {'a': <<1, 2>>, 'b': [null, true]}`, `UPDATE t SET a = a + 1 REMOVE b WHERE h = ? RETURNING ALL NEW *`, `DELETE FROM t WHERE begins_with(h, 'a')`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		st, err := parseStatement(s, []store.Value{store.Text("x"), store.Num("1")})
		if err != nil {
			return
		}
		st.cond.Match(store.Item{"h": store.Text("x")})
		st.keyIn(store.Key{Hash: store.Attr{Name: "h", Kind: store.S}})
	})
}
