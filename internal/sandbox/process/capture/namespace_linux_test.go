package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/testkit/executable"
)

// The test binary plays three more parts: an unprivileged starter of namespaces, the inside of a namespace, and guests in it.
const (
	partVar   = "EBB_CAPTURE_PART"
	guestVar  = "EBB_CAPTURE_GUEST"
	planVar   = "EBB_CAPTURE_PLAN"
	resolvVar = "EBB_CAPTURE_RESOLV"

	trackedVar = "EBB_CAPTURE_TRACKED"
)

func TestMain(m *testing.M) {
	switch os.Getenv(partVar) {
	case "nobody":
		os.Exit(startInside(os.Args[1:]))
	case "inside":
		fmt.Fprintln(os.Stderr, "inside:", inside(os.Args[1:]))
		os.Exit(99)
	case "guest":
		if err := guests[os.Getenv(guestVar)](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startInside starts the test binary in new namespaces, with descriptor 3 passed on, and returns its exit code.
func startInside(args []string) int {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), partVar+"=inside")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(3, "line")}
	cmd.SysProcAttr = namespaces()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "nobody:", err)
		return 98
	}
	return cmd.ProcessState.ExitCode()
}

func namespaces() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
}

// inside does what a helper has to do in a namespace, one system call after the other, and becomes the guest.
func inside(args []string) error {
	plan, redirect := decodePlan(os.Getenv(planVar))
	messages := SetupMessages(HasIPv6())
	if redirect {
		messages = append(messages, RedirectMessage(), RefuseMessage())
	}
	if redirect && os.Getenv(trackedVar) == "" {
		messages = append(messages, UntrackMessage())
	}
	for _, m := range messages {
		if err := send(m); err != nil {
			return err
		}
	}
	var rights []int
	for _, s := range plan {
		fd, err := open(s)
		if err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
		rights = append(rights, fd)
	}
	if err := unix.Sendmsg(3, []byte{1}, unix.UnixRights(rights...), nil, 0); err != nil {
		return err
	}
	for _, fd := range rights {
		unix.Close(fd)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount(os.Getenv(resolvVar), "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if _, err := unix.Read(3, make([]byte, 1)); err != nil {
		return err
	}
	unix.Close(3)
	os.Setenv(partVar, "guest")
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, args, os.Environ())
}

func send(m Message) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, m.Protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, m.Bytes, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
	if err != nil {
		return err
	}
	return Outcome(m, answer[:n])
}

func open(s Socket) (int, error) {
	if s.Role == Refusals {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		if err != nil {
			return -1, err
		}
		return fd, unix.Sendto(fd, ListenForRefusals(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	fd, err := unix.Socket(s.Family(), s.Kind(), 0)
	if err != nil {
		return -1, err
	}
	if s.Family() == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return -1, err
		}
	}
	to := s.Sockaddr()
	if _, _, code := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&to[0])), uintptr(len(to))); code != 0 {
		return -1, code
	}
	if s.Role != DNSPackets {
		err = unix.Listen(fd, Backlog)
	}
	return fd, err
}

func encodePlan(redirect bool, d []Destination) string {
	var b strings.Builder
	fmt.Fprint(&b, redirect)
	for _, x := range d {
		fmt.Fprintf(&b, " %s:%d", x.Host, x.Port)
	}
	return b.String()
}

func decodePlan(s string) ([]Socket, bool) {
	var d []Destination
	words := strings.Fields(s)
	for _, w := range words[1:] {
		i := strings.LastIndexByte(w, ':')
		x := Destination{Host: w[:i]}
		fmt.Sscan(w[i+1:], &x.Port)
		d = append(d, x)
	}
	return Plan(HasIPv6(), words[0] == "true", d), words[0] == "true"
}

// setup says what kind of namespace a test wants.
type setup struct {
	rootless bool
	ports    bool // without a redirect
	declared []Destination
	options  Options // what of them is set is kept
}

