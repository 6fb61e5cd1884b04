package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/cli"
)

func TestReference_IsWhatTheDocsHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var out, errOut bytes.Buffer
	sys := cli.System{
		Stdin: &bytes.Buffer{}, Stdout: &out, Stderr: &errOut, Dir: dir, Exit: func(int) {},
		Env: func(string) (string, bool) { return "", false },
	}
	if code := cli.Main(sys, []string{"docs", "made"}); code != 0 || out.Len()+errOut.Len() > 0 {
		t.Fatalf("exit code %d, output %s%s", code, &out, &errOut)
	}
	for _, name := range []string{"commands.md", "settings.md"} {
		made, err := os.ReadFile(filepath.Join(dir, "made", name))
		if err != nil {
			t.Fatal(err)
		}
		held, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", name))
		if err != nil || !bytes.Equal(made, held) {
			t.Errorf("docs/reference/%s is stale (%v); run `make docs`", name, err)
		}
	}
}
