package invocation

import (
	"context"
	"errors"
	"testing"
	"time"
)

// ended is the least context that an Ending makes.
type ended struct{ Ending }

func (*ended) Deadline() (time.Time, bool) { return time.Time{}, false }
func (*ended) Value(any) any               { return nil }

func TestEnding_TellsAllWhoAsked(t *testing.T) {
	t.Parallel()
	var e ended
	why := errors.New("why")
	called := make(chan int, 4)
	done := e.Done()
	for i := range 3 {
		AfterFunc(&e, func() { called <- i })
	}
	child, cancel := context.WithCancel(&e)
	defer cancel()
	if e.Err() != nil || child.Err() != nil {
		t.Fatal("it has ended before its end")
	}
	e.End(why)
	e.End(errors.New("later"))
	<-done
	<-e.Done()
	<-child.Done()
	got := map[int]bool{<-called: true, <-called: true, <-called: true}
	if len(got) != 3 || !errors.Is(e.Err(), why) || !errors.Is(child.Err(), why) {
		t.Errorf("called %v, ended with %v, its child with %v", got, e.Err(), child.Err())
	}
	if stop := AfterFunc(&e, func() { called <- 3 }); stop() {
		t.Error("what comes after the end can be stopped")
	}
	if i := <-called; i != 3 {
		t.Errorf("%d was called twice", i)
	}
}

func TestEnding_CallsNothingThatWasStopped(t *testing.T) {
	t.Parallel()
	var e ended
	called := make(chan int, 3)
	var stops []func() bool
	for i := range 3 {
		stops = append(stops, e.AfterFunc(func() { called <- i }))
	}
	for _, i := range []int{0, 2} {
		if !stops[i]() || stops[i]() {
			t.Errorf("%d: a stop says whether it was the one that stopped", i)
		}
	}
	e.End(context.Canceled)
	if i := <-called; i != 1 || stops[1]() {
		t.Errorf("%d was called", i)
	}
	if len(called) > 0 {
		t.Errorf("%d was called too", <-called)
	}
}
