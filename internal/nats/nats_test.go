package nats_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
)

func open(t *testing.T, dir string) *nats.Conn {
	t.Helper()
	return openBy(t, dir, nil)
}

// bothWays runs a test over a store in clear and over one that is sealed.
func bothWays(t *testing.T, f func(t *testing.T, key []byte)) {
	t.Parallel()
	for name, key := range map[string][]byte{"clear": nil, "sealed": bytes.Repeat([]byte{7}, 32)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, key)
		})
	}
}

func openBy(t *testing.T, dir string, key []byte) *nats.Conn {
	t.Helper()
	c, err := nats.Open(t.Context(), nats.Options{Dir: dir, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// fill makes a store with some records in a bucket and closes it.
func fill(t *testing.T, dir string) {
	t.Helper()
	fillBy(t, dir, nil)
}

func fillBy(t *testing.T, dir string, key []byte) {
	t.Helper()
	c := openBy(t, dir, key)
	kv, err := c.JetStream().CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"one", "two", "three"} {
		if _, err := kv.Put(t.Context(), k, []byte(strings.Repeat(k, 100))); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpen_KeepsWhatWasStored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fill(t, dir)
	c := open(t, dir)
	kv, err := c.JetStream().KeyValue(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get(t.Context(), "two")
	if err != nil || !strings.HasPrefix(string(e.Value()), "two") {
		t.Fatalf("got %v, %v", e, err)
	}
	if err := c.Healthy(); err != nil {
		t.Fatal(err)
	}
}

func TestOpen_StartsFast(t *testing.T) {
	t.Parallel()
	best := time.Hour
	for range 5 {
		start := time.Now()
		c := open(t, t.TempDir())
		best = min(best, time.Since(start))
		_ = c.Close()
	}
	t.Logf("best of 5: %v", best)
	// Ten times what is measured on an idle machine: this guards against a wait, not against load.
	if best > 500*time.Millisecond {
		t.Errorf("start took %v", best)
	}
}

func TestOpen_RefusesASecondProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir)
	_, err := nats.Open(t.Context(), nats.Options{Dir: dir})
	if errs.CodeOf(err) != errs.Conflict || !strings.Contains(err.Error(), dir) || errs.HintOf(err) == "" {
		t.Fatalf("got %v (hint %q)", err, errs.HintOf(err))
	}
}

func TestClose_IsIdempotentAndFreesTheFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if c.Healthy() == nil {
		t.Error("healthy after Close")
	}
	open(t, dir)
}

// tree reads a folder, to compare it before and after; the lock's text and the server's own test files do not count.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func edit(t *testing.T, path string, f func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpen_RefusesADamagedStoreUntouched(t *testing.T) { bothWays(t, refusesADamagedStore) }

func refusesADamagedStore(t *testing.T, key []byte) {
	t.Helper()
	const stream = "jetstream/$G/streams/KV_b/"
	garbage := func(b []byte) []byte {
		for i := range b {
			b[i] = byte(i*7 + 3)
		}
		return b
	}
	type harm struct {
		damage func(t *testing.T, dir string)
		code   errs.Code
		say    string
	}
	harms := map[string]harm{
		"meta is garbage": {func(t *testing.T, d string) { edit(t, d+stream+"meta.inf", garbage) }, errs.Failed, "meta.inf"},
		"meta is empty": {func(t *testing.T, d string) {
			edit(t, d+stream+"meta.inf", func([]byte) []byte { return nil })
		}, errs.Failed, "meta.inf"},
		"meta is gone": {func(t *testing.T, d string) { _ = os.Remove(d + stream + "meta.inf") }, errs.Failed, "meta.inf"},
		"sum is gone":  {func(t *testing.T, d string) { _ = os.Remove(d + stream + "meta.sum") }, errs.Failed, "meta.sum"},
		"block is garbage": {func(t *testing.T, d string) {
			edit(t, d+stream+"msgs/1.blk", garbage)
		}, errs.Failed, "1.blk"},
		"one bit of the first record": {func(t *testing.T, d string) {
			edit(t, d+stream+"msgs/1.blk", func(b []byte) []byte { b[60] ^= 1; return b })
		}, errs.Failed, "1.blk"},
		"length of the first record": {func(t *testing.T, d string) {
			edit(t, d+stream+"msgs/1.blk", func(b []byte) []byte { b[0] ^= 0x40; return b })
		}, errs.Failed, "1.blk"},
		"blocks are gone": {func(t *testing.T, d string) { _ = os.Remove(d + stream + "msgs/1.blk") }, errs.Failed, "msgs"},
		"block is a folder": {func(t *testing.T, d string) {
			_ = os.Remove(d + stream + "msgs/1.blk")
			_ = os.Mkdir(d+stream+"msgs/1.blk", 0o700)
		}, errs.Failed, "1.blk"},
		"version is gone":    {func(t *testing.T, d string) { _ = os.Remove(d + "format") }, errs.Failed, "format"},
		"version is garbage": {func(t *testing.T, d string) { edit(t, d+"format", garbage) }, errs.Failed, "format"},
		"version is newer": {func(t *testing.T, d string) {
			edit(t, d+"format", func([]byte) []byte { return []byte("ebb-nats 2\n") })
		}, errs.Unsupported, "format 2"},
	}
	if key != nil {
		harms["block's key is gone"] = harm{func(t *testing.T, d string) { _ = os.Remove(d + stream + "msgs/1.key") }, errs.Failed, "1.key"}
		harms["block's key is damaged"] = harm{func(t *testing.T, d string) {
			edit(t, d+stream+"msgs/1.key", func(b []byte) []byte { b[30] ^= 1; return b })
		}, errs.Failed, "1.key"}
		harms["block's key is cut"] = harm{func(t *testing.T, d string) {
			edit(t, d+stream+"msgs/1.key", func(b []byte) []byte { return b[:10] })
		}, errs.Failed, "1.key"}
	}
	for name, c := range harms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fillBy(t, dir, key)
			c.damage(t, dir+"/")
			before := tree(t, dir)
			conn, err := nats.Open(t.Context(), nats.Options{Dir: dir, Key: key})
			if err == nil {
				_ = conn.Close()
				t.Fatal("opened")
			}
			if errs.CodeOf(err) != c.code || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %s %v", errs.CodeOf(err), err)
			}
			if errs.HintOf(err) == "" {
				t.Error("no hint")
			}
			after := tree(t, dir)
			if len(before) != len(after) {
				t.Errorf("%d files before, %d after", len(before), len(after))
			}
			for path, data := range before {
				if after[path] != data {
					t.Errorf("%s was changed", path)
				}
			}
		})
	}
}

