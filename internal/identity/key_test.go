package identity_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
)

var day = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func keyOf(s identity.Secret) identity.Key {
	return identity.Key{ID: s.ID, Name: "ci", Role: identity.Deploy, Hash: s.Hash(), Created: day}
}

func TestSecret_IsReadBackAndNeverPrinted(t *testing.T) {
	t.Parallel()
	fp := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for _, fingerprint := range []string{"", fp} {
		s := identity.NewSecret(fingerprint)
		got, err := identity.ParseSecret(s.Text() + "\n")
		if err != nil || got != s || got.Fingerprint != fingerprint {
			t.Fatalf("%q became %q: %v", s.Text(), got.Text(), err)
		}
		for _, f := range []string{"%v", "%s", "%+v", "%#v", "%q"} {
			if text := fmt.Sprintf(f, s); strings.Contains(text, strings.Split(s.Text(), ".")[2]) {
				t.Errorf("%s prints %s", f, text)
			}
		}
		if strings.Contains(s.Bearer(), fp) {
			t.Error("the fingerprint is sent")
		}
	}
}

func TestSecret_RefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	s := identity.NewSecret("")
	for name, text := range map[string]string{
		"empty": "", "prefix alone": "ebb1.", "cut": s.Text()[:len(s.Text())-1], "longer": s.Text() + "A", "another prefix": "ebb2" + s.Text()[4:],
		"capital id": "ebb1." + strings.ToUpper(s.ID) + s.Text()[5+len(s.ID):] + "", "a fingerprint that is none": s.Text() + ".abc", "four parts": s.Text() + "..", "a token": "dG9rZW4",
	} {
		if strings.ToUpper(s.ID) == s.ID && name == "capital id" {
			continue
		}
		if got, err := identity.ParseSecret(text); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %q was read as %v", name, text, got)
		}
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add("ebb1.a.b.c")
	f.Add(identity.NewSecret("").Text())
	f.Fuzz(func(t *testing.T, text string) {
		s, err := identity.ParseSecret(text)
		if err == nil && s.Text() != strings.TrimSpace(text) {
			t.Errorf("%q is also written %q", text, s.Text())
		}
	})
}

func TestRing_LetsInWhoHasALiveKey(t *testing.T) {
	t.Parallel()
	now := day
	r := identity.NewRing(func() time.Time { return now })
	good, expired, revoked, stranger := identity.NewSecret(""), identity.NewSecret(""), identity.NewSecret(""), identity.NewSecret("")
	r.Set(keyOf(good), 1)
	k := keyOf(expired)
	k.Expires = day
	r.Set(k, 2)
	k = keyOf(revoked)
	k.Revoked = day
	r.Set(k, 3)
	noHash := identity.NewSecret("")
	k = keyOf(noHash)
	k.Hash = nil
	r.Set(k, 4)
	mixed := "Bearer " + strings.Replace(stranger.Bearer(), stranger.ID, good.ID, 1)
	for name, c := range map[string]struct{ authorization, want string }{
		"good": {"Bearer " + good.Bearer(), ""}, "expired": {"Bearer " + expired.Bearer(), "expired at 2026-01-02"},
		"revoked": {"Bearer " + revoked.Bearer(), "was revoked at 2026-01-02"}, "stranger": {"Bearer " + stranger.Bearer(), "does not know the key"},
		"another's secret": {mixed, "does not know the key"}, "none": {"", "carries no key"}, "basic": {"Basic YTpi", "carries no key"},
		"damaged record": {"Bearer " + noHash.Bearer(), "does not know the key"}, "empty": {"Bearer ", "does not know the key"},
		"revoked, another's secret": {strings.Replace(mixed, good.ID, revoked.ID, 1), "does not know the key"},
	} {
		p, _, err := r.Authenticate(c.authorization)
		if c.want == "" {
			if err != nil || p != (identity.Principal{Key: good.ID, Name: "ci", Role: identity.Deploy}) {
				t.Errorf("%s: %+v %v", name, p, err)
			}
		} else if errs.CodeOf(err) != errs.Unauthenticated || !strings.Contains(err.Error(), c.want) || p != (identity.Principal{}) || errs.HintOf(err) == "" {
			t.Errorf("%s: %+v %v", name, p, err)
		}
	}
}

