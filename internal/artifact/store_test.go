package artifact

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "artifacts"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shaOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func sample() *Tree {
	return FromFiles(File{Path: "index.js", Mode: 0o644, Data: []byte("code")}, File{Path: "bin/run", Mode: 0o755, Data: []byte("#!/bin/sh")},
		File{Path: "bin/same", Mode: 0o755, Data: []byte("code")})
}

func put(t testing.TB, s *Store, tree *Tree) string {
	t.Helper()
	d, err := s.Put(tree)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStore_PutAndMaterialise(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	tree := sample()
	if got := len(s.Missing(&tree.Manifest)); got != 2 {
		t.Fatalf("%d blobs missing, want 2", got)
	}
	digest := put(t, s, tree)
	if digest != tree.Manifest.Digest() {
		t.Errorf("digest %s", digest)
	}
	if got := s.Missing(&tree.Manifest); len(got) != 0 {
		t.Errorf("still missing: %v", got)
	}
	again, err := OpenStore(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := again.Materialise(context.Background(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := listing(t, scan(t, dir, nil)), listing(t, tree); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for p, mode := range map[string]fs.FileMode{"index.js": 0o444, "bin/run": 0o555, "bin/same": 0o555} {
		if info, err := os.Stat(filepath.Join(dir, p)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want mode %o", p, info, err, mode)
		}
	}
}

func TestStore_PutBlobRefuses(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	for _, row := range []struct {
		name, sha, text string
		size            int64
		code            errs.Code
	}{
		{"another digest", shaOf("x"), "y", 1, errs.Conflict},
		{"too short", shaOf("xx"), "x", 2, errs.Conflict},
		{"too long", shaOf("x"), "xx", 1, errs.Conflict},
		{"no digest", "../../x", "x", 1, errs.Invalid},
		{"too large", shaOf("x"), "x", 1 << 40, errs.TooLarge},
	} {
		err := s.PutBlob(row.sha, row.size, strings.NewReader(row.text))
		if errs.CodeOf(err) != row.code {
			t.Errorf("%s: got %v, want code %s", row.name, err, row.code)
		}
	}
	broken := io.MultiReader(strings.NewReader("x"), errReader{})
	if err := s.PutBlob(shaOf("xx"), 2, broken); err == nil {
		t.Error("a broken transfer was taken")
	}
	left, err := os.ReadDir(s.pending(""))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("gone") }

func TestStore_PutManifestNeedsItsBlobs(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	tree := sample()
	if _, err := s.PutManifest(&tree.Manifest); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("got %v, want a conflict", err)
	}
	if _, err := s.Manifest(tree.Manifest.Digest()); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("got %v, want not found", err)
	}
	if _, err := s.Materialise(context.Background(), tree.Manifest.Digest()); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("got %v, want not found", err)
	}
	if _, err := s.Materialise(context.Background(), "../.."); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestStore_NewerFormatIsRefusedUntouched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"FORMAT": storeHead + "2\n", "pending/x": "kept"})
	if _, err := OpenStore(dir); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("got %v, want a refusal", err)
	}
	if got := listing(t, scan(t, dir, nil)); got != "FORMAT="+storeHead+"2\n\npending/x=kept\n" {
		t.Errorf("the folder was touched:\n%s", got)
	}
	write(t, dir, map[string]string{"FORMAT": "something else"})
	if _, err := OpenStore(dir); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestMaterialise_ConcurrentCallersShare(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	var files []File
	for i := range 300 {
		files = append(files, File{Path: fmt.Sprintf("d%d/f%d", i%9, i), Mode: 0o644, Data: []byte(fmt.Sprint(i))})
	}
	digest := put(t, s, FromFiles(files...))
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			if i%4 == 0 {
				cancel() // callers that go away do not spoil it for the others
			}
			defer cancel()
			dir, err := s.Materialise(ctx, digest)
			if err != nil {
				if i%4 != 0 || !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
			if _, err := os.Stat(filepath.Join(dir, "d2/f299")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := os.ReadDir(filepath.Join(s.dir, "trees"))
	if err != nil || len(list) != 1 {
		t.Errorf("trees: %v %v", list, err)
	}
}

func TestMaterialise_MendsADamagedTree(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	digest := put(t, s, sample())
	dir, err := s.Materialise(context.Background(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "index.js")); err != nil {
		t.Fatal(err)
	}
	again, err := OpenStore(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if dir, err = again.Materialise(context.Background(), digest); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "index.js")); err != nil || string(text) != "code" {
		t.Errorf("index.js: %q %v", text, err)
	}
}

func TestMaterialise_DamagedBlobIsSaidAndCanBePutAgain(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	tree := sample()
	digest := put(t, s, tree)
	blob := s.blob(shaOf("code"))
	if err := os.Chmod(blob, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(blob, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Materialise(context.Background(), digest); errs.HintOf(err) != "Deploy again." {
		t.Fatalf("got %v", err)
	}
	put(t, s, tree)
	if _, err := s.Materialise(context.Background(), digest); err != nil {
		t.Error(err)
	}
}

func TestCollect_KeepsWhatIsNeededOrYoung(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	one := func(name, text string) *Tree {
		return FromFiles(File{Path: "shared", Mode: 0o644, Data: []byte("shared")}, File{Path: name, Mode: 0o644, Data: []byte(text)})
	}
	kept, old, young := put(t, s, one("k", "kept")), put(t, s, one("o", "old")), put(t, s, one("y", "young"))
	for _, d := range []string{kept, old} {
		if _, err := s.Materialise(context.Background(), d); err != nil {
			t.Fatal(err)
		}
	}
	keep := func(d string) bool { return d == kept }
	if freed, err := s.Collect(keep); err != nil || freed != 0 {
		t.Fatalf("young things were removed: %d %v", freed, err)
	}
	hourAgo := time.Now().Add(-time.Hour)
	err := filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(p, young) || strings.Contains(p, shaOf("young")) {
			return err
		}
		return os.Chtimes(p, hourAgo, hourAgo)
	})
	if err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(s.dir); err != nil { // forgets who asked for what
		t.Fatal(err)
	}
	freed, err := s.Collect(keep)
	if err != nil || freed != int64(len("old")) {
		t.Errorf("freed %d, %v; want %d", freed, err, len("old"))
	}
	if _, err := s.Manifest(old); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("old: %v", err)
	}
	if _, err := os.Stat(s.tree(old)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tree of old: %v", err)
	}
	for _, d := range []string{kept, young} {
		if _, err := s.Materialise(context.Background(), d); err != nil {
			t.Errorf("kept or young: %v", err)
		}
	}
}

