package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
)

func TestEnsureToken_IsMadeOnceAndOnlyForItsOwner(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	var wg sync.WaitGroup
	got := make([]identity.Token, 8)
	for i := range got {
		wg.Go(func() {
			tok, err := identity.EnsureToken(path)
			if err != nil {
				t.Error(err)
			}
			got[i] = tok
		})
	}
	wg.Wait()
	for _, tok := range got {
		if tok == "" || tok != got[0] {
			t.Fatalf("tokens differ: %q", got)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.ReadToken(path); errs.CodeOf(err) != errs.Forbidden || !strings.Contains(errs.HintOf(err), "chmod 600") {
		t.Errorf("a readable token file gives %v", err)
	}
}

func TestReadToken_RefusesDamage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.EnsureToken(path); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("a damaged token file gives %v", err)
	}
}

func TestToken_MatchesOnlyItself(t *testing.T) {
	t.Parallel()
	tok := identity.Token("abc")
	for header, want := range map[string]bool{"Bearer abc": true, "Bearer abcd": false, "abc": false, "": false, "bearer abc": false} {
		if tok.Matches(header) != want {
			t.Errorf("Matches(%q) = %v", header, !want)
		}
	}
	if identity.Token("").Matches("Bearer ") {
		t.Error("an empty token matches")
	}
}