func TestRing_AnOlderRecordNeverUndoesARevocation(t *testing.T) {
	t.Parallel()
	r := identity.NewRing(func() time.Time { return day })
	s := identity.NewSecret("")
	k := keyOf(s)
	gone := k
	gone.Revoked = day
	r.Set(gone, 8)
	r.Set(k, 7)
	r.Set(k, 8)
	if _, _, err := r.Authenticate("Bearer " + s.Bearer()); err == nil {
		t.Error("a revoked key opens")
	}
}

func TestRing_TellsTheFirstUseOfAnHour(t *testing.T) {
	t.Parallel()
	now := day
	r := identity.NewRing(func() time.Time { return now })
	s := identity.NewSecret("")
	r.Set(keyOf(s), 1)
	for i, want := range []bool{true, false, true, false} {
		if i == 2 {
			now = now.Add(time.Hour)
		}
		if _, first, err := r.Authenticate("Bearer " + s.Bearer()); err != nil || first != want {
			t.Errorf("use %d: first %v, %v", i, first, err)
		}
	}
	if _, used := r.List(); used[s.ID].IsZero() {
		t.Error("the use is not listed")
	}
}

func TestPermissions_EachRoleMayWhatTheTableSays(t *testing.T) {
	t.Parallel()
	all := map[identity.Role]string{
		identity.Admin:  "audit backup deploy events export history import info invocations invoke keys logs metrics publish remove replay rollback stacks subscribe upload",
		identity.Deploy: "deploy events history info invocations invoke logs metrics publish remove replay rollback stacks subscribe upload",
		identity.Invoke: "info invocations invoke publish",
		identity.Read:   "events history info invocations logs metrics stacks",
	}
	for _, role := range identity.Roles() {
		for op := range identity.Permissions() {
			may := identity.Principal{Role: role}.May(op) == nil
			if want := strings.Contains(" "+all[role]+" ", " "+string(op)+" "); may != want {
				t.Errorf("%s may %s: %v", role, op, may)
			}
		}
		if (identity.Principal{Role: role}).May("unheard-of") == nil {
			t.Errorf("%s may do what has no row", role)
		}
	}
	if (identity.Principal{}).May(identity.OpInfo) == nil {
		t.Error("nobody may ask")
	}
}

func TestThrottle_BoundsFailuresOfOneSourceAlone(t *testing.T) {
	t.Parallel()
	now := day
	th := identity.NewThrottle(func() time.Time { return now })
	within := func(remote string, n int) (ok int) {
		for range n {
			if _, fine := th.Failed(remote); fine {
				ok++
			}
		}
		return ok
	}
	if n := within("192.0.2.1:1000", 50); n != 10 {
		t.Errorf("%d of 50", n)
	}
	if wait, ok := th.Failed("192.0.2.1:1001"); ok || wait <= 0 || wait > 6*time.Second {
		t.Error(wait, ok)
	}
	if n := within("192.0.2.2:1000", 5); n != 5 {
		t.Errorf("another source: %d of 5", n)
	}
	if n := within("[2001:db8::1]:5", 8) + within("[2001:db8::2]:5", 8); n != 10 {
		t.Errorf("two addresses of a network: %d of 16", n)
	}
	now = now.Add(12 * time.Second)
	if n := within("192.0.2.1:1000", 5); n != 2 {
		t.Errorf("after 12 s: %d of 5", n)
	}
	for i := range 30_000 {
		th.Failed(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
	}
	if n := within("10.0.117.47:1", 20); n > 10 {
		t.Errorf("a source among many: %d of 20", n)
	}
}
