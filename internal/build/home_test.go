package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPlainEnv_HasTheHomeWithoutProfiles(t *testing.T) {
	t.Parallel()
	home, dir := t.TempDir(), t.TempDir()
	writeFiles(t, home, map[string]string{".aws/credentials": "secret", ".boto": "secret", ".npmrc": "registry=r", "go/x": "x", "old/x": "x"})
	look := func(pass ...string) string {
		t.Helper()
		env, err := PlainEnv([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "AWS_PROFILE=me", "AWS_CONFIG_FILE=/me", "AWS_ACCESS_KEY_ID=a"}, pass, dir)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", `cd "$HOME" && echo *; ls -A; cat .npmrc go/x; cat ~/.aws/credentials 2>&1; env | grep ^AWS | sort`)
		cmd.Env = env
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	got := look()
	if strings.Contains(got, "secret") || strings.Contains(got, ".boto") || !strings.Contains(got, "go old\n") || !strings.Contains(got, "registry=rx") {
		t.Errorf("the home:\n%s", got)
	}
	if want := "AWS_CONFIG_FILE=/dev/null\nAWS_EC2_METADATA_DISABLED=true\nAWS_SHARED_CREDENTIALS_FILE=/dev/null\n"; !strings.HasSuffix(got, want) || strings.Contains(got, "AWS_PROFILE") {
		t.Errorf("variables:\n%s", got)
	}
	// It follows the user's, and what a tool has left in it stays.
	made, err := filepath.Glob(filepath.Join(dir, "home-*"))
	if err != nil || len(made) != 1 {
		t.Fatalf("%q, %v", made, err)
	}
	writeFiles(t, made[0], map[string]string{".cache/x": "kept"})
	writeFiles(t, home, map[string]string{"new/x": "x", ".cache/y": "y"})
	if err := os.RemoveAll(filepath.Join(home, "old")); err != nil {
		t.Fatal(err)
	}
	if got := look(); !strings.Contains(got, "go new\n") {
		t.Errorf("later:\n%s", got)
	}
	if text, err := os.ReadFile(filepath.Join(made[0], ".cache", "x")); string(text) != "kept" {
		t.Error(err)
	}
	// What the operator lets tools see is that.
	if got := look("AWS_PROFILE", "AWS_CONFIG_FILE"); !strings.Contains(got, "AWS_CONFIG_FILE=/me\n") || !strings.Contains(got, "AWS_PROFILE=me\n") {
		t.Errorf("passed on:\n%s", got)
	}
}

func TestPlainEnv_DoesWithoutAHome(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env, err := PlainEnv([]string{"HOME=" + filepath.Join(dir, "none")}, nil, dir)
	if err != nil || !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME="+filepath.Join(dir, "home-")) }) {
		t.Errorf("%v, %v", env, err)
	}
	if env, err = PlainEnv([]string{"PATH=/bin"}, nil, dir); err != nil || slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		t.Errorf("%v, %v", env, err)
	}
}
