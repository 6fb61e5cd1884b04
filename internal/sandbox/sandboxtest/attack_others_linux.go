package sandboxtest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canaryKey is the System V key of a canary.
func canaryKey(canary string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(canary))
	return int(h.Sum32()>>1) | 1
}

// beVictim leaves a canary everywhere where another Sandbox must not find it.
func beVictim(r *report, _ string, args []string) {
	canary := unveiled(args[0])
	must(os.WriteFile(filepath.Join(home(), canary), []byte(canary), 0o644))
	if err := os.WriteFile(filepath.Join("/dev/shm", canary), []byte(canary), 0o644); !errors.Is(err, fs.ErrPermission) {
		must(err)
	}
	l, err := net.Listen("unix", "@"+canary)
	must(err)
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	must(err)
	for _, l := range []net.Listener{l, tcp} {
		go func() {
			for {
				c, err := l.Accept()
				must(err)
				_, _ = io.WriteString(c, canary)
				_ = c.Close()
			}
		}()
	}
	id, err := unix.SysvShmGet(canaryKey(canary), 4096, unix.IPC_CREAT|0o666)
	if !errors.Is(err, unix.ENOSYS) { // all of these are refused where they would be the host's
		must(err)
		mem, err := unix.SysvShmAttach(id, 0, 0)
		must(err)
		copy(mem, canary)
		if _, _, errno := unix.Syscall(unix.SYS_MSGGET, uintptr(canaryKey(canary)), unix.IPC_CREAT|0o666, 0); errno != 0 {
			must(errno)
		}
		if _, err := openQueue(canary, unix.O_CREAT|unix.O_RDWR); err != nil && !errors.Is(err, unix.EACCES) {
			must(err)
		}
	}
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	must(err)
	r.note("home", home())
	r.note("port", port)
	secretInMemory = []byte(canary)
	r.note("size", len(secretInMemory))
	r.say("tried", "leave canaries")
}

// secretInMemory keeps the canary where a reader of memory finds it.
//
//lint:ignore U1000 others are to find it
var secretInMemory []byte

// attackNeighbour looks for a canary. Its arguments are the canary, the victim's temp folder and its port.
func attackNeighbour(r *report, _ string, args []string) {
	canary, dir, port := unveiled(args[0]), args[1], args[2]
	tmp := []string{"/tmp", "/var/tmp", "/dev/shm", home(), dir}
	roots, _ := filepath.Glob("/proc/[0-9]*/root")
	for _, root := range append(roots, "") {
		for _, t := range tmp {
			text, err := os.ReadFile(filepath.Join(root+t, canary))
			r.holds(err != nil, "read %s of another Sandbox: %.8q", root+t, text)
			found, _ := os.ReadDir(root + t)
			r.holds(!slices.ContainsFunc(found, func(e os.DirEntry) bool { return e.Name() == canary }), "list %s of another Sandbox", root+t)
		}
	}
	self := strconv.Itoa(os.Getpid())
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		env, _ := os.ReadFile(p + "/environ")
		r.holds(!bytes.Contains(env, []byte(canary)), "read the environment of %s", p)
		cmd, _ := os.ReadFile(p + "/cmdline")
		r.holds(!bytes.Contains(cmd, []byte(canary)), "read the arguments of %s", p)
		if filepath.Base(p) != self {
			r.holds(!inMemory(p, []byte(canary)), "read the memory of %s", p)
		}
	}
	for _, a := range [][2]string{{"unix", "@" + canary}, {"tcp4", "127.0.0.1:" + port}, {"tcp6", "[::1]:" + port}} {
		c, err := net.DialTimeout(a[0], a[1], patience/2)
		if err == nil {
			b, _ := io.ReadAll(io.LimitReader(c, 100))
			_ = c.Close()
			r.holds(!bytes.Contains(b, []byte(canary)), "talk to another Sandbox at %s %.8s…", a[0], a[1])
			continue
		}
		r.refused(err, "connect to %s %.8s…", a[0], a[1])
	}
	id, err := unix.SysvShmGet(canaryKey(canary), 0, 0)
	r.refused(err, "attach another Sandbox's System V memory")
	if err == nil {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
	q, _, errno := unix.Syscall(unix.SYS_MSGGET, uintptr(canaryKey(canary)), 0, 0)
	r.holds(errno != 0, "open another Sandbox's System V queue: %v", errno)
	if errno == 0 {
		_, _, _ = unix.Syscall(unix.SYS_MSGCTL, q, unix.IPC_RMID, 0)
	}
	_, err = openQueue(canary, unix.O_RDWR)
	r.refused(err, "open another Sandbox's POSIX queue")
	b, err := unix.BytePtrFromString(canary)
	must(err)
	_, _, _ = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(b)), 0, 0)
	_ = os.Remove(filepath.Join("/dev/shm", canary))
	env := strings.Join(os.Environ(), "\n")
	r.holds(!strings.Contains(env, canary), "have another Sandbox's environment")
}

