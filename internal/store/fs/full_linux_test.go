package fs_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
)

func TestStore_AFullDiskIsSaidAndLosesNothing(t *testing.T) {
	t.Parallel()
	for name, box := range map[string]*seal.Box{"clear": nil, "sealed": seal.New().Box("objects")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fullDiskLosesNothing(t, box)
		})
	}
}

func fullDiskLosesNothing(t *testing.T, box *seal.Box) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("cannot mount a file system here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := open(t, dir, fs.Options{Seal: box})
	bucketIn(t, s)
	for _, size := range []int{300_000, 9_000} {
		data, acked := strings.Repeat("x", size), 0
		for ; ; acked++ {
			_, err := s.Put(t.Context(), keyOf(fmt.Sprint(size, "/", acked)), store.PutObject{Body: strings.NewReader(data)})
			if err == nil {
				continue
			}
			if !errors.Is(err, store.ErrDiskFull) {
				t.Fatalf("a full disk is said as %v", err)
			}
			break
		}
		if acked == 0 && size > 100_000 {
			t.Fatal("nothing was put")
		}
		for i := range acked {
			obj, err := s.Open(t.Context(), keyOf(fmt.Sprint(size, "/", i)), "")
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if err := obj.Read(t.Context(), &b, 0, int64(size)); err != nil || b.String() != data {
				t.Fatalf("what was acknowledged is another: %v", err)
			}
			obj.Close()
		}
	}
	// With room again it goes on.
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Skipf("cannot make the file system larger here: %v", err)
	}
	if _, err := s.Put(t.Context(), keyOf("more"), store.PutObject{Body: strings.NewReader(strings.Repeat("y", 300_000))}); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if _, err := s.Delete(t.Context(), keyOf("300000/0"), store.DeleteObject{}); err != nil {
		t.Fatal(err)
	}
}
