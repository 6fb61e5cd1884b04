package bus_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
)

// childSchedules in the environment makes the test binary the process that fires and is killed; childEpoch says when its clock began.
const (
	childSchedules = "EBB_BUS_KILL_SCHEDULES"
	childEpoch     = "EBB_BUS_KILL_EPOCH"
)

// In the child a minute takes 50 ms, from one start to the next.
const minute = 50 * time.Millisecond

var fastEpoch = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func fast(epoch time.Time) time.Time {
	return fastEpoch.Add(time.Since(epoch) * (time.Minute / minute))
}

func fastOptions(dir string, d bus.Deliverer, now func() time.Time) bus.Options {
	o := killOptions(dir, d)
	o.Now, o.DedupWindow = now, time.Millisecond // no help from there
	return bus.Check(o, time.Millisecond)
}

func fastSchedules() (out []bus.Schedule) {
	for i, expr := range []string{"rate(1 minute)", "* * * * *", "cron(0/3 * * * ? *)", "rate(2 minutes)"} {
		out = append(out, bus.Schedule{Name: fmt.Sprint("x", i), Expression: expr, Start: fastEpoch, Missed: bus.MissedAll, MissedLimit: 1000, MissedAge: 31 * 24 * time.Hour, Event: bus.Template{Type: "t"}})
	}
	return out
}

// fireForever is the child: it puts its schedules, as every start of a server does, and fires.
func fireForever(dir string) error {
	n, err := strconv.ParseInt(os.Getenv(childEpoch), 10, 64)
	if err != nil {
		return err
	}
	ctx := context.Background()
	conn, err := nats.Open(ctx, kept(dir))
	if err != nil {
		return err
	}
	b, err := bus.Open(ctx, conn.JetStream(), fastOptions(dir, &printer{}, func() time.Time { return fast(time.Unix(0, n)) }))
	if err != nil {
		return err
	}
	if err := b.Subscribe(ctx, killSub); err != nil {
		return err
	}
	go func() { _ = b.Run(ctx) }()
	for _, s := range fastSchedules() {
		if err := b.PutSchedule(ctx, s); err != nil {
			return err
		}
	}
	for err := b.Sync(ctx); err != nil; err = b.Sync(ctx) { // a loaded machine takes its time
		if errs.CodeOf(err) != errs.Unavailable {
			return err
		}
	}
	say("ready")
	select {}
}

// Killed about the moment of a slot, again and again, each slot of each schedule has one event with one delivery, and none is missing.
func TestSchedule_FiresEachSlotOnceWhateverIsKilled(t *testing.T) {
	t.Parallel()
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	dir, epoch := t.TempDir(), time.Now()
	got := map[string]bool{}
	var first time.Time // when the schedules stood for certain
	for i := range rounds {
		if i%6 == 5 {
			if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
				t.Fatal(err)
			}
		}
		if at := killAtSlot(t, dir, epoch, got); i == 0 {
			first = at
		}
	}
	end := fast(epoch)
	late := &target{}
	w := start(t, dir, fastOptions(dir, late, func() time.Time { return end }))
	n := 0
	for _, s := range fastSchedules() {
		newest := ""
		step := map[string]time.Duration{"x0": time.Minute, "x1": time.Minute, "x2": 3 * time.Minute, "x3": 2 * time.Minute}[s.Name]
		until(t, s.Name, func() (bool, error) {
			all, err := w.Schedules(t.Context(), bus.ScheduleQuery{Tenant: "default", Name: s.Name})
			if err != nil || len(all) != 1 {
				return false, err
			}
			newest = all[0].LastID
			return all[0].Next[0].Slot.Sub(all[0].Last) == step, nil
		})
		settle(t, w)
		_, text, _ := strings.Cut(newest, "/")
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		slots := 0
		for ; ; at = at.Add(-step) {
			id := s.Name + "/" + at.Format(time.RFC3339)
			st, err := w.StatusOfEvent(t.Context(), "", "/ebb/schedules/default", id)
			if err != nil {
				t.Fatal(err)
			}
			if len(st) == 0 {
				break
			}
			slots++
			if len(st) != 1 || st[0].State != bus.Done {
				t.Errorf("%s: %+v", id, st)
			}
		}
		n += slots
		if at.After(first) || slots == 0 {
			t.Errorf("%s: %d slots, none at %v, and it stood at %v", s.Name, slots, at, first)
		}
	}
	c, err := w.Counts(t.Context())
	if err != nil || c["s"][bus.Done] != n || len(c["s"]) != 1 {
		t.Errorf("%d slots, and the deliveries are %v, %v", n, c, err)
	}
	t.Logf("%d rounds, %d slots, %d of them seen by a child", rounds, n, len(got))
	before := everySchedule(t, w) + everything(t, w)
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, w.opt)
	settle(t, w)
	if after := everySchedule(t, w) + everything(t, w); after != before {
		t.Error("the index came out otherwise")
	}
}

// killAtSlot runs the child until some slots later, and kills it about the moment of one. It tells when the child was ready.
func killAtSlot(t *testing.T, dir string, epoch time.Time, got map[string]bool) (ready time.Time) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childSchedules+"="+dir, fmt.Sprintf("%s=%d", childEpoch, epoch.UnixNano()))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(pipe)
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch f := strings.Fields(line); {
		case f[0] == "ready":
			ready = fast(epoch)
			// From a millisecond before a slot to seven after it.
			next := minute - time.Since(epoch)%minute + time.Duration(1+rand.IntN(4))*minute
			time.AfterFunc(next-time.Millisecond+time.Duration(rand.IntN(8000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		case f[0] == "got" && len(f) == 3:
			got[f[1]] = true
		case f[0] == "error":
			t.Fatal(line)
		}
	}
	_ = cmd.Wait()
	if ready.IsZero() {
		t.Fatal("the child ended before it was ready")
	}
	return ready
}
