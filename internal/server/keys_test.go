package server_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/server"
)

// openRemote is a Node that is reached over TLS too.
func openRemote(t *testing.T, dir string) *node {
	t.Helper()
	n := &node{log: &lockedBuffer{}, dir: dir}
	o := options(t, dir, n.log)
	o.Config.TLSOwn = true
	s, err := server.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	n.Server, n.client = s, api.NewClient(s.APIURL(), s.Token())
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	n.stop = sync.OnceValue(func() error {
		cancel()
		n.client.CloseIdle()
		return errors.Join(<-ran, s.Close())
	})
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return n
}

func (n *node) key(t *testing.T, r api.KeyRequest) *api.NewKey {
	t.Helper()
	k, err := n.client.CreateKey(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (n *node) as(t *testing.T, key string) *api.Client {
	t.Helper()
	s, err := identity.ParseSecret(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := api.NewRemoteClient(api.Remote{URL: n.RemoteURL(), Key: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func TestKeys_LiveAsLongAsTheyShould(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := openRemote(t, dir)
	life := 90 * 24 * time.Hour
	k := n.key(t, api.KeyRequest{Name: "ci", Role: "deploy", App: "shop", Life: life, By: "ann"})
	info, err := n.as(t, k.Key).Info(t.Context())
	if err != nil || info.Caller == nil || *info.Caller != (api.Caller{Key: k.ID, Name: "ci", Role: "deploy", App: "shop"}) {
		t.Fatal(info, err)
	}
	next, err := n.client.RotateKey(t.Context(), k.ID, time.Hour, "bob")
	if err != nil || next.Replaces != k.ID || next.Name != "ci" || next.App != "shop" || next.Role != "deploy" || next.By != "bob" ||
		next.Expires.Sub(next.Created) != life {
		t.Fatalf("rotated: %+v %v", next, err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = openRemote(t, dir)
	list, err := n.client.Keys(t.Context())
	if err != nil || len(list) != 2 || list[0].Used == nil || list[0].Ended != "" || time.Until(*list[0].Expires) > time.Hour {
		t.Fatalf("listed: %+v %v", list, err)
	}
	for _, key := range []string{k.Key, next.Key} {
		if _, err := n.as(t, key).Info(t.Context()); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
	if _, err := n.client.RotateKey(t.Context(), k.ID, 0, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := n.as(t, k.Key).Info(t.Context()); errs.CodeOf(err) != errs.Unauthenticated || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("rotated without overlap: %v", err)
	}
	for name, f := range map[string]func() error{
		"rotate what has ended": func() error { _, err := n.client.RotateKey(t.Context(), k.ID, 0, ""); return err },
		"revoke by name":        func() error { return n.client.RevokeKey(t.Context(), "ci") },
		"revoke unknown":        func() error { return n.client.RevokeKey(t.Context(), "nothing") },
		"rotate the token":      func() error { _, err := n.client.RotateKey(t.Context(), "self", 0, ""); return err },
	} {
		if err := f(); err == nil || errs.HintOf(err) == "" || errs.CodeOf(err) == errs.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := n.client.RevokeKey(t.Context(), next.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := n.as(t, next.Key).Info(t.Context()); errs.CodeOf(err) != errs.Unauthenticated {
		t.Errorf("revoked: %v", err)
	}
}

func TestKeys_RefusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()
	n := openRemote(t, t.TempDir())
	for name, r := range map[string]api.KeyRequest{
		"no name": {Role: "read"}, "blank name": {Name: "  ", Role: "read"}, "two lines": {Name: "a\nb", Role: "read"},
		"long name": {Name: strings.Repeat("x", 101), Role: "read"}, "no role": {Name: "x"}, "unknown role": {Name: "x", Role: "root"},
		"admin of an app": {Name: "x", Role: "admin", App: "shop"}, "over already": {Name: "x", Role: "read", Life: -1},
	} {
		if k, err := n.client.CreateKey(t.Context(), r); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %+v %v", name, k, err)
		}
	}
	if list, err := n.client.Keys(t.Context()); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

func TestKeys_WrongOnesAreLoggedAndBoundedAndTheRightOnePasses(t *testing.T) {
	t.Parallel()
	n := openRemote(t, t.TempDir())
	k := n.key(t, api.KeyRequest{Name: "ci", Role: "read"})
	right := n.as(t, k.Key)
	wrongKey := identity.NewSecret(k.Key[strings.LastIndex(k.Key, ".")+1:])
	wrong := n.as(t, wrongKey.Text())
	codes := map[errs.Code]int{}
	for range 40 {
		_, err := wrong.Info(t.Context())
		codes[errs.CodeOf(err)]++
	}
	if codes[errs.Unauthenticated] < 10 || codes[errs.Throttled] < 20 || len(codes) != 2 {
		t.Errorf("answers: %v", codes)
	}
	if _, err := right.Info(t.Context()); err != nil {
		t.Errorf("the right key: %v", err)
	}
	log := n.log.String()
	if lines := strings.Count(log, "authentication failed"); lines != codes[errs.Unauthenticated] {
		t.Errorf("%d lines for %d refusals", lines, codes[errs.Unauthenticated])
	}
	for _, key := range []string{k.Key, wrongKey.Text()} {
		if strings.Contains(log, strings.Split(key, ".")[2]) {
			t.Error("a key is in the log")
		}
	}
}

func TestDoors_EachTakesItsOwnProofOnly(t *testing.T) {
	t.Parallel()
	n := openRemote(t, t.TempDir())
	k := n.key(t, api.KeyRequest{Name: "boss", Role: "admin"})
	secret, err := identity.ParseSecret(k.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.NewClient(n.APIURL(), identity.Token(secret.Bearer())).Info(t.Context()); errs.CodeOf(err) != errs.Unauthenticated || !strings.Contains(errs.HintOf(err), "https://") {
		t.Errorf("a key at the machine's own door: %v", err)
	}
	req, err := http.NewRequest("GET", "https://x/v1/info", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+string(n.Token()))
	if p, err := n.Authenticate(req); errs.CodeOf(err) != errs.Unauthenticated {
		t.Errorf("the token at the other door: %+v %v", p, err)
	}
}
