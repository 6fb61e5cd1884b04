package serverless

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// show writes a parsed text so that its structure can be read.
func show(t text) string {
	var b strings.Builder
	for _, p := range t {
		if p.vr == nil {
			fmt.Fprintf(&b, "%q", p.lit)
			continue
		}
		b.WriteByte('<')
		for i, s := range p.vr.sources {
			if i > 0 {
				b.WriteString(" | ")
			}
			if s.isLit {
				fmt.Fprintf(&b, "%#v", s.literal)
				continue
			}
			b.WriteString(s.name)
			for _, param := range s.params {
				fmt.Fprintf(&b, "(%s)", show(param))
			}
			if s.addr != nil {
				b.WriteString(":" + show(s.addr))
			}
		}
		b.WriteByte('>')
	}
	return b.String()
}

func TestParseText_ReadsVariables(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"plain", "no variable", `"no variable"`},
		{"empty", "", `""`},
		{"whole", "${self:a.b}", `<self:"a.b">`},
		{"within", "x-${env:A}-y", `"x-"<env:"A">"-y"`},
		{"fallbacks", "${env:A, self:b, 'c, d', 3, 1.5, true, null}", `<env:"A" | self:"b" | "c, d" | 3 | 1.5 | true | <nil>>`},
		{"double quotes", `${env:A, "a \"b\""}`, `<env:"A" | "a \"b\"">`},
		{"address nested", "${self:a.${opt:b}.c}", `<self:"a."<opt:"b">".c">`},
		{"parameter", "${file(./a.${opt:b}.yml):k}", `<file("./a."<opt:"b">".yml"):"k">`},
		{"parameter in quotes", "${file('a, b.yml')}", `<file("a, b.yml")>`},
		{"no parameters", "${git():branch}", `<git:"branch">`},
		{"two parameters", "${cf(eu-west-1, x):a.b}", `<cf("eu-west-1")("x"):"a.b">`},
		{"fallback nested", "${env:A, ${env:B, 'c'}}", `<env:"A" | env:"B" | "c">`},
		{"spaces", "${self:a , 'b' }", `<self:"a" | "b">`},
		{"lines", "${self:a,\n  'b'}", `<self:"a" | "b">`},
		{"no address", "${self:}", `<self:"">`},
		{"pseudo parameter", "${AWS::Region}", `"${AWS::Region}"`},
		{"attribute", "${Thing.Arn} ${Thing}", `"${Thing.Arn} ${Thing}"`},
		{"lower-case reference", "${thing} ${thing.Arn}", `"${thing} ${thing.Arn}"`},
		{"shell default", "${HOME:-x}", `"${HOME:-x}"`},
		{"inside what is no variable", "${X ${self:a}}", `"${X "<self:"a">"}"`},
		{"escaped", `\${self:a}`, `"${self:a}"`},
		{"backslash escaped", `\\${self:a}`, `"\\"<self:"a">`},
		{"other backslashes", `a\b\\c`, `"a\\b\\\\c"`},
		{"dollar", "$ $$ ${", `"$ $$ ${"`},
		{"not closed", "${self:a", "error"},
		{"parenthesis not closed", "${file(a}", "error"},
		{"quote not closed", "${env:A, 'b}", "error"},
		{"no literal", "${env:A, b}", "error"},
		{"after a source", "${file(a) b}", "error"},
		{"too deep", strings.Repeat("${self:", 50) + "a" + strings.Repeat("}", 50), "error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseText(tt.in)
			out := show(got)
			if err != nil {
				out = "error"
			}
			if out != tt.want {
				t.Errorf("parseText(%q) = %s (%v), want %s", tt.in, out, err, tt.want)
			}
		})
	}
}

func resolveDoc(t testing.TB, doc string) (*cfn.Node, diag.List) {
	t.Helper()
	root, l := cfn.ParseDoc("serverless.yml", []byte(doc))
	if root == nil {
		t.Skip(l)
	}
	r := newResolver(context.Background(), frontend.Project{Root: t.TempDir()}, frontend.Options{Account: "000000000000"}, &l, root)
	r.stage, r.region = "dev", "us-east-1"
	return r.document(), l
}

func TestResolve_EndsOnHostileDocuments(t *testing.T) {
	t.Parallel()
	doubling := "a0: [x, x, x, x]\n"
	text := "t0: xxxxxxxxxxxxxxxx\n"
	chain := "c0: end\n"
	for i := 1; i < 1000; i++ {
		if i < 60 {
			doubling += fmt.Sprintf("a%d: ['${self:a%d}', '${self:a%d}']\n", i, i-1, i-1)
			text += fmt.Sprintf("t%d: ${self:t%d}${self:t%d}\n", i, i-1, i-1)
		}
		chain = fmt.Sprintf("c%d: ${self:c%d}\n", i, i-1) + chain
	}
	tests := []struct{ name, doc, code string }{
		{"lists that double", doubling, "too-large"},
		{"texts that double", text, "too-large"},
		{"a long chain", chain, "variable-cycle"},
		{"a circle", "a: ${self:b}\nb: ${self:c}\nc: x${self:a}\n", "variable-cycle"},
		{"a part that holds itself", "a:\n  b: ${self:a}\n", "variable-cycle"},
		{"the whole document", "a: ${self:}\n", "variable-cycle"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, l := resolveDoc(t, tt.doc)
			if len(l) == 0 || l[0].Code != tt.code {
				t.Errorf("diagnostics %v, want one with code %s first", l, tt.code)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

func TestResolve_FollowsPartsInAnyOrder(t *testing.T) {
	t.Parallel()
	doc, l := resolveDoc(t, `
custom: {name: '${self:custom.first}-${self:list.1.key}', first: a, copy: '${self:list}'}
list: [x, {key: '${self:custom.first}'}]
`)
	if len(l) > 0 {
		t.Fatal(l)
	}
	if got := fmt.Sprint(doc.Get("custom").Plain()); got != "map[copy:[x map[key:a]] first:a name:a-a]" {
		t.Errorf("custom is %s", got)
	}
}

func FuzzVariables(f *testing.F) {
	for _, s := range []string{
		"${self:a}", "${env:A, 'b'}", "${file(./a.yml):b.${opt:stage}}", `\${self:a}`, "${AWS::Region}", "${strToBool(${self:b})}",
		"${self:", "${cf(eu-west-1):a.b}", "${a:'", "${x:${y:${z:}}}", "#{AWS::Region}", "${param:x, ssm:/a~true}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if parsed, err := parseText(s); err == nil && len(parsed) == 0 {
			t.Errorf("parseText(%q) gives nothing", s)
		}
		pos := diag.Pos{File: "serverless.yml", Line: 1}
		var l diag.List
		root := cfn.NewMap(pos, cfn.Entry{Key: "a", Value: cfn.Str(pos, s)}, cfn.Entry{Key: "b", Value: cfn.Str(pos, "${self:a}${self:a}")})
		r := newResolver(context.Background(), frontend.Project{Root: t.TempDir()}, frontend.Options{}, &l, root)
		r.stage, r.region = "dev", "us-east-1"
		if out := r.document(); r.failed != l.HasErrors() || out == nil {
			t.Errorf("resolving %q: failed is %v, diagnostics %v", s, r.failed, l)
		}
	})
}
