package bus

import (
	"math"
	"testing"
)

func TestDispatch_WaitsForRoomWithoutWakingUp(t *testing.T) {
	t.Parallel()
	l := &lane{sub: &liveSub{id: 1, spec: Subscription{Concurrency: 1}}, running: 1, next: 5}
	d := newDispatcher(&owner{})
	d.lanes[1] = l
	next, err := d.dispatch(t.Context(), 10)
	if err != nil || next != math.MaxInt64 {
		t.Errorf("with no room it is called again at %d (%v), want only when something has ended", next, err)
	}
	if !l.more {
		t.Error("what became due meanwhile is forgotten")
	}
}
