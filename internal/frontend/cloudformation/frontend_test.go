package cloudformation_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/frontend"
	"github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

const tiny = "Resources: {Fn: {Type: 'AWS::Lambda::Function', Properties: {Runtime: nodejs22.x, Handler: i.h, Code: src}}}\n"

func folder(t *testing.T, name, content string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "1 My.App!")
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFrontend_DetectsOnlyPlainTemplates(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		file, content string
		want          bool
	}{
		"yaml":           {"template.yaml", tiny, true},
		"yml":            {"cloudformation.yml", tiny, true},
		"json":           {"template.json", `{"Resources": {"Q": {"Type": "AWS::SQS::Queue"}}}`, true},
		"other name":     {"stack.yaml", tiny, false},
		"sam transform":  {"template.yaml", "Transform: AWS::Serverless-2016-10-31\n" + tiny, false},
		"sam in a list":  {"template.yaml", "Transform: [x, AWS::Serverless-2016-10-31]\n" + tiny, false},
		"sam resources":  {"template.yaml", "Resources: {F: {Type: 'AWS::Serverless::Function'}}", false},
		"no aws type":    {"template.yaml", "Resources: {F: {Type: 'Other::Thing'}}", false},
		"no resources":   {"template.yaml", "kind: Deployment\n", false},
		"not a document": {"template.yaml", "Resources: [\x00", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, ok := cloudformation.New().Detect(frontend.Project{Root: folder(t, row.file, row.content)})
			if ok != row.want || ok && file != row.file {
				t.Errorf("Detect = %q, %v", file, ok)
			}
		})
	}
}

func TestFrontend_LoadsANamedFileInASubfolder(t *testing.T) {
	t.Parallel()
	root := folder(t, "infra/stack.yml", tiny)
	a, l := cloudformation.New().Load(context.Background(), frontend.Project{Root: root, File: "infra/stack.yml"}, frontend.Options{Stage: "prod"})
	if len(l) > 0 {
		t.Fatal(l)
	}
	if a.Name != "My-App" || a.Stage != "prod" || a.Region != "us-east-1" || a.Functions[0].Package.Root != "infra/src" || a.Functions[0].Name != "My-App-prod-Fn" {
		t.Errorf("app = %+v", a)
	}
}

func TestFrontend_SaysWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ file, content, ask, want string }{
		"no template": {"x.txt", "", "", "no-project"},
		"no file":     {"x.txt", "", "gone.yaml", "unreadable"},
		"a folder":    {"sub/x.txt", "", "sub", "unreadable"},
		"huge":        {"template.yaml", strings.Repeat("# \n", 3<<20), "template.yaml", "too-large"},
		"syntax":      {"template.yaml", "a: [", "template.yaml", "syntax"},
		"sam":         {"template.yaml", "Transform: AWS::Serverless-2016-10-31\n" + tiny, "template.yaml", "unsupported"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := folder(t, row.file, row.content)
			a, l := cloudformation.New().Load(context.Background(), frontend.Project{Root: root, File: row.ask}, frontend.Options{})
			if a != nil || len(l) == 0 || l[0].Code != row.want || row.ask != "" && l[0].File != row.ask {
				t.Errorf("got %v, %v", a, l)
			}
		})
	}
}

func TestLoad_ReadsNoTemplateOutsideOfTheProject(t *testing.T) {
	t.Parallel()
	elsewhere := folder(t, "template.yml", "Resources: {T: {Type: 'AWS::SNS::Topic'}}")
	root := t.TempDir()
	if err := os.Symlink(filepath.Join(elsewhere, "template.yml"), filepath.Join(root, "template.yml")); err != nil {
		t.Fatal(err)
	}
	p := frontend.Project{Root: root, File: "template.yml"}
	if a, l := cloudformation.New().Load(context.Background(), p, frontend.Options{}); a != nil || l[0].Code != "outside" {
		t.Errorf("got %v, %v", a, l)
	}
	p.Reads = func(string) error { return nil }
	if a, l := cloudformation.New().Load(context.Background(), p, frontend.Options{}); a == nil {
		t.Errorf("allowed: %v", l)
	}
}
