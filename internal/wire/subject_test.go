package wire_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/wire"
)

func TestMember_IsTheFirstThatIsThere(t *testing.T) {
	t.Parallel()
	text := "p"
	in := &struct {
		A string
		B int
		C *string
	}{B: 1, C: &text}
	for _, c := range []struct {
		in    any
		names []string
		want  string
	}{{in, []string{"A", "C"}, "p"}, {in, []string{"B", "None"}, ""}, {nil, []string{"A"}, ""}, {"x", []string{"A"}, ""}} {
		if got := wire.Member(c.in, c.names...); got != c.want {
			t.Errorf("%v: got %q", c.names, got)
		}
	}
}
