package bus_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

func on(e *event.Event, channel, subject string) *event.Event {
	e.SetExtension(bus.Channel, channel)
	e.Subject = subject
	return e
}

func TestChannel_SeparatesEventsAndTheirDuplicates(t *testing.T) {
	t.Parallel()
	var r target
	w := start(t, t.TempDir(), bus.Options{Deliver: &r})
	w.subscribe(t, bus.Subscription{Name: "plain"})
	w.subscribe(t, bus.Subscription{Name: "one", Channel: "one"})
	w.subscribe(t, bus.Subscription{Name: "one-a", Channel: "one", Subject: "a"})
	w.subscribe(t, bus.Subscription{Name: "two-a", Channel: "two", Subject: "a"})
	w.publish(t, newEvent("x"), on(newEvent("x"), "one", "a"), on(newEvent("x"), "one", "a"), on(newEvent("y"), "one", "b"), on(newEvent("x"), "two", ""), on(newEvent("z"), "three", "a"))
	w.subscribe(t, bus.Subscription{Name: "one-a", Channel: "one", Subject: "c"}) // moves to another subject
	w.publish(t, on(newEvent("k"), "one", "a"), on(newEvent("l"), "one", "c"))
	want := []string{"one k", "one l", "one x", "one y", "one-a l", "one-a x", "plain x"}
	var got []string
	for _, d := range r.wait(t, count(len(want))) {
		got = append(got, d.Subscription+" "+d.Event.ID)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("delivered %v\nwant %v", got, want)
	}
	st, err := w.StatusOfEvent(t.Context(), "one", "/test", "x")
	if err != nil || len(st) != 2 {
		t.Errorf("x on one has deliveries %v, %v; want two", st, err)
	}
}

func TestReplay_KeepsToTheChannel(t *testing.T) {
	t.Parallel()
	var r target
	w := start(t, t.TempDir(), bus.Options{Deliver: &r})
	w.publish(t, newEvent("x"), on(newEvent("y"), "one", "a"), on(newEvent("z"), "one", "b"))
	w.subscribe(t, bus.Subscription{Name: "s", Channel: "one", Subject: "a"})
	if err := w.Sync(t.Context()); err != nil { // a replay asks the index
		t.Fatal(err)
	}
	_, err := w.Replay(t.Context(), bus.Replay{Subscription: "s", From: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	w.publish(t, on(newEvent("last"), "one", "a"))
	until(t, "the replay is over", func() (bool, error) {
		return slices.Contains(ids(r.all()), "y") && slices.Contains(ids(r.all()), "last"), nil
	})
	if got := ids(r.all()); len(got) != 2 {
		t.Errorf("delivered %v, want y and last", got)
	}
}

func TestEnded_PublishesWithTheEnd(t *testing.T) {
	t.Parallel()
	r := target{answer: func(_ context.Context, d *bus.Delivery) error {
		switch {
		case d.Subscription == "work" && d.Event.ID == "bad":
			return errors.New("no")
		case d.Subscription == "work" && d.Event.ID == "refused":
			return errs.New(errs.NotFound, "not here")
		}
		return nil
	}}
	ended := func(d *bus.Delivery, s bus.State, c bus.Cause, last bus.Outcome) []*event.Event {
		if d.Subscription != "work" {
			return nil
		}
		text := ""
		if last.Err != nil {
			text = " " + last.Err.Error()
		}
		too := newEvent("much")
		too.Data = make([]byte, 800<<10) // over the limit: dropped, the rest goes on
		return []*event.Event{too, on(newEvent(d.ID), "ended", d.Event.ID+" "+s.String()+" "+string(c)+text)}
	}
	w := start(t, t.TempDir(), bus.Options{Deliver: &r, Ended: ended})
	w.subscribe(t, bus.Subscription{Name: "work", Channel: "w", Retry: bus.Retry{Attempts: 2, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond}})
	w.subscribe(t, bus.Subscription{Name: "after", Channel: "ended"})
	w.publish(t, on(newEvent("good"), "w", ""), on(newEvent("bad"), "w", ""), on(newEvent("refused"), "w", ""))
	var got []string
	for _, d := range r.wait(t, count(1+2+1+3)) {
		if d.Subscription == "after" {
			got = append(got, d.Event.Subject)
		}
	}
	slices.Sort(got)
	if want := []string{"bad dead exhausted no", "good done ", "refused dead refused not here"}; !slices.Equal(got, want) {
		t.Errorf("published %q\nwant %q", got, want)
	}
}
