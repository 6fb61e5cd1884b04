package cloudformation_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"encoding/json"
)

func seeds(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.*")
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil && filepath.Base(name) != "want.app.json" {
			f.Add(data)
		}
	}
	f.Add([]byte("a: &a [*a, *a]"))
	f.Add([]byte(head + "Outputs: {X: {Value: !Sub ['${a}${a}', {a: !Sub '${P}${P}'}]}}"))
}

func FuzzParseDoc(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		n, l := cloudformation.ParseDoc("t.yaml", data)
		if n == nil && !l.HasErrors() {
			t.Error("neither a document nor an error")
		}
		if _, err := json.Marshal(n.Plain()); err != nil {
			t.Errorf("the document is not plain: %v", err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func FuzzLoad(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		a, l := load(string(data))
		if a == nil && !l.HasErrors() {
			t.Error("neither an App nor an error")
		}
		if a != nil {
			out, err := json.Marshal(a)
			if err != nil {
				t.Fatalf("the App does not encode: %v", err)
			}
			if _, err := app.Decode(out); err != nil {
				t.Errorf("the App does not decode: %v", err)
			}
			if v := a.Validate(); len(v) > 0 {
				t.Errorf("the App breaks rules: %v", v)
			}
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}