func TestCollect_SparesWhatAClientCountsOn(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	tree := FromFiles(File{Path: "a", Mode: 0o644, Data: []byte("a")})
	digest := put(t, s, tree)
	hourAgo := time.Now().Add(-time.Hour)
	for _, p := range []string{s.blob(shaOf("a")), s.manifestFile(digest)} {
		if err := os.Chtimes(p, hourAgo, hourAgo); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Missing(&tree.Manifest); len(got) != 0 {
		t.Fatal("missing")
	}
	if _, err := s.Collect(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutManifest(&tree.Manifest); err != nil {
		t.Errorf("what Missing did not name is gone: %v", err)
	}
}

func TestStore_FullDiskIsSaid(t *testing.T) {
	t.Parallel()
	err := spaceError("/data", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
	if errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "no space left on the disk of /data") || errs.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

const crashDir = "EBB_TEST_ARTIFACT_CRASH"

// TestStore_KillHelper is the process that TestStore_SurvivesKill kills.
func TestStore_KillHelper(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("only runs as a child of TestStore_SurvivesKill")
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		var files []File
		for j := range 20 {
			files = append(files, File{Path: fmt.Sprintf("f%d", j), Mode: 0o644 + uint32(j%2)*0o111,
				Data: bytes.Repeat([]byte(fmt.Sprintf("%d-%d-%d ", os.Getpid(), i, j)), 1+rand.IntN(20_000))})
		}
		d, err := s.Put(FromFiles(files...))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(os.Stdout, "put "+d)
		if _, err := s.Materialise(context.Background(), d); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStore_SurvivesKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "artifacts")
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	acknowledged := map[string]bool{}
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestStore_KillHelper$", "-test.v")
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed at some moment after it has put something.
		var text bytes.Buffer
		lines := bufio.NewReader(out)
		for !strings.Contains(text.String(), "put ") {
			line, err := lines.ReadString('\n')
			text.WriteString(line)
			if err != nil {
				break
			}
		}
		timer := time.AfterFunc(time.Duration(rand.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		if _, err := text.ReadFrom(lines); err != nil {
			t.Fatal(err)
		}
		timer.Stop()
		_ = cmd.Wait()
		if strings.Contains(text.String(), "FAIL") {
			t.Fatalf("the child failed:\n%s", text.String())
		}
		for line := range strings.Lines(text.String()) {
			if d, ok := strings.CutPrefix(line, "put "); ok && strings.HasSuffix(d, "\n") {
				acknowledged[strings.TrimSpace(d)] = true
			}
		}
		checkWhole(t, dir, acknowledged)
	}
	if len(acknowledged) == 0 {
		t.Error("no child put anything")
	}
}

// checkWhole opens a Store after a crash: every manifest's bytes are there and right, and everything acknowledged is.
func checkWhole(t *testing.T, dir string, acknowledged map[string]bool) {
	t.Helper()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for d := range acknowledged {
		if _, err := s.Manifest(d); err != nil {
			t.Errorf("acknowledged and lost: %v", err)
		}
	}
	list, err := os.ReadDir(filepath.Join(dir, "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		digest := strings.TrimSuffix(m.Name(), ".json")
		got, err := s.Materialise(context.Background(), digest)
		if err != nil {
			t.Errorf("%s: %v", m.Name(), err)
			continue
		}
		if d := scan(t, got, nil).Manifest.Digest(); d != digest {
			t.Errorf("the tree %s has the digest %s", digest, d)
		}
	}
	for _, pattern := range []string{"trees/.tmp-*", "manifests/.tmp-*", "blobs/*/.tmp-*", "pending/.tmp-*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestStore_AnUploadGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	tree := FromFiles(File{"a", 0o644, []byte("aa")}, File{"b", 0o644, []byte("bb")}, File{"c", 0o644, []byte("cc")})
	for _, text := range []string{"aa", "bb"} {
		if err := s.PutBlob(shaOf(text), 2, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	// What a loss of power may leave: a name without its bytes. And what a kill leaves: a file that had not its name yet.
	spoilt := s.pending(shaOf("bb"))
	if err := errors.Join(os.Chmod(spoilt, 0o644), os.WriteFile(spoilt, []byte("b"), 0o644), os.WriteFile(s.pending(".tmp-1"), []byte("c"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(dir); err != nil {
		t.Fatal(err)
	}
	missing := s.Missing(&tree.Manifest)
	if len(missing) != 2 || slices.Contains(missing, shaOf("aa")) {
		t.Errorf("missing %v", missing)
	}
	if _, err := os.Stat(s.pending(".tmp-1")); err == nil {
		t.Error("half a file is kept")
	}
	for _, text := range []string{"bb", "cc"} {
		if err := s.PutBlob(shaOf(text), 2, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	digest, err := s.PutManifest(&tree.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Materialise(context.Background(), digest); err != nil {
		t.Error(err)
	}
}