// namespace is one that runs, with a Net that serves it and a guest that waits to be let go.
type namespace struct {
	net    *Net
	cmd    *exec.Cmd
	line   *os.File
	output bytes.Buffer
}

// enter makes a namespace for a guest. world is all it can reach.
func enter(t *testing.T, s setup, world sandbox.Egress, argv ...string) *namespace {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer theirs.Close()
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte(ResolvConf), 0o644); err != nil {
		t.Fatal(err)
	}
	n := &namespace{line: ours}
	n.cmd = exec.Command("/proc/self/exe", argv...)
	part := "inside"
	n.cmd.SysProcAttr = namespaces()
	if s.rootless && os.Getuid() == 0 {
		n.cmd.Path = publicBinary(t, dir)
		part = "nobody"
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	}
	n.cmd.Args = append([]string{n.cmd.Path}, argv...)
	n.cmd.Env = append(os.Environ(), partVar+"="+part, planVar+"="+encodePlan(!s.ports, s.declared), resolvVar+"="+resolv)
	n.cmd.Dir = "/"
	n.cmd.ExtraFiles = []*os.File{theirs}
	n.cmd.Stdout, n.cmd.Stderr = &n.output, &n.output
	if err := n.cmd.Start(); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EACCES) {
		ours.Close()
		t.Skipf("this machine denies user namespaces: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ours.Close()
		n.cmd.Process.Kill()
		n.cmd.Wait()
	})
	o := s.options
	o.Owner, o.Sandbox, o.Egress = "app/fn", "sb-1", world
	o.Sockets, _ = decodePlan(encodePlan(!s.ports, s.declared))
	theirs.Close()
	if o.Files, err = receive(pair[0], len(o.Sockets)); err != nil {
		n.cmd.Wait()
		if strings.HasPrefix(n.output.String(), "nobody:") {
			t.Skipf("this machine denies user namespaces to users: %s", &n.output)
		}
		t.Fatalf("no sockets came: %v\n%s", err, &n.output)
	}
	if n.net, err = Open(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.net.Close() })
	return n
}

// publicBinary is the test binary where everybody may run it.
func publicBinary(t *testing.T, dir string) string {
	t.Helper()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(dir, "guest")
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = executable.Write(name, b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func receive(fd, count int) ([]*os.File, error) {
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*count))
	n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return nil, errors.Join(err, io.EOF)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	var files []*os.File
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), "socket"))
	}
	return files, err
}

// run lets the guest go and returns all it wrote, and whether it ended well.
func (n *namespace) run(t *testing.T) (string, bool) {
	t.Helper()
	if _, err := n.line.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	err := n.cmd.Wait()
	return n.output.String(), err == nil
}

// world is everything there is for guests: places of the host, by "host:port".
type world struct {
	places map[string]string
	closed []string // names that may not be looked up

	mu struct {
		sync.Mutex
		asked []sandbox.Destination
	}
}

func (w *world) Dial(ctx context.Context, d sandbox.Destination) (net.Conn, error) {
	w.mu.Lock()
	w.mu.asked = append(w.mu.asked, d)
	w.mu.Unlock()
	place, ok := w.places[net.JoinHostPort(d.Host, fmt.Sprint(d.Port))]
	if !ok {
		return nil, errs.New(errs.Forbidden, "%s is not of this world", d.Host)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", place)
}

func (w *world) Resolves(d sandbox.Destination) bool { return !slices.Contains(w.closed, d.Host) }

func (w *world) Missing(_ context.Context, d sandbox.Destination) bool {
	return strings.HasPrefix(d.Host, "missing.")
}

func (w *world) asked() []sandbox.Destination {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.asked)
}

func (w *world) wasAsked(host string, port uint16) bool {
	return slices.Contains(w.asked(), sandbox.Destination{Owner: "app/fn", Sandbox: "sb-1", Host: host, Port: port})
}

// echo is a server of the host that answers each connection with a name and then what it gets, until that ends.
func echo(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, name+" ")
				io.Copy(c, c)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String()).String()
}
