package state_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/state"
)

func newKey(name string) identity.Key {
	s := identity.NewSecret("")
	return identity.Key{ID: s.ID, Name: name, Role: identity.Deploy, App: "shop", Hash: s.Hash(), Created: goldenTime, By: "ann"}
}

func keysOf(t *testing.T, s *state.Store) (map[string]state.KeyChange, int) {
	t.Helper()
	got, bad := map[string]state.KeyChange{}, 0
	err := s.Keys(t.Context(), "default", func(c state.KeyChange) {
		was := got[c.ID]
		if c.Key != nil {
			was.Key, was.Seq = c.Key, c.Seq
		} else {
			was.Used = c.Used
		}
		got[c.ID] = was
	}, func(error) { bad++ })
	if err != nil {
		t.Fatal(err)
	}
	return got, bad
}

func TestKeys_AreReadBackAfterAReopen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nats")
	s, c := openIn(t, dir, state.Options{})
	k := newKey("ci")
	seq, err := s.PutKey(t.Context(), "default", k, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutKey(t.Context(), "default", k, 0); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second time: %v", err)
	}
	k.Revoked = goldenTime
	if _, err := s.PutKey(t.Context(), "default", k, seq+7); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("over another state: %v", err)
	}
	if _, err := s.PutKey(t.Context(), "default", k, seq); err != nil {
		t.Fatal(err)
	}
	if err := s.UseKey(t.Context(), "default", k.ID, goldenTime); err != nil {
		t.Fatal(err)
	}
	if stacks, err := s.Stacks(t.Context()); err != nil || len(stacks) != 0 {
		t.Error("a key is taken for a stack", stacks, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = openIn(t, dir, state.Options{})
	got, bad := keysOf(t, s)
	g := got[k.ID]
	if bad != 0 || len(got) != 1 || g.Key == nil || g.Key.Name != "ci" || g.Key.App != "shop" || !g.Key.Revoked.Equal(goldenTime) ||
		string(g.Key.Hash) != string(k.Hash) || !g.Used.Equal(goldenTime) {
		t.Errorf("got %+v, %d bad", g, bad)
	}
}

func TestKeys_AForgedMovedOrNewerRecordOpensNothing(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	k := newKey("ci")
	if _, err := s.PutKey(t.Context(), "default", k, 0); err != nil {
		t.Fatal(err)
	}
	kv := bucket(t, c)
	e, err := kv.Get(t.Context(), "default.key."+k.ID)
	if err != nil {
		t.Fatal(err)
	}
	cut := append([]byte(nil), e.Value()...)
	cut[len(cut)-1] ^= 1
	for at, data := range map[string][]byte{
		"default.key.moved": e.Value(), "default.key.clear": []byte(`{"format":1}` + "\n" + `{"id":"clear","role":"admin"}`),
		"default.key.newer": []byte(`{"format":2}` + "\nabcdefghijklmnop"), "default.key.empty": nil, "default.key.cut": cut,
	} {
		if _, err := kv.Put(t.Context(), at, data); err != nil {
			t.Fatal(err)
		}
	}
	got, bad := keysOf(t, s)
	if len(got) != 1 || got[k.ID].Key == nil || bad != 5 {
		t.Errorf("got %v, %d bad", got, bad)
	}
}

func bucket(t *testing.T, c *nats.Conn) jetstream.KeyValue {
	t.Helper()
	kv, err := c.JetStream().KeyValue(t.Context(), "ebb_state")
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestWatchKeys_TellsOfEveryChange(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	k := newKey("ci")
	seq, err := s.PutKey(t.Context(), "default", k, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	told, done := make(chan state.KeyChange, 4), make(chan error, 1)
	go func() {
		done <- s.WatchKeys(ctx, "default", func(c state.KeyChange) { told <- c }, func(err error) { t.Error(err) })
	}()
	if c := <-told; c.Seq != seq || !c.Key.Revoked.IsZero() {
		t.Errorf("first %+v", c)
	}
	k.Revoked = goldenTime
	next, err := s.PutKey(t.Context(), "default", k, seq)
	if err != nil {
		t.Fatal(err)
	}
	if c := <-told; c.Seq != next || c.Key.Revoked.IsZero() {
		t.Errorf("then %+v", c)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
