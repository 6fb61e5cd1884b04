package dynamodb_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire/dynamodb"
)

func FuzzExported(f *testing.F) {
	for _, line := range []string{
		`{"Item":{"id":{"S":"a"},"n":{"N":"-1.50"},"b":{"B":"AP8="},"l":{"L":[{"M":{"x":{"NULL":true}}}]},"ss":{"SS":["a","b"]}}}`,
		`{"Item":{}}`, `{"Keys":{"id":{"S":"a"}},"NewImage":{}}`, `$ion_1_0 {Item:{id:"a"}}`, `{"Item":{"b":{"B":"!"}}}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		it, err := dynamodb.Exported(line)
		if err != nil {
			if code := errs.CodeOf(err); code != errs.Invalid && code != errs.Unsupported {
				t.Errorf("%s: %v", code, err)
			}
			return
		}
		again, err := dynamodb.Exported(append(append([]byte(`{"Item":`), dynamodb.ItemJSON(it)...), '}'))
		if err != nil || !again.Equal(it) {
			t.Errorf("what was read is written as %s: %v", dynamodb.ItemJSON(it), err)
		}
	})
}
