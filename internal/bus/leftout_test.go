package bus_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
)

// A block that the server left out of a consumer is noticed; one that is in the log no more holds nothing up.
func TestLog_NoticesBlocksThatDidNotCome(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Partitions: 1})
	for _, id := range []string{"a", "b", "c"} {
		w.publish(t, newEvent(id))
	}
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		next, seq, purged uint64
		want              errs.Code
	}{{1, 1, 0, ""}, {3, 3, 0, ""}, {1, 2, 0, errs.Unavailable}, {1, 4, 0, errs.Unavailable}, {1, 4, 3, errs.Unavailable}, {1, 4, 4, ""}} {
		if err := bus.LeftOut(t.Context(), w.Bus, c.next, c.seq, c.purged); errs.CodeOf(err) != c.want {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}