// inMemory looks for bytes in the writable memory of a process.
func inMemory(proc string, what []byte) bool {
	mem, err := os.Open(proc + "/mem")
	if err != nil {
		return false
	}
	defer mem.Close()
	maps, _ := os.ReadFile(proc + "/maps")
	for l := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(l, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") || to-from > 8<<20 {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, from)
		if bytes.Contains(b[:n], what) {
			return true
		}
	}
	return false
}

// attackSockets makes sockets of every family, and tries to change its network.
func attackSockets(r *report, _ string, _ []string) {
	for family := 0; family < 50; family++ {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_RDM, unix.SOCK_SEQPACKET, 10} { // 10 is SOCK_PACKET
			fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
			plain := family == unix.AF_UNIX || (family == unix.AF_INET || family == unix.AF_INET6) && (kind == unix.SOCK_STREAM || kind == unix.SOCK_DGRAM) ||
				family == unix.AF_NETLINK && (kind == unix.SOCK_RAW || kind == unix.SOCK_DGRAM)
			if !plain {
				r.refused(err, "make a socket of family %d and kind %d", family, kind)
			}
			if err == nil {
				_ = unix.Close(fd)
			}
		}
	}
	for proto := range 256 {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
			r.refused(err, "make a raw socket of protocol %d", proto)
			if err == nil {
				_ = unix.Close(fd)
			}
		}
	}
	for _, proto := range []int{unix.IPPROTO_ICMP, unix.IPPROTO_SCTP, unix.IPPROTO_UDPLITE, 262} { // 262 is MPTCP
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
			fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
			r.refused(err, "make a socket of protocol %d and kind %d", proto, kind)
			if err == nil {
				_ = unix.Close(fd)
			}
		}
	}
	for proto := 1; proto < 24; proto++ {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		r.refused(err, "make a netlink socket of protocol %d", proto)
		if err == nil {
			_ = unix.Close(fd)
		}
	}
	attackRoutes(r)
}

// attackRoutes asks rtnetlink to take the loopback down: struct nlmsghdr with struct ifinfomsg.
func attackRoutes(r *report) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		r.refused(err, "make a netlink socket")
		return
	}
	defer unix.Close(fd)
	var m [32]byte
	h := (*unix.NlMsghdr)(unsafe.Pointer(&m[0]))
	h.Len, h.Type, h.Flags = 32, unix.RTM_NEWLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK
	i := (*unix.IfInfomsg)(unsafe.Pointer(&m[16]))
	i.Index, i.Change = 1, unix.IFF_UP
	must(unix.Sendto(fd, m[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	must(err)
	code := int32(0)
	if n >= 20 {
		code = *(*int32)(unsafe.Pointer(&answer[16]))
	}
	r.holds(code == -int32(unix.EPERM), "take the loopback down: %d", code)
	links, err := net.Interfaces()
	must(err)
	for _, l := range links {
		r.holds(l.Name == "lo", "see the interface %s", l.Name)
	}
}

// attackNetwork connects to what must answer nobody. Each argument is an address; what answers says so.
func attackNetwork(r *report, _ string, args []string) {
	type result struct {
		at  string
		got []byte
		err error
	}
	results := make(chan result)
	for _, at := range args {
		go func() {
			got, err := talkTo(at)
			results <- result{at, got, err}
		}()
	}
	for range args {
		x := <-results
		r.holds(len(x.got) == 0, "talk to %s: %q %v", x.at, x.got, x.err)
	}
}

func talkTo(at string) ([]byte, error) {
	c, err := net.DialTimeout("tcp", at, patience/3)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience / 3))
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	return io.ReadAll(io.LimitReader(c, 1000))
}

// attackDials talks to one address again and again. Its arguments are how often, and the address; what it heard is a note.
func attackDials(r *report, _ string, args []string) {
	heard := 0
	for range number(args[0]) {
		got, err := talkTo(args[1])
		r.say("tried", "talk to %s: %q %v", args[1], got, err)
		if len(got) > 0 {
			heard++
		}
	}
	r.note("heard", heard)
}
