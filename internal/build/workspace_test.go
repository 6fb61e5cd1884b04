package build

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/fence"
)

func TestWorkspaceRoot_FindsTheFolderThatNamesTheMember(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, root, member string
		want               bool
	}{
		{"a list", `{"workspaces":["packages/*"]}`, "packages/api", true},
		{"an object", `{"workspaces":{"packages":["./services/**"]}}`, "services/a/b", true},
		{"not named", `{"workspaces":["libs/*"]}`, "packages/api", false},
		{"left out", `{"workspaces":["packages/*","!packages/api"]}`, "packages/api", false},
		{"none", `{}`, "packages/api", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			dir := filepath.Join(root, c.member)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, "package.json"), []byte(c.root), 0o644); err != nil {
				t.Fatal(err)
			}
			got := fence.Workspace(dir)
			if (got == root) != c.want || !c.want && got != "" {
				t.Errorf("root %q, want %v", got, c.want)
			}
		})
	}
}

func TestBuild_AWorkspaceMemberGetsThePackageBesideIt(t *testing.T) {
	t.Parallel()
	need(t, "npm")
	// The registry of a test project cannot be reached: only the package beside it can be meant.
	p := newProject(t, map[string]string{
		"../package.json":        `{"name":"mono","private":true,"workspaces":["shop","shared"]}`,
		"../shared/package.json": `{"name":"is-even","version":"1.0.0","main":"i.js"}`,
		"../shared/i.js":         "module.exports = () => 'the one beside';",
		"package.json":           `{"name":"shop","version":"1.0.0","dependencies":{"is-even":"*"}}`,
		"h.js":                   "const f = require('is-even'); exports.main = async () => f();",
	})
	if got := content(t, p.one(node("h", "h.main")).Code, "node_modules/is-even/i.js"); got != "module.exports = () => 'the one beside';" {
		t.Errorf("the code holds %q", got)
	}
}
