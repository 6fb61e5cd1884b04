package state_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/state"
)

var testKey = bytes.Repeat([]byte("k"), 32)

func openIn(t *testing.T, dir string, o state.Options) (*state.Store, *nats.Conn) {
	t.Helper()
	c, err := nats.Open(t.Context(), nats.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if o.Key == nil {
		o.Key = testKey
	}
	s, err := state.Open(t.Context(), c.JetStream(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func open(t *testing.T) (*state.Store, *nats.Conn) { return openIn(t, t.TempDir(), state.Options{}) }

func deployment(k state.StackKey, message string) *state.Deployment {
	return &state.Deployment{
		Stack: k, By: "ann", Message: message,
		App: &app.App{
			Name: k.App, Stage: k.Stage, Source: "serverless.yml",
			Functions: []app.Function{{
				Key: "hello", Name: k.App + "-hello", Runtime: "nodejs22.x", Handler: "h.main", MemoryMB: 128, TimeoutSec: 3,
				Env: map[string]app.Value{"PASSWORD": app.Lit("hunter2-" + message)},
			}},
		},
		Units: []state.Unit{{Key: "hello", Revision: "r-" + message, Code: "sha256:code-" + message, Layers: []string{"sha256:layer"},
			Supplied: "sha256:sdk", Runtime: "nodejs22.x", Handler: "h.main"}},
	}
}

var stack = state.StackKey{Tenant: "default", App: "shop", Stage: "dev"}

func put(t *testing.T, s *state.Store, k state.StackKey, message string) *state.Deployment {
	t.Helper()
	d := deployment(k, message)
	if err := s.Put(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func want(t *testing.T, err error, code errs.Code) {
	t.Helper()
	if errs.CodeOf(err) != code {
		t.Errorf("got %s (%v), want %s", errs.CodeOf(err), err, code)
	}
}

func TestPut_IsReadBackAsWritten(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	d := put(t, s, stack, "first")
	if len(d.ID) != 13 || d.Created.IsZero() {
		t.Errorf("ID %q, created %v", d.ID, d.Created)
	}
	got, err := s.Deployment(t.Context(), stack, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, d) {
		t.Errorf("got  %+v\nwant %+v", got, d)
	}
	want(t, s.Put(t.Context(), &state.Deployment{ID: d.ID, Stack: stack, App: d.App}), errs.Exists)
	_, err = s.Deployment(t.Context(), stack, "other")
	want(t, err, errs.NotFound)
	_, err = s.Deployment(t.Context(), stack, "")
	want(t, err, errs.NotFound)
	_, err = s.Deployment(t.Context(), state.StackKey{Tenant: "default", App: "shop", Stage: "prod"}, d.ID)
	want(t, err, errs.NotFound)
}

func TestPut_RefusesWhatCannotBeStored(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	noApp := deployment(stack, "a")
	noApp.App = nil
	noStage := deployment(state.StackKey{Tenant: "default", App: "shop"}, "a")
	long := deployment(stack, strings.Repeat("x", 5000))
	for name, d := range map[string]*state.Deployment{"no app": noApp, "no stage": noStage, "long message": long} {
		if err := s.Put(t.Context(), d); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := deployment(stack, "big")
	noise := make([]byte, 3<<19)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte('0' + r.UintN(64))
	}
	big.App.Description = string(noise)
	err := s.Put(t.Context(), big)
	if errs.CodeOf(err) != errs.TooLarge || errs.HintOf(err) == "" {
		t.Fatalf("got %v", err)
	}
	big.App.Description = strings.Repeat("a state machine repeats itself; ", 200_000) // 6 MB
	if err := s.Put(t.Context(), big); err != nil {
		t.Fatal(err)
	}
	got, err := s.Deployment(t.Context(), stack, big.ID)
	if err != nil || got.App.Description != big.App.Description {
		t.Fatal("big app is not read back", err)
	}
}

func TestSetCurrent_LetsOneOfTheRacersWin(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	a, b := put(t, s, stack, "a"), put(t, s, stack, "b")
	_, err := s.Current(t.Context(), stack)
	want(t, err, errs.NotFound)
	_, err = s.SetCurrent(t.Context(), stack, a.ID, 7)
	want(t, err, errs.Conflict)
	_, err = s.SetCurrent(t.Context(), stack, "none", 0)
	want(t, err, errs.NotFound)
	p, err := s.SetCurrent(t.Context(), stack, a.ID, 0)
	if err != nil || p.Deployment != a.ID || p.Previous != "" || p.Seq == 0 {
		t.Fatal(p, err)
	}
	_, err = s.SetCurrent(t.Context(), stack, b.ID, 0)
	want(t, err, errs.Conflict)
	for range 20 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []state.Pointer
		for range 8 {
			wg.Go(func() {
				q, err := s.SetCurrent(t.Context(), stack, b.ID, p.Seq)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, q)
				} else if errs.CodeOf(err) != errs.Conflict {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d winners", len(won))
		}
		p = won[0]
		cur, err := s.Current(t.Context(), stack)
		if err != nil || cur != p || p.Previous != a.ID {
			t.Fatalf("current %+v, won %+v, %v", cur, p, err)
		}
	}
}

func TestHistory_IsBoundedAndNewestFirst(t *testing.T) {
	t.Parallel()
	// A clock that runs backwards must not turn the history round.
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s, _ := openIn(t, t.TempDir(), state.Options{History: 3, Now: func() time.Time { now = now.Add(-time.Hour); return now }})
	var p state.Pointer
	var ids []string
	for i := range 6 {
		d := put(t, s, stack, fmt.Sprint(i))
		ids = append(ids, d.ID)
		var err error
		if p, err = s.SetCurrent(t.Context(), stack, d.ID, p.Seq); err != nil {
			t.Fatal(err)
		}
	}
	// Back to the oldest that is left: it and the one before stay, whatever comes after.
	if _, err := s.SetCurrent(t.Context(), stack, ids[0], p.Seq); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("rolled back to a removed deployment: %v", err)
	}
	p, err := s.SetCurrent(t.Context(), stack, ids[3], p.Seq)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		put(t, s, stack, fmt.Sprint("later", i))
	}
	if _, err = s.SetCurrent(t.Context(), stack, ids[3], p.Seq); err != nil {
		t.Fatal(err)
	}
	h, err := s.History(t.Context(), stack)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range h {
		got = append(got, fmt.Sprintf("%s %s %d %t", e.Message, e.By, e.Functions, e.Current))
	}
	if want := []string{"later3 ann 1 false", "later2 ann 1 false", "later1 ann 1 false", "5 ann 1 false", "3 ann 1 true"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	arts, err := s.Artifacts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sha256:code-3", "sha256:code-5", "sha256:code-later1", "sha256:layer", "sha256:sdk"} {
		if !arts[a] {
			t.Errorf("artifact %s is not listed", a)
		}
	}
	if arts["sha256:code-4"] || arts["sha256:code-later0"] || len(arts) != 7 {
		t.Errorf("artifacts %v", arts)
	}
}

func TestRemove_LeavesNothingAndAllowsAnew(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	other := state.StackKey{Tenant: "default", App: "shop", Stage: "dev2"}
	for _, k := range []state.StackKey{stack, other} {
		d := put(t, s, k, "x")
		if _, err := s.SetCurrent(t.Context(), k, d.ID, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(t.Context(), stack); err != nil {
		t.Fatal(err)
	}
	want(t, s.Remove(t.Context(), stack), errs.NotFound)
	_, err := s.Current(t.Context(), stack)
	want(t, err, errs.NotFound)
	if h, err := s.History(t.Context(), stack); err != nil || len(h) != 0 {
		t.Error(h, err)
	}
	if h, err := s.History(t.Context(), other); err != nil || len(h) != 1 {
		t.Error(h, err)
	}
	kv, err := c.JetStream().KeyValue(t.Context(), "ebb_state")
	if err != nil {
		t.Fatal(err)
	}
	if keys, _ := kv.Keys(t.Context()); len(keys) != 3 {
		t.Errorf("left: %v", keys)
	}
	d := put(t, s, stack, "again")
	if _, err := s.SetCurrent(t.Context(), stack, d.ID, 0); err != nil {
		t.Error(err)
	}
	// A stack that was put but never made current can be removed too.
	third := state.StackKey{Tenant: "default", App: "third", Stage: "dev"}
	put(t, s, third, "x")
	if err := s.Remove(t.Context(), third); err != nil {
		t.Error(err)
	}
}

func TestStackKey_TakesAnyName(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	keys := []state.StackKey{
		{"default", "a.b", "c"}, {"default", "a", "b.c"}, {"default", "*", ">"}, {"default", "=2a", "x y"},
		{"t 2", "ünï", "$LATEST"}, {"default", "a", "\n"},
	}
	for _, k := range keys {
		d := put(t, s, k, "m")
		if _, err := s.SetCurrent(t.Context(), k, d.ID, 0); err != nil {
			t.Fatal(k, err)
		}
	}
	got, err := s.Stacks(t.Context())
	if err != nil || len(got) != len(keys) {
		t.Fatal(got, err)
	}
	for _, k := range keys {
		if !slices.Contains(got, k) {
			t.Errorf("%q is missing", k)
		}
		if h, err := s.History(t.Context(), k); err != nil || len(h) != 1 {
			t.Errorf("%q: %v, %v", k, h, err)
		}
	}
	kv, err := c.JetStream().KeyValue(t.Context(), "ebb_state")
	if err != nil {
		t.Fatal(err)
	}
	all, err := kv.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		if !strings.HasPrefix(k, "default.") && !strings.HasPrefix(k, "t=202.") {
			t.Errorf("key %q does not start with its tenant", k)
		}
	}
}

func TestStore_SealsWhatMayBeSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, c := openIn(t, dir, state.Options{})
	d := put(t, s, stack, "m")
	if _, err := s.SetCurrent(t.Context(), stack, d.ID, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var all []byte
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all = append(all, data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(all, []byte("sha256:code-m")) {
		t.Error("the digests are not in clear; this test reads the wrong files")
	}
	for _, secret := range []string{"hunter2", "PASSWORD", "h.main", "nodejs22.x"} {
		if bytes.Contains(all, []byte(secret)) {
			t.Errorf("%q is on disk in clear", secret)
		}
	}
}

func TestOpen_RefusesAnotherKey(t *testing.T) {
	t.Parallel()
	_, c := open(t)
	_, err := state.Open(t.Context(), c.JetStream(), state.Options{Key: bytes.Repeat([]byte("x"), 32)})
	want(t, err, errs.Forbidden)
	if errs.HintOf(err) == "" {
		t.Error("no hint")
	}
	_, err = state.Open(t.Context(), c.JetStream(), state.Options{Key: []byte("short")})
	want(t, err, errs.Invalid)
}

func TestOpen_RefusesANewerBucket(t *testing.T) {
	t.Parallel()
	_, c := open(t)
	js := c.JetStream()
	st, err := js.Stream(t.Context(), "KV_ebb_state")
	if err != nil {
		t.Fatal(err)
	}
	for version, code := range map[string]errs.Code{"2": errs.Unsupported, "": errs.Failed} {
		cfg := st.CachedInfo().Config
		cfg.Metadata["ebb.format"] = version
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		_, err = state.Open(t.Context(), js, state.Options{Key: testKey})
		want(t, err, code)
		if errs.HintOf(err) == "" {
			t.Error("no hint")
		}
	}
}

func TestDeployment_RefusesAChangedRecord(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	a, b := put(t, s, stack, "a"), put(t, s, stack, "b")
	p, err := s.SetCurrent(t.Context(), stack, a.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := c.JetStream().KeyValue(t.Context(), "ebb_state")
	if err != nil {
		t.Fatal(err)
	}
	key := "default.deployment.shop.dev." + b.ID
	e, err := kv.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	ea, err := kv.Get(t.Context(), "default.deployment.shop.dev."+a.ID)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) []byte { v := bytes.Clone(e.Value()); v[i] ^= 1; return v }
	for name, c := range map[string]struct {
		data []byte
		code errs.Code
	}{
		"last byte":          {flip(len(e.Value()) - 1), errs.Failed},
		"cut":                {e.Value()[:len(e.Value())/2], errs.Failed},
		"empty":              {nil, errs.Failed},
		"another record":     {ea.Value(), errs.Failed},
		"head changed":       {bytes.Replace(e.Value(), []byte(`"created":"20`), []byte(`"created":"21`), 1), errs.Failed},
		"newer":              {bytes.Replace(e.Value(), []byte(`"format":1`), []byte(`"format":2`), 1), errs.Unsupported},
		"only a head":        {e.Value()[:bytes.IndexByte(e.Value(), '\n')+1], errs.Failed},
		"format is negative": {bytes.Replace(e.Value(), []byte(`"format":1`), []byte(`"format":-1`), 1), errs.Failed},
	} {
		if _, err := kv.Put(t.Context(), key, c.data); err != nil {
			t.Fatal(err)
		}
		d, err := s.Deployment(t.Context(), stack, b.ID)
		if errs.CodeOf(err) != c.code || d != nil || errs.HintOf(err) == "" {
			t.Errorf("%s: %v, %v", name, d, err)
		}
		if _, err := s.SetCurrent(t.Context(), stack, b.ID, p.Seq); errs.CodeOf(err) != c.code {
			t.Errorf("%s: became current: %v", name, err)
		}
	}
	if cur, err := s.Current(t.Context(), stack); err != nil || cur != p {
		t.Errorf("current %+v, %v", cur, err)
	}
	// A record whose summary was never written is no deployment.
	if _, err := kv.Put(t.Context(), key, e.Value()); err != nil {
		t.Fatal(err)
	}
	if err := kv.Purge(t.Context(), "default.summary.shop.dev."+b.ID); err != nil {
		t.Fatal(err)
	}
	_, err = s.SetCurrent(t.Context(), stack, b.ID, p.Seq)
	want(t, err, errs.NotFound)
}