// One changed byte anywhere in the store: either Open refuses, or everything is there. The last record is the exception: changed,
// it cannot be told from one that a crash tore.
func TestOpen_NeverLosesARecordSilently(t *testing.T) { bothWays(t, neverLosesARecord) }

func neverLosesARecord(t *testing.T, key []byte) {
	t.Helper()
	golden := t.TempDir()
	fillBy(t, golden, key)
	files := tree(t, golden)
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	r := rand.New(rand.NewPCG(3, 4))
	refused := 0
	const rounds = 80
	for range rounds {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
			t.Fatal(err)
		}
		name := names[r.IntN(len(names))]
		if len(files[name]) == 0 {
			continue
		}
		i, bit := r.IntN(len(files[name])), byte(1)<<r.IntN(8)
		path := filepath.Join(dir, strings.TrimPrefix(name, golden))
		edit(t, path, func(b []byte) []byte { b[i] ^= bit; return b })
		c, err := nats.Open(t.Context(), nats.Options{Dir: dir, Key: key})
		if err != nil {
			refused++
			continue
		}
		for _, k := range []string{"one", "two"} {
			kv, err := c.JetStream().KeyValue(t.Context(), "b")
			if err != nil {
				t.Fatalf("byte %d of %s: %v", i, name, err)
			}
			e, err := kv.Get(t.Context(), k)
			if err != nil || string(e.Value()) != strings.Repeat(k, 100) {
				t.Errorf("byte %d of %s: %s is lost: %v", i, name, k, err)
			}
		}
		_ = c.Close()
	}
	t.Logf("%d of %d refused", refused, rounds)
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

