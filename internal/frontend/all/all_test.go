package all

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/frontend"
)

func TestFrontends_TheMoreTellingFileIsRead(t *testing.T) {
	t.Parallel()
	template := "Resources:\n  Bucket:\n    Type: AWS::S3::Bucket\n"
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"a template alone", map[string]string{"template.yml": template}, "cloudformation template.yml"},
		{"both", map[string]string{"template.yml": template, "serverless.yml": "service: a\n"}, "serverless serverless.yml"},
		{"neither", map[string]string{"index.js": ""}, "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got := "none"
			if f, p, err := Frontends().Find(frontend.Project{Root: dir}); err == nil {
				got = f.Name() + " " + p.File
			}
			if got != tt.want {
				t.Errorf("found %s, want %s", got, tt.want)
			}
		})
	}
}
