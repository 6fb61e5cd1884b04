package confine

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// probeAlone prints what Probe finds, after what args say: "denied" sets the limit of user namespaces to 0, in this one; "filtered" loads the
// filter, and goes on in a new program with it. It is an error when a child is left.
func probeAlone(args []string) error {
	switch args[0] {
	case "denied":
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			return err
		}
	case "filtered":
		if err := apply("seccomp"); err != nil {
			return err
		}
		return syscall.Exec("/proc/self/exe", []string{os.Args[0], "confine-probe", "plain"}, os.Environ())
	}
	h := Probe()
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); err != unix.ECHILD {
		return fmt.Errorf("child %d is left: %w", pid, err)
	}
	return json.NewEncoder(os.Stdout).Encode(h)
}

func probe(t *testing.T, how string, attr *syscall.SysProcAttr, env ...string) Host {
	t.Helper()
	cmd := self(t, "confine-probe", how)
	cmd.SysProcAttr, cmd.Env = attr, env
	if attr != nil && attr.Credential != nil {
		// The test binary is in a folder that only its owner may enter: started by an open descriptor.
		f, err := os.Open(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		cmd.ExtraFiles, cmd.Path = []*os.File{f}, "/proc/self/fd/3"
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var h Host
	if err := json.Unmarshal(out, &h); err != nil {
		t.Fatal(err)
	}
	return h
}

var allFindings = []string{
	UserNamespace, MountNamespace, PIDNamespace, NetNamespace, IPCNamespace, UTSNamespace, MountTmpfs, MountProc, ReadOnlyRoot, NFTables,
	NoNewPrivs, SeccompFilter, LandlockRules,
}

func (h Host) finding(t *testing.T, name string) Finding {
	t.Helper()
	for _, f := range h.Findings {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("nothing found about %s", name)
	return Finding{}
}

// able skips where the host allows less than the test takes away.
func able(t *testing.T) {
	t.Helper()
	if h := Probe(); !h.Allows(UserNamespace) || !h.Allows(MountProc) {
		t.Skipf("this host denies user namespaces or mounts in them: %+v", h.Denied())
	}
}

func TestProbe_TriesAll(t *testing.T) {
	t.Parallel()
	start := time.Now()
	h := Probe()
	t.Logf("took %v, yama %d, container %q", time.Since(start), h.Yama, h.Container)
	var names []string
	for _, f := range h.Findings {
		names = append(names, f.Name)
		t.Logf("%-20s %v %s %v %s", f.Name, f.OK, f.Error, f.Causes, f.Note)
		if f.OK == (f.Error != "") || f.OK == (len(f.Causes) > 0) {
			t.Errorf("%s: allowed %v, error %q, causes %v", f.Name, f.OK, f.Error, f.Causes)
		}
	}
	if !slices.Equal(names, allFindings) {
		t.Errorf("found %q", names)
	}
	if h.LandlockABI != LandlockABI() || h.UID != os.Geteuid() || h.Kernel == "" {
		t.Errorf("host %+v", h)
	}
	for _, ok := range []string{NoNewPrivs, SeccompFilter} {
		if f := h.finding(t, ok); !f.OK {
			t.Errorf("%s: %s", ok, f.Error)
		}
	}
}

func TestProbe_AsAnybody(t *testing.T) {
	t.Parallel()
	able(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	h := probe(t, "plain", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	if h.UID != 65534 || h.Privileged {
		t.Errorf("uid %d, privileged %v", h.UID, h.Privileged)
	}
	for _, f := range Probe().Findings {
		if got := h.finding(t, f.Name); got.OK != f.OK && f.Name != UserNamespace {
			t.Errorf("%s: %v as root, %v (%s) as nobody", f.Name, f.OK, got.OK, got.Error)
		}
	}
}

func TestProbe_WhereUserNamespacesAreUsedUp(t *testing.T) {
	t.Parallel()
	able(t)
	{
		attr := &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
		h := probe(t, "denied", attr)
		f := h.finding(t, UserNamespace)
		if f.OK || !slices.Equal(f.Causes, []Cause{ByLimit}) || f.Error != "clone: no space left on device" {
			t.Errorf("user namespace: %+v", f)
		}
		// Inside, this is root: all else works without one.
		for _, name := range []string{MountNamespace, NetNamespace, MountTmpfs} {
			if f := h.finding(t, name); !f.OK || f.Note == "" {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if len(h.Mends) != 1 || h.Mends[0].Text != "user.max_user_namespaces = 15000\n" || !strings.HasSuffix(h.Mends[0].Where, "/etc/sysctl.d/60-ebb.conf") {
			t.Errorf("mends %+v", h.Mends)
		}
	}
}

func TestProbe_UnderAFilterOfSystemCalls(t *testing.T) {
	t.Parallel()
	able(t)
	for _, c := range []struct {
		env, where, text string
	}{
		{"KUBERNETES_SERVICE_HOST=10.0.0.1", "the pod's spec", "hostUsers: false\ncontainers:\n- name: ebb\n  securityContext:\n    seccompProfile:\n      type: Unconfined\n"},
		{"container=docker", "the command", "docker run --security-opt seccomp=unconfined …\n"},
		{"container=podman", "the command", "podman run --security-opt seccomp=unconfined …\n"},
	} {
		h := probe(t, "filtered", nil, c.env)
		f := h.finding(t, UserNamespace)
		if f.OK || len(f.Causes) == 0 || f.Causes[0] != BySeccomp || f.Error != "clone: operation not permitted" {
			t.Errorf("user namespace: %+v", f)
		}
		if got := h.finding(t, SeccompFilter); !got.OK {
			t.Errorf("a second filter: %+v", got)
		}
		if h.Allows(MountProc) || h.Allows(NFTables) {
			t.Errorf("mounts or packet filters work: %+v", h)
		}
		i := slices.IndexFunc(h.Mends, func(m Mend) bool { return slices.Contains(m.Causes, BySeccomp) })
		if i < 0 || !strings.HasPrefix(h.Mends[i].Where, c.where) || h.Mends[i].Text != c.text {
			t.Errorf("%s: mends %+v", c.env, h.Mends)
		}
	}
}

func TestProbe_IsSafeWhileOthersRun(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			_ = exec.Command("/bin/true").Run()
			runtime.GC()
		}
	}()
	want := fmt.Sprint(Probe().Denied())
	for range 5 {
		if got := fmt.Sprint(Probe().Denied()); got != want {
			t.Errorf("denied %s, before %s", got, want)
		}
	}
	<-done
}

// What machines look like that the tests do not run on.
func TestMends_FitTheMachine(t *testing.T) {
	t.Parallel()
	eperm := outcome{"clone", unix.EPERM}
	for name, c := range map[string]struct {
		facts   facts
		finding string
		outcome outcome
		causes  []Cause
		where   string
		text    []string // in the first mend
	}{
		"ubuntu": {
			facts{restricted: true, exe: "/opt/ebb"}, MountNamespace, eperm, []Cause{ByAppArmor}, "/etc/apparmor.d/ebb",
			[]string{"profile ebb /opt/ebb flags=(unconfined) {\n  userns,\n", "abi <abi/4.0>,\n"},
		},
		"debian": {
			facts{noClone: true}, UserNamespace, eperm, []Cause{BySysctl}, "/etc/sysctl.d/60-ebb.conf", []string{"kernel.unprivileged_userns_clone = 1\n"},
		},
		"no more network namespaces": {
			facts{}, NetNamespace, outcome{"clone", unix.ENOSPC}, []Cause{ByLimit}, "/etc/sysctl.d/60-ebb.conf", []string{"user.max_net_namespaces = 15000\n"},
		},
		"docker": {
			facts{container: "docker", seccomp: true, profile: "docker-default"}, UserNamespace, eperm, []Cause{BySeccomp, ByProfile}, "the command",
			[]string{"docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined …\n"},
		},
		"docker with masks": {
			facts{container: "docker", masked: true}, MountProc, outcome{"mount proc", unix.EPERM}, []Cause{ByMaskedProc}, "the command",
			[]string{"docker run --security-opt systempaths=unconfined …\n"},
		},
		"docker on ubuntu": {
			facts{container: "docker", restricted: true, exe: "/usr/local/bin/ebb"}, MountTmpfs, eperm, []Cause{ByAppArmor}, "on the host: /etc/apparmor.d/ebb",
			[]string{"profile ebb /usr/local/bin/ebb "},
		},
		"kubernetes": {
			facts{container: "kubernetes", masked: true, profile: "cri-containerd.apparmor.d"}, MountProc, outcome{"mount proc", unix.EPERM},
			[]Cause{ByMaskedProc, ByProfile}, "the pod's spec", []string{"hostUsers: false\n", "    appArmorProfile:\n      type: Unconfined\n", "    procMount: Unmasked\n"},
		},
		"systemd": {
			facts{container: "systemd", seccomp: true}, UserNamespace, eperm, []Cause{BySeccomp}, "/etc/systemd/system/ebb.service.d/isolation.conf",
			[]string{"[Service]\nRestrictNamespaces=no\n"},
		},
		"no modules": {
			facts{}, NFTables, outcome{"nf_tables", unix.ENOENT}, []Cause{ByKernel}, "/etc/modules-load.d/ebb.conf", []string{"nft_chain_nat\n", "nft_redir\n"},
		},
		"an old kernel":  {facts{}, ReadOnlyRoot, outcome{"mount_setattr", unix.ENOSYS}, []Cause{ByKernel}, "", nil},
		"who knows":      {facts{}, UserNamespace, eperm, []Cause{ByUnknown}, "", nil},
		"root on ubuntu": {facts{restricted: true, admin: true}, UserNamespace, eperm, []Cause{ByUnknown}, "", nil},
	} {
		got := c.facts.causes(c.finding, c.outcome)
		if !slices.Equal(got, c.causes) {
			t.Errorf("%s: causes %v, want %v", name, got, c.causes)
		}
		mends := c.facts.mends([]Finding{{Name: c.finding, Causes: got}})
		if c.where == "" {
			if len(mends) != 0 {
				t.Errorf("%s: mends %+v", name, mends)
			}
			continue
		}
		if len(mends) != 1 || !strings.HasPrefix(mends[0].Where, c.where) {
			t.Errorf("%s: mends %+v", name, mends)
			continue
		}
		for _, text := range c.text {
			if !strings.Contains(mends[0].Text, text) {
				t.Errorf("%s: %q is not in %q", name, text, mends[0].Text)
			}
		}
	}
}

func TestSurroundings_AreWhoStartedThis(t *testing.T) {
	t.Parallel()
	self := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		env  map[string]string
		file string
		want string
	}{
		{nil, "", ""},
		{nil, "/.dockerenv", "docker"},
		{nil, "/run/.containerenv", "podman"},
		{map[string]string{"container": "podman"}, "/.dockerenv", "podman"},
		{map[string]string{"container": "lxc"}, "", "lxc"},
		{map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "/.dockerenv", "kubernetes"},
		{map[string]string{"SYSTEMD_EXEC_PID": self}, "/.dockerenv", "systemd"},
		{map[string]string{"SYSTEMD_EXEC_PID": "1"}, "", ""}, // of a parent, as in a desktop's terminal
	} {
		if got := surroundings(func(k string) string { return c.env[k] }, func(p string) bool { return p == c.file }); got != c.want {
			t.Errorf("%v, %s: %q, want %q", c.env, c.file, got, c.want)
		}
	}
}

func TestTrial_SaysWhichStepWasRefused(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		trial *trial
		want  outcome
	}{
		{(&trial{}).write(file, "written"), outcome{}},
		{(&trial{}).write(file, "written").call("close", unix.SYS_CLOSE, 4095).call("never", unix.SYS_GETPID), outcome{"close", unix.EBADF}},
		{(&trial{}).write(file+"/x", ""), outcome{"open " + file + "/x", unix.ENOTDIR}},
		{(&trial{}).call("end", unix.SYS_EXIT, 0), outcome{"end", unix.ENOSYS}},
	} {
		if got := c.trial.run(); got != c.want {
			t.Errorf("%q: %+v, want %+v", c.trial.names, got, c.want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "written" {
		t.Errorf("the file has %q, %v", text, err)
	}
}
