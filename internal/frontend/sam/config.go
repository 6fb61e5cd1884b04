package sam

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/frontend"
)

// configured gives the values of parameters that the project's samconfig sets for deploys: those of the stage's own environment, or of
// default. One for a parameter that the template does not have is left out.
func configured(p frontend.Project, root *cfn.Node, o frontend.Options, l *diag.List) map[string]string {
	out := map[string]string{}
	n := readConfig(p, l)
	env := n.Get(o.Stage)
	if env == nil {
		env = n.Get("default")
	}
	for _, command := range []string{"global", "deploy"} {
		for name, value := range overrides(env.At(command, "parameters", "parameter_overrides")) {
			if root.At("Parameters", name) != nil {
				out[name] = value
			}
		}
	}
	return out
}

// readConfig reads samconfig, in any of its forms; nil where there is none.
func readConfig(p frontend.Project, l *diag.List) *cfn.Node {
	for _, name := range []string{"samconfig.yaml", "samconfig.yml", "samconfig.json"} {
		if st, err := os.Stat(filepath.Join(p.Root, name)); err == nil && st.Mode().IsRegular() {
			n, more := cfn.ReadDoc(p, name)
			*l = append(*l, more...)
			return n
		}
	}
	const name = "samconfig.toml"
	full := filepath.Join(p.Root, name)
	st, err := os.Stat(full)
	if err != nil || !st.Mode().IsRegular() || st.Size() > 1<<20 {
		return nil
	}
	pos := diag.Pos{File: name}
	if err := p.MayRead(full); err != nil {
		l.Errorf(pos, "outside", errs.HintOf(err), "%v", err)
		return nil
	}
	var doc map[string]any
	if _, err := toml.DecodeFile(full, &doc); err != nil {
		var fault toml.ParseError
		if errors.As(err, &fault) {
			pos.Line, pos.Col = fault.Position.Line, fault.Position.Col
			l.Errorf(pos, "syntax", "", "%s", fault.Message)
		} else {
			l.Errorf(pos, "unreadable", "", "the file cannot be read")
		}
		return nil
	}
	return cfn.From(pos, plainTOML(doc))
}

// plainTOML gives the kinds of values that a document has.
func plainTOML(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = plainTOML(v[k])
		}
		return v
	case []map[string]any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plainTOML(v[i])
		}
		return out
	case []any:
		for i := range v {
			v[i] = plainTOML(v[i])
		}
		return v
	case int64:
		return int(v)
	case string, bool, float64:
		return v
	}
	return nil
}

// overrides reads "A=1 B=\"two words\"", a list of such, or a map. The older form is ParameterKey=A,ParameterValue=1.
func overrides(n *cfn.Node) map[string]string {
	out := map[string]string{}
	if n == nil {
		return out
	}
	switch n.Kind {
	case cfn.List:
		for _, it := range n.Items {
			for k, v := range overrides(it) {
				out[k] = v
			}
		}
	case cfn.Map:
		for _, e := range n.Entries {
			if s, ok := e.Value.Text(); ok {
				out[e.Key] = s
			}
		}
	case cfn.Scalar:
		for _, word := range words(text(n)) {
			key, value, ok := strings.Cut(word, "=")
			if rest, old := strings.CutPrefix(word, "ParameterKey="); old {
				key, value, ok = strings.Cut(rest, ",ParameterValue=")
			}
			if ok && key != "" {
				out[key] = value
			}
		}
	}
	return out
}

// words splits at spaces that are not within quotes; the quotes go, a backslash takes what follows as it is.
func words(s string) []string {
	var out []string
	var word strings.Builder
	var quote rune
	in, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, in = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, in = r, true
		case strings.ContainsRune(" \t\r\n", r):
			if in {
				out = append(out, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out
}
