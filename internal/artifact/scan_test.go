package artifact

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// write makes files below dir; a text that begins with "-> " makes a link.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for p, text := range files {
		full := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(to, full); err != nil {
				t.Fatal(err)
			}
			continue
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(full, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// listing gives a Tree as "path=content" or "path -> target".
func listing(t testing.TB, tree *Tree) string {
	t.Helper()
	var b strings.Builder
	for _, e := range tree.Manifest.Entries {
		if e.Link != "" {
			fmt.Fprintf(&b, "%s -> %s\n", e.Path, e.Link)
			continue
		}
		r, err := tree.Open(e)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s=%s\n", e.Path, text)
	}
	return b.String()
}

func scan(t testing.TB, dir string, c *ScanCache) *Tree {
	t.Helper()
	tree, err := Scan(dir, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Manifest.Validate(); err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestScan_DigestDoesNotDependOnTimes(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	for _, d := range []string{a, b} {
		write(t, d, map[string]string{"x.js": "1", "lib/y.js": "2", "run": "#!/bin/sh"})
	}
	old := time.Unix(1e9, 0)
	if err := os.Chtimes(filepath.Join(b, "x.js"), old, old); err != nil {
		t.Fatal(err)
	}
	da, db := scan(t, a, nil).Manifest.Digest(), scan(t, b, nil).Manifest.Digest()
	if da != db {
		t.Errorf("equal folders have digests %s and %s", da, db)
	}
}

func TestScan_LinksStayOrAreFollowed(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	write(t, out, map[string]string{"pkg/index.js": "outside", "pkg/self": "-> ../pkg"})
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"a/file":   "in",
		"kept":     "-> a/file",
		"kept-dir": "-> a",
		"absolute": "-> " + filepath.Join(dir, "a", "file"),
		"winding":  "-> a/../a/file",
		"shared":   "-> " + filepath.Join(out, "pkg"),
		"gone":     "-> nowhere",
		"loop":     "-> loop",
		"hidden":   "-> secret/x",
		"secret/x": "left out by the filter",
		"up":       "-> ..",
	})
	tree, err := Scan(dir, nil, func(p string, _ fs.DirEntry) bool { return p != "secret" && p != "shared/self" })
	if err != nil {
		t.Fatal(err)
	}
	want := "a/file=in\nabsolute -> a/file\nhidden=left out by the filter\nkept -> a/file\nkept-dir -> a\nshared/index.js=outside\nwinding -> a/file\n"
	if got := listing(t, tree); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if err := tree.Manifest.Validate(); err != nil {
		t.Error(err)
	}
}

func TestScan_EndlessLinksAreRefused(t *testing.T) {
	t.Parallel()
	out, dir := t.TempDir(), t.TempDir()
	write(t, out, map[string]string{"a/x": "1", "a/again": "-> ../a"})
	write(t, dir, map[string]string{"in": "-> " + filepath.Join(out, "a")})
	if _, err := Scan(dir, nil, nil); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestScanCache_SeesEveryChange(t *testing.T) {
	t.Parallel()
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "cache")
	write(t, dir, map[string]string{"a": "1111", "b": "2222"})
	settle(t, filepath.Join(dir, "b"))
	c := OpenScanCache(file)
	first := scan(t, dir, c)
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"a": "9999"}) // same size
	if err := os.Chtimes(filepath.Join(dir, "a"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	second := scan(t, dir, OpenScanCache(file))
	if first.Manifest.Entries[0] == second.Manifest.Entries[0] {
		t.Error("a change of equal size and time was not seen")
	}
	if first.Manifest.Entries[1] != second.Manifest.Entries[1] {
		t.Error("an unchanged file has another entry")
	}
}

// settle waits until a file is old enough to be remembered.
func settle(t testing.TB, name string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		c := OpenScanCache(filepath.Join(t.TempDir(), "none"))
		if _, err := c.Sum(name); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := c.get(name, info); ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("never settled")
		}
	}
}

func TestScanCache_UnchangedFilesAreNotRead(t *testing.T) {
	t.Parallel()
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "cache")
	write(t, dir, map[string]string{"a": "text"})
	name := filepath.Join(dir, "a")
	settle(t, name)
	c := OpenScanCache(file)
	want := scan(t, dir, c).Manifest.Digest()
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	c = OpenScanCache(file)
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.get(name, info); !ok {
		t.Error("the file's digest was not kept")
	}
	if got := scan(t, dir, c).Manifest.Digest(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestScanCache_DamagedFileIsEmpty(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "nonsense", cacheHead + "\nx y\n" + sumA + " 1 2\n"} {
		file := filepath.Join(t.TempDir(), "cache")
		write(t, filepath.Dir(file), map[string]string{"cache": text})
		if c := OpenScanCache(file); len(c.mu.known) != 0 {
			t.Errorf("%q gave %d entries", text, len(c.mu.known))
		}
	}
}