func TestOpen_DropsATornLastRecord(t *testing.T) { bothWays(t, dropsATornLastRecord) }

func dropsATornLastRecord(t *testing.T, key []byte) {
	t.Helper()
	const last = 541 // bytes of the last record
	for name, tear := range map[string]func([]byte) []byte{
		"half a record":      func(b []byte) []byte { return b[:len(b)-last+40] },
		"part of a head":     func(b []byte) []byte { return b[:len(b)-last+10] },
		"zeros":              func(b []byte) []byte { return append(b, make([]byte, 500)...) },
		"zeros for a record": func(b []byte) []byte { return append(b[:len(b)-last], make([]byte, last)...) },
		"last hash wrong":    func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fillBy(t, dir, key)
			msgs := dir + "/jetstream/$G/streams/KV_b/msgs/"
			edit(t, msgs+"1.blk", tear)
			_ = os.Remove(msgs + "index.db") // is not there after kill -9
			c := openBy(t, dir, key)
			kv, err := c.JetStream().KeyValue(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range []string{"one", "two"} {
				if _, err := kv.Get(t.Context(), k); err != nil {
					t.Errorf("%s: %v", k, err)
				}
			}
		})
	}
}

func TestOpen_RefusesAFolderThatIsNone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{path, filepath.Join(path, "below"), ""} {
		if _, err := nats.Open(t.Context(), nats.Options{Dir: dir}); err == nil {
			t.Errorf("%q: opened", dir)
		}
	}
}

func TestOpen_StopsWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fill(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nats.Open(ctx, nats.Options{Dir: dir}); errs.CodeOf(err) != errs.Canceled {
		t.Fatalf("got %v", err)
	}
	open(t, dir)
}

func TestOpen_ConnectsToAnExternalServer(t *testing.T) {
	t.Parallel()
	for _, js := range []bool{true, false} {
		srv, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: -1, JetStream: js, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		if !srv.ReadyForConnections(10 * time.Second) {
			t.Fatal("not ready")
		}
		c, err := nats.Open(t.Context(), nats.Options{URL: srv.ClientURL()})
		if !js {
			if errs.CodeOf(err) != errs.Unsupported || errs.HintOf(err) == "" {
				t.Errorf("without jetstream: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.JetStream().CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"}); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpen_SaysWhereNobodyListensAndHidesThePassword(t *testing.T) {
	t.Parallel()
	_, err := nats.Open(t.Context(), nats.Options{URL: "nats://ann:hunter2@127.0.0.1:1"})
	if errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
}

func TestOpen_WritesNothingInClearWithAKey(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{9}, 32)
	for name, key := range map[string][]byte{"clear": nil, "sealed": key} {
		dir := t.TempDir()
		fillBy(t, dir, key)
		found := false
		for _, data := range tree(t, dir) {
			found = found || strings.Contains(data, "threethree") || strings.Contains(data, "$KV.b.three")
		}
		if found != (key == nil) {
			t.Errorf("%s: records in clear: %v", name, found)
		}
	}
}

func TestOpen_RefusesAnotherKeyUntouched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fillBy(t, dir, bytes.Repeat([]byte{9}, 32))
	before := tree(t, dir)
	for _, key := range [][]byte{nil, bytes.Repeat([]byte{8}, 32)} {
		c, err := nats.Open(t.Context(), nats.Options{Dir: dir, Key: key})
		if err == nil {
			_ = c.Close()
			t.Fatalf("opened with key %v", key)
		}
		if errs.CodeOf(err) != errs.Failed || errs.HintOf(err) == "" {
			t.Errorf("key %v: %v", key, err)
		}
	}
	for path, data := range tree(t, dir) {
		if before[path] != data {
			t.Errorf("%s was changed", path)
		}
	}
}
