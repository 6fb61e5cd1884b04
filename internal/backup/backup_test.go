package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/backup"
	"github.com/ebb-run/ebb/internal/errs"
)

// stream is one of n files, of which file i has i bytes and a few have other modes.
func stream(t testing.TB, n int) []byte {
	t.Helper()
	dir := t.TempDir()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, backup.Header{Version: "1.2.3", Moment: time.Unix(1_800_000_000, 0).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		from := filepath.Join(dir, fmt.Sprint(i))
		mode := []fs.FileMode{0o600, 0o444, 0o555}[i%3]
		if err := os.WriteFile(from, bytes.Repeat([]byte{byte(i)}, i), mode); err != nil {
			t.Fatal(err)
		}
		if err := w.File(t.Context(), fmt.Sprintf("folder %d/ä%d", i%7, i), from); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRestore_GivesBackEveryFile(t *testing.T) {
	t.Parallel()
	const n = 2500 // three lists
	dir := filepath.Join(t.TempDir(), "deep", "data")
	got, err := backup.Restore(t.Context(), bytes.NewReader(stream(t, n)), dir, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Files != n || got.Bytes != n*(n-1)/2 || got.Version != "1.2.3" || got.Moment.Unix() != 1_800_000_000 || got.Aside != "" {
		t.Errorf("found %+v", got)
	}
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("folder %d/ä%d", i%7, i))
		data, err := os.ReadFile(path)
		info, serr := os.Stat(path)
		if err != nil || serr != nil || !bytes.Equal(data, bytes.Repeat([]byte{byte(i)}, i)) || info.Mode().Perm() != []fs.FileMode{0o600, 0o444, 0o555}[i%3] {
			t.Fatalf("file %d: %d bytes, %v, %v, %v", i, len(data), info, err, serr)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 1 {
		t.Errorf("beside the folder stand %v", left)
	}
}

func TestRead_RefusesWhatIsCutOffAnywhere(t *testing.T) {
	t.Parallel()
	whole := stream(t, 40)
	last := bytes.LastIndex(whole, []byte("end.json"))
	for at := 0; at < last+512; at += 97 {
		_, err := backup.Read(t.Context(), bytes.NewReader(whole[:at]), nil)
		if err == nil {
			t.Fatalf("cut at %d of %d it is accepted", at, len(whole))
		}
		if at > 2048 && (errs.CodeOf(err) != errs.Failed || !strings.Contains(err.Error(), fmt.Sprintf("at byte %d", at))) {
			t.Fatalf("cut at %d: %v", at, err)
		}
	}
	if _, err := backup.Read(t.Context(), bytes.NewReader(whole), nil); err != nil {
		t.Fatal(err)
	}
}

func TestRead_RefusesDataThatChanged(t *testing.T) {
	t.Parallel()
	whole := stream(t, 40)
	// Where the contents of files stand, and what is said of them.
	r := tar.NewReader(bytes.NewReader(whole))
	var places []int
	for {
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(body) > 3 {
			at := bytes.Index(whole, body)
			places = append(places, at, at+len(body)/2, at+len(body)-2)
		}
	}
	if len(places) < 60 {
		t.Fatalf("%d places", len(places))
	}
	for _, at := range places {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x04
		if _, err := backup.Read(t.Context(), bytes.NewReader(bad), nil); err == nil {
			t.Errorf("changed at byte %d (%q to %q) it is accepted", at, whole[at], bad[at])
		}
	}
}

func TestRestore_OfADamagedStreamLeavesNothing(t *testing.T) {
	t.Parallel()
	whole := stream(t, 40)
	bad := bytes.Clone(whole)
	bad[bytes.Index(whole, bytes.Repeat([]byte{39}, 39))] ^= 1
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	_, err := backup.Restore(t.Context(), bytes.NewReader(bad), dir, false, nil)
	if err == nil || !strings.Contains(err.Error(), "data/folder 4/ä39 is not what was written") {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func TestRestore_TakesNoFolderThatHoldsAnything(t *testing.T) {
	t.Parallel()
	whole := stream(t, 3)
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := backup.Restore(t.Context(), bytes.NewReader(whole), dir, false, nil)
	if errs.CodeOf(err) != errs.Exists || !strings.Contains(err.Error(), "mine") || !strings.Contains(errs.HintOf(err), "--force") {
		t.Errorf("got %v, hint %q", err, errs.HintOf(err))
	}
	// A damaged one moves nothing.
	if _, err := backup.Restore(t.Context(), bytes.NewReader(whole[:len(whole)/2]), dir, true, nil); err == nil {
		t.Error("half a stream is restored")
	}
	if _, err := os.Stat(filepath.Join(dir, "mine")); err != nil {
		t.Error(err)
	}
	got, err := backup.Restore(t.Context(), bytes.NewReader(whole), dir, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(got.Aside, "mine")); err != nil || string(data) != "x" {
		t.Errorf("what was there is not aside in %q: %v", got.Aside, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "folder 2", "ä2")); err != nil {
		t.Error(err)
	}
}

// crafted is a tar archive of files as given.
func crafted(t *testing.T, entries ...*tar.Header) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range entries {
		text := h.Linkname
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Typeflag, h.Linkname, h.Size = tar.TypeReg, "", int64(len(text))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = io.WriteString(w, text)
		}
	}
	_ = w.Close()
	return &out
}

func TestRead_RefusesWhatNoWriterWrites(t *testing.T) {
	t.Parallel()
	head := func(text string) *tar.Header { return &tar.Header{Name: "ebb-backup.json", Linkname: text} }
	good := `{"format":1,"version":"1","moment":"2026-01-02T03:04:05Z"}`
	for name, row := range map[string]struct {
		entries []*tar.Header
		want    string
	}{
		"nothing":          {nil, "no backup of ebb"},
		"another tar":      {[]*tar.Header{{Name: "readme", Linkname: "hello"}}, "no backup of ebb"},
		"a newer one":      {[]*tar.Header{head(`{"format":2,"version":"9.9"}`)}, "format 2"},
		"a header of text": {[]*tar.Header{head("hello")}, "not to be understood"},
		"a way out":        {[]*tar.Header{head(good), {Name: "data/../../etc/passwd", Linkname: "x"}}, "no plain file"},
		"an absolute path": {[]*tar.Header{head(good), {Name: "data//etc/passwd", Linkname: "x"}}, "no plain file"},
		"a link":           {[]*tar.Header{head(good), {Name: "data/a", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}}, "no plain file"},
		"something else":   {[]*tar.Header{head(good), {Name: "other", Linkname: "x"}}, "no place in a backup"},
		"no end":           {[]*tar.Header{head(good), {Name: "data/a", Linkname: "x"}}, "ends here, after 2 files"},
		"no list":          {[]*tar.Header{head(good), {Name: "data/a", Linkname: "x"}, {Name: "end.json", Linkname: `{"files":2}`}}, "end.json"},
		"a failure":        {[]*tar.Header{head(good), {Name: "failed.txt", Linkname: "the disk is full"}}, "could not finish the backup: the disk is full"},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		if _, err := backup.Restore(t.Context(), crafted(t, row.entries...), dir, false, nil); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: a folder is made", name)
		}
	}
}

func TestWriter_TellsWhyItFailed(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, backup.Header{})
	if err != nil {
		t.Fatal(err)
	}
	err = w.File(t.Context(), "gone", filepath.Join(t.TempDir(), "gone"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	w.Fail(err)
	if _, err := backup.Read(t.Context(), &out, nil); err == nil || !strings.Contains(err.Error(), "back up gone") {
		t.Errorf("a reader learns %v", err)
	}
	if err := w.File(t.Context(), "../x", os.DevNull); err == nil {
		t.Error("a name that leads out is written")
	}
}

func TestRestore_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	parent := t.TempDir()
	_, err := backup.Restore(ctx, bytes.NewReader(stream(t, 3)), filepath.Join(parent, "data"), false, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func FuzzRead(f *testing.F) {
	whole := stream(f, 5)
	f.Add(whole)
	f.Add(whole[:1500])
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := backup.Read(t.Context(), bytes.NewReader(data), func(_ backup.File, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if err == nil && found.Format != backup.Format {
			t.Errorf("accepted as %+v", found)
		}
	})
}
