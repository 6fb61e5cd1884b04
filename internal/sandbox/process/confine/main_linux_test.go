package confine

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary started with one of these as its first argument is a child that does something and ends.
var children = map[string]func(args []string) error{
	"confine-exec":  confinedExec,
	"confine-calls": confinedCalls,
	"confine-files": confinedFiles,
	"confine-go":    goProgram,
	"confine-probe": probeAlone,
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if child, ok := children[os.Args[1]]; ok {
			if err := child(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// self is a child of this test binary.
func self(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), exe, args...)
}

// apply confines the calling thread as the launcher of a Sandbox would: "seccomp", "landlock" or "both".
func apply(what string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if what != "seccomp" {
		if err := applyLandlock(LandlockABI()); err != nil {
			return err
		}
	}
	if what != "landlock" {
		return applySeccomp()
	}
	return nil
}

func applySeccomp() error {
	filter, err := Seccomp()
	if err != nil {
		return err
	}
	prog := make([]byte, 16)
	binary.LittleEndian.PutUint16(prog, uint16(len(filter)/8))
	binary.LittleEndian.PutUint64(prog[8:], uint64(uintptr(unsafe.Pointer(&filter[0]))))
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog[0])))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("load filter: %w", errno)
	}
	return nil
}

func applyLandlock(abi int) error {
	ruleset, rules := Landlock(abi)
	if ruleset == nil {
		return fmt.Errorf("no Landlock here, version %d", abi)
	}
	set, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&ruleset[0])), uintptr(len(ruleset)), 0)
	if errno != 0 {
		return fmt.Errorf("make ruleset: %w", errno)
	}
	for _, r := range rules {
		fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", r.Path, err)
		}
		attr := append([]byte(nil), r.Attr...)
		binary.LittleEndian.PutUint32(attr[RuleFD:], uint32(fd))
		_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr[0])), 0, 0, 0)
		_ = unix.Close(fd)
		if errno != 0 {
			return fmt.Errorf("add rule for %s: %w", r.Path, errno)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return fmt.Errorf("restrict: %w", errno)
	}
	return unix.Close(int(set))
}

// confinedExec takes what apply does and a command.
func confinedExec(args []string) error {
	if err := apply(args[0]); err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", args[1], syscall.Exec(args[1], args[1:], os.Environ()))
}

// confinedCalls makes raw system calls under the filter. Each argument is "number,arg,arg,…"; for each, the number of the error is printed.
func confinedCalls(args []string) error {
	if err := apply("seccomp"); err != nil {
		return err
	}
	for _, text := range args {
		var c [7]uintptr
		for i, word := range strings.Split(text, ",") {
			if _, err := fmt.Sscan(word, &c[i]); err != nil {
				return err
			}
		}
		_, _, errno := unix.RawSyscall6(c[0], c[1], c[2], c[3], c[4], c[5], c[6])
		fmt.Println(int(errno))
	}
	return nil
}
