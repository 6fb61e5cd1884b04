package state_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/audit"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/state"
)

func openAudit(t *testing.T, dir string, l state.AuditLimits) (*nats.Conn, *state.AuditLog, *audit.Log) {
	t.Helper()
	c, err := nats.Open(t.Context(), nats.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	kept, err := state.OpenAudit(t.Context(), c.JetStream(), "changes", l)
	if err != nil {
		t.Fatal(err)
	}
	return c, kept, audit.New(kept, "changes", testKey)
}

func sound(t *testing.T, kept *state.AuditLog, l *audit.Log, noted audit.Head) *audit.Report {
	t.Helper()
	dropped, err := kept.Dropped(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Verify(t.Context(), noted, dropped)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAuditLog_OnlyGrows(t *testing.T) {
	t.Parallel()
	c, kept, l := openAudit(t, t.TempDir(), state.AuditLimits{Records: 1000, Age: time.Hour})
	if r := sound(t, kept, l, audit.Head{}); r.Records != 0 || len(r.Faults) > 0 {
		t.Errorf("an empty log: %+v", r)
	}
	var wg sync.WaitGroup
	for range 4 { // as if from several Nodes
		other := audit.New(kept, "changes", testKey)
		wg.Go(func() {
			for range 10 {
				if _, err := other.Append(t.Context(), audit.Record{Who: "local", What: "deploy", Outcome: audit.Done}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r := sound(t, kept, l, audit.Head{})
	if r.Records != 40 || len(r.Faults) > 0 {
		t.Fatalf("%+v", r)
	}
	js, err := c.JetStream().Stream(t.Context(), "ebb_audit_changes")
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteMsg(t.Context(), 3); err == nil {
		t.Error("a record was deleted")
	}
	if err := js.SecureDeleteMsg(t.Context(), 3); err == nil {
		t.Error("a record was erased")
	}
	if err := js.Purge(t.Context()); err == nil {
		t.Error("the log was purged")
	}
	cfg := js.CachedInfo().Config
	cfg.DenyDelete, cfg.DenyPurge = false, false
	if _, err := c.JetStream().UpdateStream(t.Context(), cfg); err == nil {
		t.Error("the log may be deleted from")
	}
	if r := sound(t, kept, l, r.Head); r.Records != 40 || len(r.Faults) > 0 {
		t.Errorf("%+v", r)
	}
	// What somebody writes past ebb is found.
	if _, err := c.JetStream().Publish(t.Context(), "ebb_audit.changes", []byte(`{"format":1,"seq":41,"who":"local","what":"nothing","outcome":"done","prev":"`+r.Head.Hash+"\"}\n"+strings.Repeat("0", 64))); err != nil {
		t.Fatal(err)
	}
	if r := sound(t, kept, l, r.Head); len(r.Faults) != 1 || !strings.HasPrefix(r.Faults[0], "record 41: its hash") {
		t.Errorf("a forged record: %+v", r)
	}
	if _, err := l.Append(t.Context(), audit.Record{What: "after"}); err != nil { // and does not keep the log from growing
		t.Error(err)
	}
}

func TestAuditLog_FollowsAndDropsTheOldest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, kept, l := openAudit(t, dir, state.AuditLimits{Records: 300, Age: time.Hour})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	began, seen := make(chan uint64, 1000), uint64(0)
	done := make(chan error, 1)
	go func() {
		done <- kept.Read(ctx, 1, true, func(seq uint64, _ []byte) error {
			if seq != seen+1 {
				t.Errorf("%d follows %d", seq, seen)
			}
			seen = seq
			began <- seq
			return nil
		})
	}()
	for i := range 3 {
		if _, err := l.Append(t.Context(), audit.Record{What: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		if got := <-began; got != uint64(i+1) {
			t.Errorf("got %d", got)
		}
	}
	stop()
	if err := <-done; err == nil {
		t.Error("reading ended before it was told to")
	}
	text := strings.Repeat("x", 500)
	for range 600 {
		if _, err := l.Append(t.Context(), audit.Record{Who: text, What: text, On: text}); err != nil {
			t.Fatal(err)
		}
	}
	r := sound(t, kept, l, audit.Head{})
	if r.First != 304 || r.Head.Seq != 603 || len(r.Faults) > 0 {
		t.Errorf("what was dropped for the number of all: %+v", r)
	}
	// Other limits hold from the next start on, and what was dropped by those before is no fault.
	_ = c.Close()
	_, kept, l = openAudit(t, dir, state.AuditLimits{Records: 2000, Age: 2 * time.Hour})
	if r := sound(t, kept, l, r.Head); r.Head.Seq != 603 || len(r.Faults) > 0 {
		t.Errorf("after a restart with more room: %+v", r)
	}
}

// What is on disk is changed while nobody looks: the store finds that before the chain is looked at.
func TestAuditLog_TamperingOnDiskIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, _, l := openAudit(t, dir, state.AuditLimits{Records: 1000, Age: time.Hour})
	for i := range 20 {
		if _, err := l.Append(t.Context(), audit.Record{Who: "local", What: "key:revoke", On: fmt.Sprintf("the-key-%02d", i), Outcome: audit.Done}); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Close()
	changed := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "ebb_audit_changes") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if text := strings.Replace(string(data), "the-key-07", "the-key-99", 1); text != string(data) {
			changed++
			return os.WriteFile(path, []byte(text), 0o600)
		}
		return nil
	})
	if err != nil || changed != 1 {
		t.Fatalf("%d files changed: %v", changed, err)
	}
	if c, err := nats.Open(t.Context(), nats.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "ebb_audit_changes") || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("opened: %v", err)
		_ = c.Close()
	}
}

func TestAuditLog_ANewerOneIsRefused(t *testing.T) {
	t.Parallel()
	c, _, _ := openAudit(t, t.TempDir(), state.AuditLimits{Records: 1000})
	js, err := c.JetStream().Stream(t.Context(), "ebb_audit_changes")
	if err != nil {
		t.Fatal(err)
	}
	cfg := js.CachedInfo().Config
	cfg.Metadata["ebb.format"] = "99"
	if _, err := c.JetStream().UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := state.OpenAudit(t.Context(), c.JetStream(), "changes", state.AuditLimits{Records: 2000}); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("got %v", err)
	}
}
