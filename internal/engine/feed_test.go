package engine

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/invocation"
)

// lines is an Observer that keeps Output.
type lines struct {
	silent
	got []string
}

func (l *lines) Output(_ *Unit, _, _ string, _ time.Time, line []byte) {
	l.got = append(l.got, string(line))
}

func TestFeed_LinesDoNotDependOnHowTheyArrive(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var text []byte
		var want []string
		for range 12 {
			n := rnd.IntN(40)
			switch rnd.IntN(6) {
			case 0:
				n = maxLine - 1 + rnd.IntN(3)
			case 1:
				n = 2*maxLine - 1 + rnd.IntN(3)
			}
			line := bytes.Repeat([]byte{'a' + byte(rnd.IntN(26))}, n)
			text = append(append(text, line...), '\n')
			for len(line) > maxLine {
				want = append(want, string(line[:maxLine]))
				line = line[maxLine:]
			}
			want = append(want, string(line))
		}
		l := &lines{}
		f := &feed{obs: l, unit: &Unit{}}
		for rest := text; len(rest) > 0; {
			n := min(1+rnd.IntN(1+rnd.IntN(2*maxLine)), len(rest))
			if k, err := f.Write(rest[:n]); k != n || err != nil {
				t.Fatalf("Write = %d, %v", k, err)
			}
			rest = rest[n:]
		}
		if !slices.Equal(l.got, want) {
			t.Fatalf("seed %d: %d lines, want %d", seed, len(l.got), len(want))
		}
	}
}

func TestFeed_OutputOfSeveralAtOnceIsNobodys(t *testing.T) {
	t.Parallel()
	var got []string
	f := &feed{obs: labels{got: &got}, unit: &Unit{}}
	f.change(Starting)
	f.change(Idle)
	for _, step := range []func(){
		func() { f.begin(&invocation.Invocation{ID: "a"}, true) },
		func() { f.begin(&invocation.Invocation{ID: "b"}, true) },
		func() { f.end("a", &Report{}) },
		func() { f.end("b", &Report{}) },
	} {
		step()
		_, _ = f.Write([]byte("x\n"))
	}
	if want := []string{"a", "", "b", "b"}; !slices.Equal(got, want) {
		t.Errorf("labels %q, want %q", got, want)
	}
}

func TestFeed_OutputAfterAnInvocationIsThatOnes(t *testing.T) {
	t.Parallel()
	var got []string
	f := &feed{obs: labels{got: &got}, unit: &Unit{}}
	f.change(Starting)
	for _, step := range []func(){
		func() {}, // Init
		func() { f.change(Idle) },
		func() { f.begin(&invocation.Invocation{ID: "unseen"}, true) },
		func() { f.end("unseen", nil) }, // another Instance gets it
		func() { f.begin(&invocation.Invocation{ID: "a"}, true) },
		func() { f.end("a", &Report{}) },
		func() { // begin ends the line
			_, _ = f.Write([]byte("half a line of a"))
			f.begin(&invocation.Invocation{ID: "b"}, true)
		},
		func() { f.end("b", &Report{}); f.change(Draining); f.change(Stopped) },
	} {
		step()
		_, _ = f.Write([]byte("x\n"))
	}
	if want := []string{"", "", "unseen", "", "a", "a", "a", "b", "b"}; !slices.Equal(got, want) {
		t.Errorf("labels %q, want %q", got, want)
	}
}

// labels is an Observer that keeps the labels of Output.
type labels struct {
	silent
	got *[]string
}

func (l labels) Output(_ *Unit, _, id string, _ time.Time, _ []byte) { *l.got = append(*l.got, id) }
