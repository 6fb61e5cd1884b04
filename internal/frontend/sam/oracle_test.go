package sam

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// transformed is what SAM's own transform makes of a template.
type transformed struct {
	Name     string
	Template json.RawMessage
	Error    string
}

// oracle runs SAM's own transform, or skips the test where it is not installed.
func oracle(t *testing.T, files []string) map[string]transformed {
	t.Helper()
	if err := exec.Command("python3", "-c", "import samtranslator").Run(); err != nil {
		t.Skip("SAM's own transform, the Python package aws-sam-translator, is not installed")
	}
	cmd := exec.Command("python3", filepath.Join("testdata", "oracle.py"))
	cmd.Stdin = strings.NewReader(strings.Join(files, "\n"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("oracle: %v\n%s", err, stderr.String())
	}
	all := map[string]transformed{}
	s := bufio.NewScanner(bytes.NewReader(out))
	s.Buffer(nil, 64<<20)
	for s.Scan() {
		var one transformed
		if err := json.Unmarshal(s.Bytes(), &one); err != nil {
			t.Fatal(err)
		}
		all[one.Name] = one
	}
	return all
}

// twoApps compiles a template here, and takes what SAM made of it; both go the same way to an App.
func twoApps(t *testing.T, file string, theirs json.RawMessage) (ours, want map[string]any, diags, wantDiags diag.List) {
	t.Helper()
	p := frontend.Project{Root: filepath.Dir(file), File: filepath.Base(file)}
	var o frontend.Options
	if data, err := os.ReadFile(file + ".params"); err == nil {
		if err := json.Unmarshal(data, &o.Params); err != nil {
			t.Fatal(err)
		}
	}
	var l diag.List
	mine, in, ok := Frontend{}.compile(p, o, &l)
	if !ok {
		return nil, nil, l, nil
	}
	a, more := cfn.Load(mine, in)
	diags = append(l, more...)
	in.Functions = nil
	n, l := cfn.ParseDoc("theirs.json", unhashed(theirs, mine.Root))
	if n == nil {
		t.Fatalf("%s: %v", file, l)
	}
	b, wantDiags := cfn.Load(cfn.Template{Root: n}, in)
	return comparable(a, mine.Root), comparable(b, n), diags, wantDiags
}

var hashEnd = regexp.MustCompile(`^(.+?)[0-9a-f]{10}$`)

// unhashed gives the resources whose IDs end in a hash of their content the IDs that ours have.
func unhashed(theirs json.RawMessage, ours *cfn.Node) []byte {
	var doc struct{ Resources map[string]any }
	_ = json.Unmarshal(theirs, &doc)
	text := string(theirs)
	for id := range doc.Resources {
		if m := hashEnd.FindStringSubmatch(id); m != nil && ours.At("Resources", m[1]) != nil && ours.At("Resources", id) == nil {
			text = strings.ReplaceAll(text, id, m[1])
		}
	}
	return []byte(strings.ReplaceAll(text, `"StageName": "Stage"`, `"_": ""`))
}

// comparable is an App without what differs on purpose, and with the template's resources by type.
func comparable(a *app.App, root *cfn.Node) map[string]any {
	types := map[string]any{}
	for _, e := range entries(root.Get("Resources")) {
		switch typ := text(e.Value.Get("Type")); typ {
		case prefix + "Application":
			types[e.Key] = "AWS::CloudFormation::Stack"
		case "AWS::Route53::RecordSetGroup": // of a domain
		default:
			types[e.Key] = typ
		}
	}
	out := map[string]any{"types": types}
	if a == nil {
		return out
	}
	for i := range a.Functions {
		f := &a.Functions[i]
		f.Package, f.Place, f.Handler = app.Package{}, diag.Pos{}, path.Base(f.Handler) // of a bundle the folder goes
		f.Tags = nil
		for k, v := range f.Extra {
			if m, ok := v.(map[string]any); ok && len(m) == 0 {
				delete(f.Extra, k)
			}
		}
	}
	for i := range a.Resources {
		r := &a.Resources[i]
		if r.Kind == app.Foreign || r.Kind == app.Layer {
			r.Properties = nil
			if r.Type == prefix+"Application" {
				r.Type = "AWS::CloudFormation::Stack"
			}
		}
	}
	a.Resources = slices.DeleteFunc(a.Resources, func(r app.Resource) bool { return r.Type == "AWS::Route53::RecordSetGroup" })
	for i := range a.Roles {
		a.Roles[i].Trust = nil
		for _, st := range a.Roles[i].Statements {
			for _, k := range []string{"Action", "Resource"} { // one, and a list of one
				if l, ok := st[k].([]any); ok && len(l) == 1 {
					st[k] = l[0]
				}
			}
		}
	}
	sorted(a.Functions, func(f app.Function) string { return f.ID })
	sorted(a.APIs, func(x app.API) string { return x.ID })
	sorted(a.Routes, func(r app.Route) string { return r.API + r.Method + r.Path })
	sorted(a.Triggers, func(x app.Trigger) string { return x.ID + x.Function + x.Kind + fmt.Sprint(x.Settings) })
	sorted(a.Resources, func(r app.Resource) string { return r.ID })
	sorted(a.Roles, func(r app.Role) string { return r.ID })
	data, _ := json.Marshal(a)
	var doc map[string]any
	_ = json.Unmarshal(data, &doc)
	maps.Copy(out, doc)
	return out
}

func sorted[T any](list []T, key func(T) string) {
	sort.SliceStable(list, func(i, j int) bool { return key(list[i]) < key(list[j]) })
}

// differences lists the places where two documents part.
func differences(at string, want, got any, out *[]string) {
	if len(*out) > 12 {
		return
	}
	switch w := want.(type) {
	case map[string]any:
		if g, ok := got.(map[string]any); ok {
			keys := map[string]bool{}
			for k := range w {
				keys[k] = true
			}
			for k := range g {
				keys[k] = true
			}
			for _, k := range slices.Sorted(maps.Keys(keys)) {
				differences(at+"."+k, w[k], g[k], out)
			}
			return
		}
	case []any:
		if g, ok := got.([]any); ok && len(g) == len(w) {
			for i := range w {
				differences(fmt.Sprintf("%s[%d]", at, i), w[i], g[i], out)
			}
			return
		}
	}
	if !reflect.DeepEqual(want, got) {
		w, _ := json.Marshal(want)
		g, _ := json.Marshal(got)
		*out = append(*out, fmt.Sprintf("%s:\n    want %.600s\n    got  %.600s", at, w, g))
	}
}

// TestCompile_GivesWhatSAMsOwnTransformGives holds the App of each template beside that of the template which SAM itself makes of it.
// EBB_SAM_TEMPLATES names a folder with more of them.
func TestCompile_GivesWhatSAMsOwnTransformGives(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "*", "template.*"))
	if err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("EBB_SAM_TEMPLATES"); dir != "" {
		if files, err = filepath.Glob(filepath.Join(dir, "*", "template.y*ml")); err != nil {
			t.Fatal(err)
		}
	}
	theirs := oracle(t, files)
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			t.Parallel()
			one := theirs[file]
			if name := filepath.Base(filepath.Dir(file)); name == "openapi" || name == "faults" {
				return // files of the project and mistakes are nothing to the transform
			}
			if one.Error != "" {
				t.Logf("SAM refuses it: %s", one.Error)
				return
			}
			ours, want, diags, wantDiags := twoApps(t, file, one.Template)
			if diags.HasErrors() && !wantDiags.HasErrors() {
				for _, d := range diags {
					if d.Severity == diag.Error {
						t.Errorf("%s (%s)", d, d.Hint)
					}
				}
				return
			}
			var diff []string
			differences("", want, ours, &diff)
			for _, d := range diff {
				t.Error(d)
			}
		})
	}
}
