package sam

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// FuzzCompile holds that no document makes the compiler fall over, and that an App is absent only together with an error.
func FuzzCompile(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*", "template.*"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, l := cfn.ParseTemplate("template.yaml", data)
		if doc == nil || doc.Kind != cfn.Map {
			return
		}
		tmpl, in := compileDoc(frontend.Project{Root: "testdata", File: "template.yaml"}, frontend.Options{}, doc, &l)
		a, more := cfn.Load(tmpl, in)
		if a == nil && !more.HasErrors() && !l.HasErrors() {
			t.Error("neither an App nor an error")
		}
	})
}

func FuzzOverrides(f *testing.F) {
	for _, s := range []string{`A=1 B="two words"`, `ParameterKey=A,ParameterValue=1`, `A='x y'\ z`, `=`, `"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for k := range overrides(cfn.Str(diag.Pos{}, s)) {
			if k == "" {
				t.Error("a parameter without a name")
			}
		}
	})
}

func TestOverrides_ReadAsOnACommandLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]string{
		`A=1 B=2`:                         {"A": "1", "B": "2"},
		`A="two words" B='x'`:             {"A": "two words", "B": "x"},
		`"A=two words"`:                   {"A": "two words"},
		`A=a=b`:                           {"A": "a=b"},
		`A=x\ y`:                          {"A": "x y"},
		`ParameterKey=A,ParameterValue=1`: {"A": "1"},
		`A=`:                              {"A": ""},
		`A`:                               {},
		``:                                {},
	} {
		got := overrides(cfn.Str(diag.Pos{}, text))
		if len(got) != len(want) {
			t.Errorf("%s: got %v", text, got)
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s: %s is %q, not %q", text, k, got[k], v)
			}
		}
	}
}

// variants gives the document with each of its parts replaced by others, one at a time.
func variants(n *cfn.Node, yield func(*cfn.Node)) {
	for _, other := range []any{nil, "x", 7, []any{}, map[string]any{}, []any{nil}, map[string]any{"Ref": "Nope"}, map[string]any{"Fn::If": []any{"C"}}} {
		yield(cfn.From(n.Place(), other))
	}
	for i, it := range n.Items {
		variants(it, func(v *cfn.Node) {
			c := *n
			c.Items = slices.Clone(n.Items)
			c.Items[i] = v
			yield(&c)
		})
	}
	for i, e := range n.Entries {
		variants(e.Value, func(v *cfn.Node) {
			c := *n
			c.Entries = slices.Clone(n.Entries)
			c.Entries[i].Value = v
			yield(&c)
		})
	}
}

func TestCompile_StandsAnyPartBeingSomethingElse(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "*", "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		t.Run(filepath.Base(filepath.Dir(name)), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			p := frontend.Project{Root: filepath.Dir(name), File: "template.yaml"}
			doc, _ := cfn.ParseTemplate("template.yaml", data)
			nth := 0
			variants(doc, func(v *cfn.Node) {
				if nth++; nth%3 != 0 { // each part meets some of them, and all parts all
					return
				}
				var l diag.List
				tmpl, in := compileDoc(p, frontend.Options{}, v, &l)
				a, more := cfn.Load(tmpl, in)
				if a == nil && !more.HasErrors() && !l.HasErrors() {
					t.Errorf("neither an App nor an error for %v", v.Plain())
				}
			})
		})
	}
}
