package fs_test

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ebb-run/ebb/internal/seal/sealtest"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
)

// child in the environment makes the test binary the process that is killed: its value is the folder, a colon and the round.
const child = "EBB_STORE_KILL"

// sealEnv names the folder of the seal of that process's store; empty for none.
const sealEnv = "EBB_STORE_SEAL"

func TestMain(m *testing.M) {
	if spec, ok := os.LookupEnv(child); ok {
		dir, round, _ := strings.Cut(spec, ":")
		if err := work(dir, round); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var bucket = store.BucketID{Tenant: "default", Name: "b"}

func keyOf(k string) store.ObjectKey { return store.ObjectKey{Bucket: bucket, Key: k} }

// content is what an object of a name holds: its name, repeated to a length that its number says.
func content(name string, n int) string {
	sizes := []int{10, 20_000, 70_000, 300_000}
	return strings.Repeat(name+"\n", sizes[n%len(sizes)]/len(name)+1)
}

// work puts, replaces, copies, deletes and uploads until it is killed, and says what was acknowledged after it was.
func work(dir, round string) error {
	ctx := context.Background()
	s, err := fs.Open(ctx, dir, fs.Options{Seal: sealtest.Open(os.Getenv(sealEnv)).Box("objects")})
	if err != nil {
		return err
	}
	if err := s.CreateBucket(ctx, bucket, store.Bucket{Notify: true}); err != nil && !errors.Is(err, store.ErrBucketExists) {
		return err
	}
	var out sync.Mutex
	say := func(format string, args ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	say("ready")
	failed := make(chan error)
	for g := range 4 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%s/%d/%d", round, g, i)
				data := content(key, i)
				if _, err := s.Put(ctx, keyOf(key), store.PutObject{Body: strings.NewReader(data), Event: store.ObjectEvent{Name: "put"}}); err != nil {
					failed <- err
					return
				}
				say("put %s %x", key, md5.Sum([]byte(data)))
				switch i % 7 {
				case 3:
					say("deleting %s", key)
					if _, err := s.Delete(ctx, keyOf(key), store.DeleteObject{}); err != nil {
						failed <- err
						return
					}
					say("deleted %s", key)
				case 5:
					if _, err := s.Put(ctx, keyOf(key+"copy"), store.PutObject{From: &store.ObjectSource{ObjectKey: keyOf(key), Length: -1}}); err != nil {
						failed <- err
						return
					}
					say("put %scopy %x", key, md5.Sum([]byte(data)))
				}
			}
		}()
	}
	return <-failed
}

// told is what killed processes said.
type told struct {
	put, deleting, deleted map[string]string
}

func (o *told) read(r io.Reader, enough int64, kill func()) {
	var n atomic.Int64
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) == 3 && f[0] == "put":
			o.put[f[1]] = f[2]
		case len(f) == 2 && f[0] == "deleting":
			o.deleting[f[1]] = ""
		case len(f) == 2 && f[0] == "deleted":
			o.deleted[f[1]] = ""
		}
		if n.Add(1) == enough {
			kill()
		}
	}
}

func TestStore_LosesNothingWhenKilled(t *testing.T) {
	t.Parallel()
	for name, seals := range map[string]string{"clear": "", "sealed": sealtest.Make(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			losesNothingWhenKilled(t, seals)
		})
	}
}

func losesNothingWhenKilled(t *testing.T, seals string) {
	t.Helper()
	dir := t.TempDir()
	all := told{map[string]string{}, map[string]string{}, map[string]string{}}
	rounds := 6
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%d", child, dir, round), sealEnv+"="+seals)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all.read(out, 50+rand.Int64N(300), func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		_ = cmd.Wait()
		verify(t, dir, seals, all)
	}
	t.Logf("%d acknowledged puts and %d deletions, none lost", len(all.put), len(all.deleted))
}

// verify opens the folder and holds it to what was said.
func verify(t *testing.T, dir, seals string, all told) {
	t.Helper()
	s, err := fs.Open(t.Context(), dir, fs.Options{Seal: sealtest.Open(seals).Box("objects")})
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for key, sum := range all.put {
		obj, err := s.Open(t.Context(), keyOf(key), "")
		if _, gone := all.deleting[key]; gone && errors.Is(err, store.ErrNoObject) {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", key, err)
			lost++
			continue
		}
		if _, gone := all.deleted[key]; gone {
			t.Errorf("%s is there after it was deleted", key)
		}
		h := md5.New()
		if err := obj.Read(t.Context(), h, 0, obj.Info().Size); err != nil || hex.EncodeToString(h.Sum(nil)) != sum {
			t.Errorf("%s is another: %v", key, err)
			lost++
		}
		obj.Close()
	}
	if lost > 0 {
		t.Fatalf("%d of %d acknowledged puts are lost", lost, len(all.put))
	}
	// What was not acknowledged is there as a whole or not at all, and no file is there that nothing needs.
	needed, page := 0, store.ListObjects{Limit: 1000}
	for {
		list, err := s.List(t.Context(), bucket, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Objects {
			if o.Size > 16<<10 && !strings.HasSuffix(o.Key, "copy") {
				needed++
			}
			if _, said := all.put[o.Key]; !said {
				obj, err := s.Open(t.Context(), keyOf(o.Key), "")
				if err != nil {
					t.Fatal(err)
				}
				h := md5.New()
				if err := obj.Read(t.Context(), h, 0, o.Size); err != nil || hex.EncodeToString(h.Sum(nil)) != o.ETag {
					t.Errorf("%s, not acknowledged, is half there: %v", o.Key, err)
				}
				obj.Close()
			}
		}
		if !list.More {
			break
		}
		page.After = list.NextKey
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = fs.Open(t.Context(), dir, fs.Options{Seal: sealtest.Open(seals).Box("objects")}); err != nil { // the trash is empty when the remover has ended
		t.Fatal(err)
	}
	waitFor(t, func() bool { return files(t, dir) == needed }, func() string { return fmt.Sprintf("%d files, %d needed", files(t, dir), needed) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(dir, "data"), func(_ string, d iofs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
