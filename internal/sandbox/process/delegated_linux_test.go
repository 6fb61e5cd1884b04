package process_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ebb-run/ebb/internal/sandbox/process"
	"golang.org/x/sys/unix"
)

// TestDriver_ConformsInADelegatedGroup runs the suite as a service of a user without rights has it that has a version 2 cgroup of its own:
// systemd's Delegate=yes.
func TestDriver_ConformsInADelegatedGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a cgroup away")
	}
	bases := process.BasesOf(newDriver(t, process.Options{}))
	if len(bases) != 1 || mechanisms(t)["memory limit"].Mechanism != "cgroup v2" {
		t.Skip("this machine has no memory controller in version 2 cgroups")
	}
	t.Parallel()
	program, dir := copyOfSelf(t)
	group, err := os.MkdirTemp(bases[0], "service-")
	if err != nil {
		t.Fatal(err)
	}
	leaf := filepath.Join(group, "ebb-host")
	t.Cleanup(func() {
		if err := errors.Join(os.Remove(leaf), os.Remove(group)); err != nil {
			t.Errorf("left in the group: %v", err)
		}
	})
	const nobody = 65534
	for _, file := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} { // cgroup-v2.rst, "Delegation"
		if err := os.Chown(filepath.Join(group, file), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(group, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd := exec.CommandContext(t.Context(), program, "-test.run", "^(TestDriver_Conforms|TestDriver_HasTheGroupThatItWasGiven|TestSandbox_ATempFolderInMemoryIsNoHeap)$", "-test.v", "-test.short")
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir, givenVar + "=" + group}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, UseCgroupFD: true, CgroupFD: fd}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n--- PASS: Test") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
}

const givenVar = "EBB_TEST_GROUP"

// TestDriver_HasTheGroupThatItWasGiven is run by TestDriver_ConformsInADelegatedGroup.
func TestDriver_HasTheGroupThatItWasGiven(t *testing.T) {
	group := os.Getenv(givenVar)
	if group == "" {
		t.Skip("this process was given no cgroup")
	}
	if bases := process.BasesOf(newDriver(t, process.Options{})); len(bases) != 1 || bases[0] != group {
		t.Errorf("Sandboxes have their cgroups in %q, want %q", bases, group)
	}
	for _, name := range []string{"memory limit", "process limit", "cpu limit", "tree kill"} {
		if p := mechanisms(t)[name]; p.Mechanism != "cgroup v2" || !p.Strong {
			t.Errorf("%s by %q: %s", name, p.Mechanism, p.Note)
		}
	}
}
