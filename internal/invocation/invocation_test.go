package invocation_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

func TestRequest_GetIgnoresCaseAndTakesTheLast(t *testing.T) {
	t.Parallel()
	r := &invocation.Request{Header: []invocation.Field{{Name: "X-a", Value: "1"}, {Name: "x-A", Value: "2"}, {Name: "Y", Value: "3"}}}
	if got := r.Get("X-A"); got != "2" {
		t.Errorf("Get = %q, want 2", got)
	}
	if got := r.Get("Z"); got != "" {
		t.Errorf("Get of an absent header = %q", got)
	}
}

func TestBuffer_HoldsItsContract(t *testing.T) {
	t.Parallel()
	b := &invocation.Buffer{Limit: 3}
	if err := b.Start(invocation.Head{Status: 200}); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(invocation.Head{}); err == nil {
		t.Error("a second Start is accepted")
	}
	if n, err := b.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	if _, err := b.Write([]byte("d")); errs.CodeOf(err) != errs.TooLarge {
		t.Errorf("over the limit: %v", err)
	}
	if _, err := b.Upgrade(invocation.Head{}); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("Upgrade: %v", err)
	}
}
