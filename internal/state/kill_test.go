package state_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/seal/sealtest"
	"github.com/ebb-run/ebb/internal/state"
)

// childDir in the environment makes the test binary the process that is killed.
const childDir = "EBB_STATE_KILL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := deployForever(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// deployForever puts Deployments and flips the Pointer, and prints what was acknowledged after it was.
func deployForever(dir string) error {
	ctx := context.Background()
	c, err := nats.Open(ctx, nats.Options{Dir: filepath.Join(dir, "nats"), Key: sealtest.Open(filepath.Join(dir, "seal")).Key("nats")})
	if err != nil {
		return err
	}
	s, err := state.Open(ctx, c.JetStream(), state.Options{Key: testKey, History: 1 << 20})
	if err != nil {
		return err
	}
	p, err := s.Current(ctx, stack)
	if err != nil {
		p = state.Pointer{}
	}
	for {
		d := deployment(stack, strings.Repeat("m", rand.IntN(500)))
		if err := s.Put(ctx, d); err != nil {
			return err
		}
		fmt.Println("put", d.ID)
		if p, err = s.SetCurrent(ctx, stack, d.ID, p.Seq); err != nil {
			return err
		}
		fmt.Println("current", d.ID)
	}
}

func TestStore_KeepsWhatWasAcknowledgedOverKill9(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"clear", "sealed"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if name == "sealed" {
				sealtest.Into(t, filepath.Join(dir, "seal"))
			}
			keepsOverKill9(t, dir)
		})
	}
}

func keepsOverKill9(t *testing.T, dir string) {
	t.Helper()
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	var acked []string
	current := "" // the last that was acknowledged, or found after a restart
	for round := range rounds {
		started := "" // may have become current without being heard of
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed at a random moment of a random operation.
		after := rand.IntN(12)
		lines := bufio.NewScanner(out)
		var kill *time.Timer
		for n := 0; lines.Scan(); n++ {
			what, id, _ := strings.Cut(lines.Text(), " ")
			switch what {
			case "put":
				acked = append(acked, id)
				started = id
			case "current":
				current = id
			default:
				t.Fatalf("round %d: %s", round, lines.Text())
			}
			if n == after {
				kill = time.AfterFunc(time.Duration(rand.IntN(1500))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
		}
		if kill == nil {
			rest, _ := io.ReadAll(out)
			t.Fatalf("round %d: the child ended by itself: %s", round, rest)
		}
		_ = cmd.Wait()
		current = verify(t, dir, acked, current, started)
	}
	t.Logf("%d rounds, %d acknowledged deployments", rounds, len(acked))
}

// verify opens the store as the next process would, and returns what is current.
func verify(t *testing.T, dir string, acked []string, current, started string) string {
	t.Helper()
	c, err := nats.Open(t.Context(), nats.Options{Dir: filepath.Join(dir, "nats"), Key: sealtest.Open(filepath.Join(dir, "seal")).Key("nats")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := state.Open(t.Context(), c.JetStream(), state.Options{Key: testKey})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.History(t.Context(), stack)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range acked {
		if !slices.ContainsFunc(h, func(e state.Summary) bool { return e.ID == id }) {
			t.Fatalf("deployment %s is lost", id)
		}
		if _, err := s.Deployment(t.Context(), stack, id); err != nil {
			t.Fatalf("deployment %s: %v", id, err)
		}
	}
	p, err := s.Current(t.Context(), stack)
	if err != nil && errs.CodeOf(err) != errs.NotFound {
		t.Fatal(err)
	}
	if p.Deployment != current && p.Deployment != started {
		t.Fatalf("current is %q, acknowledged was %q, then %q was put", p.Deployment, current, started)
	}
	return p.Deployment
}