func TestMerge_EarlierTreesWin(t *testing.T) {
	t.Parallel()
	f := func(p, text string) File { return File{Path: p, Mode: 0o644, Data: []byte(text)} }
	got := listing(t, Merge(
		FromFiles(f("a", "1"), f("dir/x", "1")),
		FromFiles(f("a", "2"), f("a/below", "2"), f("dir", "2"), f("dir/y", "2")).Under("."),
		FromFiles(f("z", "3")).Under("deep/er"),
	))
	if want := "a=1\ndeep/er/z=3\ndir/x=1\ndir/y=2\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func makeZip(t *testing.T, add func(w *zip.Writer)) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "code.zip")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(f)
	add(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFromZip_EqualsTheFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"index.js": strings.Repeat("text ", 1000), "bin/run": "#!/bin/sh", "link": "-> bin/run", "empty": ""})
	name := makeZip(t, func(w *zip.Writer) {
		if err := w.AddFS(os.DirFS(dir)); err == nil {
			return
		}
		// AddFS refuses links: write all by hand.
		for _, p := range []string{"index.js", "bin/run", "empty"} {
			info, _ := os.Stat(filepath.Join(dir, p))
			h, _ := zip.FileInfoHeader(info)
			h.Name, h.Method = p, zip.Deflate
			out, _ := w.CreateHeader(h)
			text, _ := os.ReadFile(filepath.Join(dir, p))
			out.Write(text)
		}
		h := &zip.FileHeader{Name: "link"}
		h.SetMode(fs.ModeSymlink | 0o777)
		out, _ := w.CreateHeader(h)
		io.WriteString(out, "bin/run")
	})
	want := scan(t, dir, nil)
	got, err := FromZip(name)
	if err != nil {
		t.Fatal(err)
	}
	if listing(t, got) != listing(t, want) {
		t.Errorf("got\n%.300s\nwant\n%.300s", listing(t, got), listing(t, want))
	}
	if e, _ := got.Find("bin/run"); e.Mode != 0o755 {
		t.Errorf("bin/run has mode %o", e.Mode)
	}
}

func TestFromZip_RefusesWhatLeaves(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"../evil", "/etc/evil", `..\evil`, "a/../../evil"} {
		name := makeZip(t, func(w *zip.Writer) {
			out, err := w.Create(path)
			if err == nil {
				io.WriteString(out, "x")
			}
		})
		if _, err := FromZip(name); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: got %v, want a refusal", path, err)
		}
	}
	file := filepath.Join(t.TempDir(), "x.zip")
	write(t, filepath.Dir(file), map[string]string{"x.zip": "no zip at all"})
	if _, err := FromZip(file); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("a text file: got %v", err)
	}
}

func BenchmarkScan_TenThousandUnchanged(b *testing.B) {
	dir, file := b.TempDir(), filepath.Join(b.TempDir(), "cache")
	files := map[string]string{}
	for i := range 10_000 {
		files[fmt.Sprintf("d%d/s%d/f%d.js", i%40, i%7, i)] = fmt.Sprint(i)
	}
	write(b, dir, files)
	settle(b, filepath.Join(dir, "d0/s0/f0.js"))
	c := OpenScanCache(file)
	scan(b, dir, c)
	if err := c.Save(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		scan(b, dir, OpenScanCache(file))
	}
}

func TestScanWithin_AsksBeforeItLeavesTheFolder(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{
		"root/a": "a", "root/.hidden": "", "root/.dir/x": "", "root/.no/x": "", "root/in": "-> a", "root/out": "-> ../else", "root/key": "-> ../else/key", "root/sub/.up": "-> ../../else/key",
		"root/left": "-> ../else", "root/gone": "-> ../none", "root/.in": "-> a", "else/key": "", "else/.env": "",
	})
	keep := func(p string, _ fs.DirEntry) bool { return p != "left" }
	var asked []string
	refuse := ""
	reads := func(file, p string, met bool) error {
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		asked = append(asked, fmt.Sprintf("%s %s %v", rel, p, met))
		if p == refuse {
			return errors.New("refused")
		}
		if rel == "else/.env" || rel == "root/.no" {
			return fs.SkipDir
		}
		return nil
	}
	tree, err := ScanWithin(filepath.Join(dir, "root"), nil, keep, reads)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(asked)
	want := "else out false|else/.env out/.env true|else/key key false|else/key sub/.up false|root . false|root/.dir .dir true|root/.hidden .hidden true|root/.no .no true"
	if got := strings.Join(asked, "|"); got != want {
		t.Errorf("asked about\n%s, want\n%s", got, want)
	}
	var have []string
	for _, e := range tree.Manifest.Entries {
		have = append(have, e.Path)
	}
	if got := strings.Join(have, " "); got != ".dir/x .hidden .in a in key out/key sub/.up" {
		t.Errorf("got %s", got)
	}
	for _, refuse = range []string{".", "out", "key", "sub/.up", ".dir"} {
		if _, err := ScanWithin(filepath.Join(dir, "root"), nil, keep, reads); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", refuse, err)
		}
	}
}
