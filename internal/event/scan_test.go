package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"unicode/utf8"
)

// byDecoder reads one object as the standard library's decoder does.
func byDecoder(b []byte) (*Event, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	e, err := decode(dec)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, err
	}
	return e, nil
}

// FuzzDecodeValid compares the short way with the decoder.
func FuzzDecodeValid(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { "specversion" : "1.0" , "id":"a\u0041\ud800\n" , "source":"s","type":"t","data":{"a":[1,"}",{"b":"\""}]},"n":-1,"t":true,"x":null } `,
		`{"specversion":"1.0","specversion":"1.0","data_base64":"AA==","id":1,"ab":[],"ac":{}}`, `[1]`, `"a"`, `1`, `null`, `{"data":"text","datacontenttype":"text/plain"}`,
		`{"":"","\"":[[],[[]]],"a":1.5,"b":99999999999}`,
		`1E1000`, `{"\ud800":"a","id":"\ud83d\ude00\udc00","data":"\ud83d","datacontenttype":"text/plain"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !json.Valid(b) || !utf8.Valid(b) {
			return
		}
		got, gotErr := decodeValid(bytes.TrimSpace(b))
		want, wantErr := byDecoder(b)
		if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || wantErr == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; the decoder gives %+v, %v", got, gotErr, want, wantErr)
		}
		// The same in a batch.
		lim := Limits{}.orDefaults()
		batch := append(append(append([]byte("[ "), b...), " , "...), append(b, ']')...)
		_, gotErr = validBatch(batch, lim)
		dec := json.NewDecoder(bytes.NewReader(batch[1:]))
		if _, wantErr = oneMore(nil, lim, func() (*Event, error) { return decode(dec) }); (gotErr == nil) != (wantErr == nil) || gotErr != nil && gotErr.Error() != wantErr.Error() {
			t.Errorf("in a batch %v, the decoder gives %v", gotErr, wantErr)
		}
	})
}

func BenchmarkParseJSON(b *testing.B) {
	text := fmt.Appendf(nil, `{"specversion":"1.0","id":"abc","source":"/bench","type":"bench.done","datacontenttype":"application/json","data":{"text":"%0240d"}}`, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseJSON(text, 0); err != nil {
			b.Fatal(err)
		}
	}
}
