package fault

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

const childPlan = "EBB_FAULT_PLAN"

func TestMain(m *testing.M) {
	if text := os.Getenv(childPlan); text != "" {
		p, err := Parse(text)
		if err != nil {
			os.Exit(1)
		}
		for range 10 {
			_, _ = os.Stdout.WriteString("x")
			p.Pass("here")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestPass_EndsTheProcessAtThePassage(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childPlan+"=here:3")
	out, err := cmd.Output()
	if string(out) != "xxx" || err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it said %q and ended with %v", out, err)
	}
}

func TestPass_CountsOnlyItsPointAndOnce(t *testing.T) {
	t.Parallel()
	n := 0
	p := &Plan{Point: "a", Nth: 50, die: func() { n++ }}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 20 {
				p.Pass("a")
				p.Pass("b")
			}
		})
	}
	wg.Wait()
	(&Plan{}).Pass("")
	if n != 1 {
		t.Errorf("it would have ended %d times", n)
	}
}

func TestParse_ReadsWhatStringWrites(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "a:1", "moving:20"} {
		p, err := Parse(s)
		if err != nil || p.String() != s {
			t.Errorf("%q: %v, %v", s, p, err)
		}
	}
	for _, s := range []string{"a", "a:", ":1", "a:0", "a:-1", "a:x"} {
		if _, err := Parse(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
