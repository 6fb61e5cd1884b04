package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

func TestMissing_IsWhatTheResolverKnowsNot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		mode  Mode
		allow string
		host  string
		err   error
		want  bool
		asked string
	}{
		{name: "it exists", mode: Anything, host: "a.example", asked: "a.example."},
		{name: "it does not", mode: Anything, host: "A.Example.", err: &net.DNSError{IsNotFound: true}, want: true, asked: "a.example."},
		{name: "a short one", mode: Anything, host: "db", err: &net.DNSError{IsNotFound: true}, want: true, asked: "db"},
		{name: "the resolver fails", mode: Anything, host: "a.example", err: &net.DNSError{IsTemporary: true}, asked: "a.example."},
		{name: "there is no resolver", mode: Anything, host: "a.example", err: errors.New("connection refused"), asked: "a.example."},
		{name: "an address", mode: Anything, host: "192.0.2.1", err: &net.DNSError{IsNotFound: true}},
		{name: "nonsense", mode: Anything, host: "0x7f.1", err: &net.DNSError{IsNotFound: true}},
		{name: "in the list", mode: AllowList, allow: "a.example:443", host: "a.example", err: &net.DNSError{IsNotFound: true}, want: true, asked: "a.example."},
		{name: "by wildcard", mode: AllowList, allow: "*.example:443", host: "a.example", err: &net.DNSError{IsNotFound: true}, want: true, asked: "a.example."},
		{name: "not in the list", mode: AllowList, allow: "b.example:443", host: "a.example", err: &net.DNSError{IsNotFound: true}},
		{name: "by a network alone", mode: AllowList, allow: "10.0.0.0/8:443", host: "secret.attacker.example", err: &net.DNSError{IsNotFound: true}},
		{name: "closed", mode: Closed, host: "a.example", err: &net.DNSError{IsNotFound: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var allow []string
			if c.allow != "" {
				allow = []string{c.allow}
			}
			p, asked := policy(t, c.mode, allow...), []string{}
			e := New(Options{Policy: func(string) Policy { return p }, Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
				asked = append(asked, name)
				return nil, c.err
			}})
			for range 3 { // the second and third are remembered
				if got := e.Missing(t.Context(), sandbox.Destination{Owner: "o", Host: c.host}); got != c.want {
					t.Errorf("missing: %v", got)
				}
			}
			if got := strings.Join(asked, " "); got != c.asked {
				t.Errorf("asked the resolver for %q, want %q", got, c.asked)
			}
		})
	}
}

func TestMissing_IsAskedAnewAndBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var err error = &net.DNSError{IsNotFound: true}
		asked := 0
		e := New(Options{Policy: func(string) Policy { return policy(t, Anything) }, Resolve: func(ctx context.Context, name string) ([]netip.Addr, error) {
			asked++
			if name == "slow.example." {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, err
		}})
		d := sandbox.Destination{Host: "new.example"}
		if !e.Missing(t.Context(), d) {
			t.Error("a missing name is there")
		}
		err = nil
		if !e.Missing(t.Context(), d) || asked != 1 {
			t.Error("it was asked for again at once")
		}
		time.Sleep(missingFor)
		if e.Missing(t.Context(), d) || asked != 2 {
			t.Error("a name that was made stays missing")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		for range 5 {
			if e.Missing(ctx, sandbox.Destination{Host: "slow.example"}) {
				t.Error("a name that nobody answers for is missing")
			}
		}
		if took := time.Since(began); took != time.Second || asked != 3 {
			t.Errorf("a slow resolver held up for %v and was asked %d times", took, asked-2)
		}
		for i := range 3 * proofs {
			e.Missing(t.Context(), sandbox.Destination{Host: fmt.Sprintf("h%d.example", i)})
		}
		if n := len(e.proofs.mu.known); n > proofs {
			t.Errorf("%d names are kept", n)
		}
		if _, err := e.Dial(t.Context(), sandbox.Destination{Host: "h1.example", Port: 80}); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("Dial: %v", err)
		}
	})
}
