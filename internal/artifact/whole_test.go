package artifact

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
)

// scribble overwrites a file in place, as root can and a guest of the same user after a chmod.
func scribble(t *testing.T, name, text string) {
	t.Helper()
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o444); err != nil {
		t.Fatal(err)
	}
}

func materialise(t testing.TB, s *Store, digest string) string {
	t.Helper()
	dir, err := s.Materialise(context.Background(), digest)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	again, err := OpenStore(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	again.link = s.link
	return again
}

func wantText(t *testing.T, name, want string) {
	t.Helper()
	if text, err := os.ReadFile(name); err != nil || string(text) != want {
		t.Errorf("%s holds %q (%v), want %q", filepath.Base(name), text, err, want)
	}
}

func TestOpenStore_LinksOnlyWhereModesProtect(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	if root := os.Geteuid() == 0; s.link == root {
		t.Errorf("root %v, links %v", root, s.link)
	}
	dir := materialise(t, s, put(t, s, sample()))
	f, err := os.OpenFile(filepath.Join(dir, "index.js"), os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil { // a guest of this user can write to its files
		if _, err := f.WriteString("changed"); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	wantText(t, s.blob(shaOf("code")), "code")
}

func TestMaterialise_WritesInPlaceStayInTheTree(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"evil", "much longer"} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			s := openStore(t)
			s.link = false
			tree := sample()
			digest := put(t, s, tree)
			dir := materialise(t, s, digest)
			for _, name := range []string{"index.js", "bin/same"} {
				scribble(t, filepath.Join(dir, name), text)
			}
			wantText(t, s.blob(shaOf("code")), "code")
			other := materialise(t, s, put(t, s, FromFiles(File{Path: "other.js", Mode: 0o644, Data: []byte("code")})))
			wantText(t, filepath.Join(other, "other.js"), "code")
			s = reopen(t, s)
			wantText(t, filepath.Join(materialise(t, s, digest), "index.js"), "code")
			wantText(t, filepath.Join(materialise(t, s, digest), "bin/same"), "code")
		})
	}
}

func TestMaterialise_ReplacesALinkedTreeWhereModesDoNotProtect(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	s.link = true
	digest := put(t, s, sample())
	materialise(t, s, digest)
	s.link = false
	s = reopen(t, s)
	scribble(t, filepath.Join(materialise(t, s, digest), "index.js"), "evil")
	wantText(t, s.blob(shaOf("code")), "code")
}

func TestStore_DamagedBlobCountsAsMissing(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, text string
		same       bool // in the process that wrote it
	}{
		{"of equal size, in another process", "evil", false},
		{"of equal size, in the same process", "evil", true},
		{"shorter", "x", false},
		{"longer", "changed", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t)
			tree := sample()
			digest := put(t, s, tree)
			materialise(t, s, digest)
			scribble(t, s.blob(shaOf("code")), row.text)
			if !row.same {
				s = reopen(t, s)
			}
			if _, err := s.PutManifest(&tree.Manifest); errs.CodeOf(err) != errs.Conflict || !strings.Contains(err.Error(), "is missing") {
				t.Errorf("a manifest of a damaged blob: %v", err)
			}
			if got := s.Missing(&tree.Manifest); !slices.Equal(got, []string{shaOf("code")}) {
				t.Errorf("missing: %v", got)
			}
			put(t, s, tree)
			wantText(t, s.blob(shaOf("code")), "code")
			wantText(t, filepath.Join(materialise(t, reopen(t, s), digest), "index.js"), "code")
		})
	}
}

func TestStore_DamagedBlobIsNotGivenOut(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	put(t, s, sample())
	scribble(t, s.blob(shaOf("code")), "evil")
	if f, err := reopen(t, s).Open(shaOf("code")); err == nil {
		f.Close()
		t.Error("it was opened")
	}
}

func BenchmarkStore_TenThousandFiles(b *testing.B) {
	files := make([]File, 10_000)
	for i := range files {
		files[i] = File{Path: fmt.Sprintf("d%d/e%d/f%d.js", i%37, i%11, i), Mode: 0o644, Data: []byte(strings.Repeat(fmt.Sprintf("%d,", i), 2000))}
	}
	tree := FromFiles(files...)
	for _, link := range []bool{true, false} {
		s := openStore(b)
		s.link = link
		digest := put(b, s, tree)
		name := map[bool]string{true: "link", false: "copy"}[link]
		b.Run(name+"/first", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				if err := os.RemoveAll(s.tree(digest)); err != nil {
					b.Fatal(err)
				}
				delete(s.mu.ready, digest)
				b.StartTimer()
				materialise(b, s, digest)
			}
		})
		b.Run(name+"/next process, tree", func(b *testing.B) {
			for b.Loop() {
				materialise(b, reopen(b, s), digest)
			}
		})
		b.Run(name+"/next process, missing", func(b *testing.B) {
			for b.Loop() {
				reopen(b, s).Missing(&tree.Manifest)
			}
		})
		b.Run(name+"/same process, missing", func(b *testing.B) {
			for b.Loop() {
				s.Missing(&tree.Manifest)
			}
		})
	}
}
