package process_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
	"github.com/ebb-run/ebb/internal/testkit/executable"
)

// asDenied is the first argument of a test binary that is to run the rest of them without namespaces.
const asDenied = "deny-namespaces"

// deny runs this program again under a filter that refuses namespaces and mounts with what the default profile of Docker refuses them with
// (moby's profiles/seccomp/default.json, for a container without CAP_SYS_ADMIN).
func deny() {
	runtime.LockOSThread()
	const (
		load, mask, equal, ret = 0x20, 0x54, 0x15, 0x06
		allow, refuse          = 0x7fff0000, 0x00050000
		newFlags               = 0x7e020000
	)
	var filter []byte
	insn := func(code uint16, jt, jf uint8, k uint32) {
		filter = binary.LittleEndian.AppendUint16(filter, code)
		filter = append(filter, jt, jf)
		filter = binary.LittleEndian.AppendUint32(filter, k)
	}
	insn(load, 0, 0, 0)
	for _, nr := range []uint32{unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_FSOPEN, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR} {
		insn(equal, 0, 1, nr)
		insn(ret, 0, 0, refuse|uint32(unix.EPERM))
	}
	insn(equal, 0, 1, unix.SYS_CLONE3)
	insn(ret, 0, 0, refuse|uint32(unix.ENOSYS))
	insn(equal, 1, 0, unix.SYS_CLONE)
	insn(ret, 0, 0, allow)
	insn(load, 0, 0, 16) // the lower half of its flags
	insn(mask, 0, 0, newFlags)
	insn(equal, 1, 0, 0)
	insn(ret, 0, 0, refuse|uint32(unix.EPERM))
	insn(ret, 0, 0, allow)
	prog := make([]byte, 16)
	binary.LittleEndian.PutUint16(prog, uint16(len(filter)/8))
	binary.LittleEndian.PutUint64(prog[8:], uint64(uintptr(unsafe.Pointer(&filter[0]))))
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog[0]))); errno != 0 {
			err = errno
		}
	}
	runtime.KeepAlive(filter)
	if err == nil {
		err = syscall.Exec("/proc/self/exe", append(os.Args[:1:1], os.Args[2:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, "deny namespaces:", err)
	os.Exit(1)
}

// TestDriver_ConformsWhereNamespacesAreDenied runs the suite in a process of its own, as in a container with its engine's default profile.
func TestDriver_ConformsWhereNamespacesAreDenied(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become the user that runs this")
	}
	t.Parallel()
	program, dir := copyOfSelf(t)
	cmd := exec.CommandContext(t.Context(), program, asDenied, "-test.run", "^(TestDriver_ConformsDenied|TestSandbox_ConfinedToItsFiles|TestSandbox_ConfinedHasTheSharedTmp)$", "-test.v", "-test.short", "-sandboxtest.verdicts", filepath.Join(dir, "verdicts"))
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir, "EBB_TEST_DENIED=1"}
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n--- PASS: Test") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
	if err := book.Include(filepath.Join(dir, "verdicts")); err != nil {
		t.Error(err)
	}
}

// TestDriver_IsolatesForARootWithoutTheRightToMount runs the walls as root in a container of Docker that was started with
// --security-opt seccomp=unconfined, which is what doctor tells its users to do.
func TestDriver_IsolatesForARootWithoutTheRightToMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be a root with less rights")
	}
	t.Parallel()
	program, dir := copyOfSelf(t)
	cmd := exec.CommandContext(t.Context(), program, asContained, "-test.run", "^(TestDriver_Conforms|TestDriver_IsolatesHere)$/^each$/^(Catalogue|Transport_Talks|Start_FailureIsClear|Usage_.*)$", "-test.v", "-test.short")
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n--- PASS: Test") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}

// asContained is the first argument of a test binary that is to run with the capabilities of a container.
const asContained = "as-in-a-container"

// contain runs this program again with the capabilities that Docker leaves root.
func contain() {
	runtime.LockOSThread()
	kept := []int{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETPCAP,
		unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SYS_CHROOT, unix.CAP_MKNOD, unix.CAP_AUDIT_WRITE, unix.CAP_SETFCAP,
	}
	for c := range 64 {
		if !slices.Contains(kept, c) {
			_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0) // those that the kernel does not know cannot be
		}
	}
	fmt.Fprintln(os.Stderr, "contain:", syscall.Exec("/proc/self/exe", append(os.Args[:1:1], os.Args[2:]...), os.Environ()))
	os.Exit(1)
}

// copyOfSelf is this program where everybody can run it, in a folder that everybody can write to.
func copyOfSelf(t *testing.T) (program, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ebb-rootless-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "process.test")
	if err := errors.Join(executable.Write(program, binary), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	return program, dir
}

// TestDriver_ConformsDenied is run by TestDriver_ConformsWhereNamespacesAreDenied.
func TestDriver_ConformsDenied(t *testing.T) {
	if os.Getenv("EBB_TEST_DENIED") == "" {
		t.Skip("namespaces are not denied to this process")
	}
	d := newDriver(t, process.Options{})
	if ok, _ := d.Isolated(); ok {
		t.Fatal("namespaces are not denied")
	}
	sandboxtest.Run(t, "process", open, walled(t, "namespaces denied", open, sandboxtest.Options{
		Extra: []string{"EBB_SANDBOX", "HOME"}, Memory: true, Processes: mechanisms(t)["process limit"].Strong, Processors: mechanisms(t)["cpu limit"].Strong,
		Concealed: mechanisms(t)["memory limit"].Strong, Dependent: true, Descriptors: true, Cycles: 20,
		Walled: process.Landlocked(d), Scoped: process.Scoped(d),
	}))
}
