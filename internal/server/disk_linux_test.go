package server_test

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/server"
)

// smallDisk mounts a file system of so many bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("ebb-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small disk (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill leaves no byte free.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, size := range []int{1 << 20, 4 << 10, 1} {
		for block := make([]byte, size); ; {
			if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFullDisk_ADeployFailsAndWhatWasDeployedServes(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "96m")
	dir := filepath.Join(disk, "data")
	n := open(t, dir)
	slow := `exports.hello = async () => { await new Promise((r) => setTimeout(r, 300)); return "one"; };`
	n.mustDeploy(t, "shop", "dev", slow)
	n.answers(t, "one")
	fill(t, filepath.Join(disk, "ballast"))
	a, code := shop("shop", "dev", says("two "+strings.Repeat("x", 1<<20)))
	_, err := n.deploy(t, a, code)
	if errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "disk") || errs.HintOf(err) == "" {
		t.Errorf("deploy to a full disk: %s %v, hint %q", errs.CodeOf(err), err, errs.HintOf(err))
	}
	// The same code with another configuration needs no new file but a record.
	a, code = shop("shop", "dev", slow)
	noise := make([]byte, 200<<10) // so that the record cannot be packed
	_, _ = rand.Read(noise)
	a.Functions[0].Description = hex.EncodeToString(noise)
	_, err = n.deploy(t, a, code)
	if err == nil {
		t.Error("a record was kept on a full disk")
	} else if errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" {
		t.Errorf("record on a full disk: %s %v, hint %q", errs.CodeOf(err), err, errs.HintOf(err))
	}
	// Also by Instances that are started only now.
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() { n.answers(t, "one") })
	}
	wg.Wait()
	if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); err != nil {
		t.Logf("stop after a full disk: %v", err)
	}
	again := open(t, dir)
	again.answers(t, "one")
	again.mustDeploy(t, "shop", "dev", says("two"))
	again.answers(t, "two")
}

func TestFullDisk_OpenFailsClearlyAndLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "1m")
	fill(t, filepath.Join(disk, "ballast"))
	dir := filepath.Join(disk, "data")
	_, err := server.Open(t.Context(), options(t, dir, io.Discard))
	if errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "full") || errs.HintOf(err) == "" {
		t.Errorf("got %s %v, hint %q", errs.CodeOf(err), err, errs.HintOf(err))
	}
	if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "FORMAT")); err == nil {
		t.Error("a marker was left")
	}
	if err := syscall.Mount("ebb-test", disk, "tmpfs", syscall.MS_REMOUNT, "size=96m"); err != nil {
		t.Fatal(err)
	}
	n := open(t, dir)
	n.mustDeploy(t, "shop", "dev", says("one"))
	n.answers(t, "one")
}

func TestFullDisk_NoChangeIsMadeThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "96m")
	n := open(t, filepath.Join(disk, "data"))
	c := n.aws(t)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	if info, err := os.Stat(ballast); err != nil || os.Truncate(ballast, info.Size()-128<<10) != nil { // so that some can be made
		t.Fatal(err)
	}
	create := func(name string) (int, string) {
		return c.send(t, request{name, "sqs", "POST", "/", "AmazonSQS.CreateQueue", `{"QueueName":"` + name + `"}`})
	}
	made := map[string]bool{}
	refused := 0
	for i := 0; refused < 3 && i < 10_000; i++ { // the store has a little room of its own
		name := fmt.Sprint("queue-", i)
		if status, _ := create(name); status == 200 {
			made[name] = true
		} else {
			refused++
		}
		k, err := n.client.CreateKey(t.Context(), api.KeyRequest{Name: name, Role: "read"})
		if err == nil {
			made[k.Name] = true
		}
	}
	if refused < 3 {
		t.Fatal("nothing was refused")
	}
	if err := n.stop(); err != nil {
		t.Logf("stop on a full disk: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n = open(t, n.dir)
	done := map[string]bool{}
	for _, r := range n.audit(t, api.AuditQuery{}) { // what was begun too: it may have been made
		done[r.What+" "+r.On] = true
	}
	list, err := n.client.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range list {
		if !done["sqs:CreateQueue arn:aws:sqs:eu-west-1:"+account+":"+q.Name] {
			t.Errorf("queue %s was made without a record", q.Name)
		}
	}
	keys, err := n.client.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if !done["key:create "+k.Name+" with the role "+k.Role] {
			t.Errorf("key %s was made without a record", k.Name)
		}
	}
	n.sound(t)
	t.Logf("%d changes were made and recorded until the disk was full", len(made))
}
