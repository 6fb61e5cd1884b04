package gateway

import (
	"context"
	"testing"
)

func TestLeashes_EndThoseThatAreHeld(t *testing.T) {
	t.Parallel()
	for _, gone := range [][]int{{}, {0}, {1}, {2}, {0, 1}, {2, 1}, {1, 0, 2}} {
		var all leashes
		l := make([]leash, 3)
		for i := range l {
			all.add(&l[i])
		}
		for _, i := range gone {
			l[i].release()
		}
		held := 0
		for x := all.mu.first; x != nil; x = x.next {
			held++
			if x.Err() != nil {
				t.Errorf("%v released: one that is held has ended", gone)
			}
		}
		if held != len(l)-len(gone) {
			t.Errorf("%v released: %d are held", gone, held)
		}
		all.end()
		for i := range l {
			if l[i].Err() != context.Canceled {
				t.Errorf("%v released: %d has not ended", gone, i)
			}
		}
		var late leash
		if all.add(&late); late.Err() != context.Canceled {
			t.Error("one that begins after the end has not ended")
		}
		late.release()
	}
}
