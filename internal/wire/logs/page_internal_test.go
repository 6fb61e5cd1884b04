package logs

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire"
)

func callOf(operation string) *wire.Call {
	return &wire.Call{Operation: operation, Region: "us-east-1", Caller: wire.Caller{Account: "1"}}
}

// Pages that follow each other have all events once and in order, whatever the order in which they were read and how large they are.
func TestPage_PagesHaveEveryEventOnce(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var all []found
		for i := range 1 + random.IntN(400) {
			all = append(all, found{
				place:   place{int64(random.IntN(50)), random.IntN(2) == 0, telemetry.Position{Segment: 1 + random.Uint64N(3), Offset: int64(i)}},
				message: strings.Repeat("x", random.IntN(100)*random.IntN(500)),
			})
		}
		want := slices.SortedFunc(slices.Values(all), func(a, b found) int { return a.compare(b.place) })
		for _, back := range []bool{false, true} {
			var got []found
			var last *place
			for {
				p := &page{limit: 1 + random.IntN(100), back: back}
				for _, e := range all {
					if last == nil || !back && e.compare(*last) > 0 || back && e.compare(*last) < 0 {
						p.add(e)
					}
				}
				list := p.sorted()
				if len(list) == 0 {
					break
				}
				if len(list) > p.limit || p.bytes > pageBytes {
					t.Fatalf("a page has %d events of %d, %d bytes", len(list), p.limit, p.bytes)
				}
				if back {
					got, last = append(slices.Clone(list), got...), &list[0].place
				} else {
					got, last = append(got, list...), &list[len(list)-1].place
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("back %v: got %d events of %d", back, len(got), len(want))
			}
		}
	}
}

func TestPlace_IsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, p := range []place{{}, {1795490495194, false, telemetry.Position{Segment: 12, Offset: 34}}, {farthest, true, telemetry.Position{Segment: 1<<64 - 1, Offset: 1<<63 - 1}}} {
		if got, ok := parsePlace(p.String()); !ok || got != p || len(p.String()) != 56 {
			t.Errorf("%+v is %s, and read %+v %v", p, p, got, ok)
		}
	}
	for _, text := range []string{"", "1", strings.Repeat("9", 56), strings.Repeat(" ", 56), strings.Repeat("-", 56)} {
		if got, ok := parsePlace(text); ok {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}
