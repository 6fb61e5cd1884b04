package sandboxtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// The words by which a test binary knows that it is to be something else than a test.
const (
	asGuest = "sandboxtest-guest"
	asHost  = "sandboxtest-host"
)

// Main is the TestMain of a package that uses Run: it lets the test binary be a guest, or a host that is killed. drivers are
// those that Run is called with, by the same names.
func Main(m *testing.M, drivers map[string]Open) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case asGuest:
			beGuest(os.Args[2:])
		case asTemplate:
			beTemplate(os.Args[2])
		case asHost:
			beHost(drivers[os.Args[2]], os.Args[3], os.Args[4], slices.Contains(os.Args[5:], "frozen"))
		}
	}
	os.Exit(m.Run())
}

// Guest is the code of a guest program of this package, by its name and arguments. token is in the arguments of all its processes.
func Guest(token string, program ...string) sandbox.Code {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return sandbox.Code{Command: append([]string{self, asGuest, token}, program...), Mounts: []sandbox.Mount{{Source: self, Target: self}}}
}

// again starts this binary as another guest program.
func again(token string, attr *syscall.SysProcAttr, program ...string) *exec.Cmd {
	c := Guest(token, program...)
	cmd := exec.Command(c.Command[0], c.Command[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, attr
	return cmd
}

// beGuest never returns. args are the token, the program's name and its arguments.
func beGuest(args []string) {
	token, name, args := args[0], args[1], args[2:]
	arg := func(i int) int {
		n, err := strconv.Atoi(args[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	switch name {
	case "env":
		all := os.Environ()
		slices.Sort(all)
		fmt.Println(strings.Join(all, "\n"))
	case "surroundings":
		surroundings()
	case "exit":
		fmt.Println("leaving")
		os.Exit(arg(0))
	case "signal":
		fmt.Println("leaving")
		signal.Reset()
		_ = syscall.Kill(os.Getpid(), syscall.Signal(arg(0)))
		select {}
	case "crash":
		panic("guest crashes")
	case "write":
		guestWrite(arg(0), args[1])
	case "reopen": // writes as scripts and loggers do that know their output by path
		for _, path := range []string{"/dev/stdout", "/dev/stderr", "/dev/fd/1"} {
			if err := os.WriteFile(path, []byte("to "+path+"\n"), 0o666); err != nil {
				fmt.Println(err)
			}
		}
	case "line":
		guestLine()
	case "dial":
		c, err := net.Dial("tcp4", args[0])
		must(err)
		echo(c)
	case "listen":
		l, err := net.Listen("tcp4", args[0])
		must(err)
		c, err := l.Accept()
		must(err)
		echo(c)
	case "tree":
		guestTree(token, args)
	case "sleep":
		sleep()
	case "stubborn":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		fmt.Println("ready")
		for {
			<-c
			fmt.Println("refused")
		}
	case "hold": // writes to standard output for ever
		for {
			fmt.Println("still here")
			time.Sleep(5 * time.Millisecond)
		}
	case "middle": // starts another and ends, so that nobody is the parent of it
		cmd := again(token, &syscall.SysProcAttr{Setsid: true}, args...)
		must(cmd.Start())
		if args[0] == "middle" {
			must(cmd.Wait()) // the last one is there when the first has ended
		}
	case "polite":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready")
		<-c
		fmt.Println("goodbye")
	case "hog":
		fmt.Println("before")
		hog(arg(0))
		fmt.Println("survived")
	case "hogchild":
		fmt.Println("before")
		_ = again(token, nil, "hog", args[0]).Run()
		sleep()
	case "use": // touches some memory, uses some processor, then answers
		b := hog(arg(0))
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
			b[0][0]++
		}
		_, _ = line().Write([]byte("k"))
		sleep()
	case "burn": // uses milliseconds of processor time
		var u syscall.Rusage
		for u.Utime.Nano()+u.Stime.Nano() < int64(arg(0))*1e6 {
			must(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		}
		fmt.Println("burnt")
	case "forks": // one after the other, for ever
		for {
			fmt.Println("again")
			must(again(token, &syscall.SysProcAttr{Setsid: true}, "exit", "0").Run())
		}
	case "whoami":
		fmt.Println(os.Geteuid(), os.Getegid())
	case "fault": // dies of a signal that leaves a core where one may be left
		guestFault(args[0] == "true")
	case "fill":
		attacks()["fill"](&report{to: os.Stdout}, token, nil)
		sleep()
	case "bomb":
		attacks()["bomb"](&report{to: os.Stdout}, token, nil)
		sleep()
	case "attack":
		beAttack(token, args[0], args[1:])
	case "crowd":
		guestCrowd(token, arg(0))
	default:
		panic("unknown guest program " + name)
	}
	os.Exit(0)
}

func must(err error) {
	if err != nil {
		fmt.Println("guest:", err)
		os.Exit(99)
	}
}

func sleep() { time.Sleep(time.Hour) }

func line() *os.File { return os.NewFile(3, "line") }

func echo(c io.ReadWriteCloser) {
	_, _ = io.Copy(c, c)
	_ = c.Close()
}

// surroundings prints what is open and where it leads, and what else may have been inherited.
func surroundings() {
	for fd := range 256 {
		to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil || strings.HasPrefix(to, "anon_inode:[event") || strings.HasPrefix(to, "/proc/") || strings.Contains(to, "/cpu.") {
			continue // closed, or the language runtime's own
		}
		kind, _, _ := strings.Cut(to, ":")
		fmt.Printf("fd %d %s\n", fd, kind)
	}
	a, _ := os.Readlink("/proc/self/fd/1")
	b, _ := os.Readlink("/proc/self/fd/2")
	fmt.Println("same output", a == b)
	tty, err := os.Open("/dev/tty")
	fmt.Println("terminal", err == nil)
	_ = tty.Close()
	stat, _ := os.ReadFile("/proc/self/stat")
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third field on; proc_pid_stat(5)
	self := strconv.Itoa(os.Getpid())
	fmt.Println("own group and session", f[2] == self, f[3] == self)
	dir, _ := os.Getwd()
	fmt.Println("dir", dir)
	n, err := os.Stdin.Read(make([]byte, 1))
	fmt.Println("input", n, err)
}

// guestWrite writes numbered lines, in turn to standard output and standard error, and ends in a way.
func guestWrite(n int, how string) {
	for i := range n {
		f := os.Stdout
		if i%2 == 1 {
			f = os.Stderr
		}
		fmt.Fprintf(f, "line %d\n", i)
	}
	switch how {
	case "exit":
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "panic":
		panic("guest crashes")
	case "stay":
		_, _ = line().Write([]byte("k"))
		sleep()
	}
}

// guestLine writes as many bytes to standard output as each number it reads from its line says, and says when it has.
func guestLine() {
	l := line()
	b := make([]byte, 4)
	for {
		if _, err := io.ReadFull(l, b); err != nil {
			return
		}
		n := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		chunk := []byte(strings.Repeat("x", min(n, 1<<16)))
		for n > 0 {
			k, err := os.Stdout.Write(chunk[:min(n, len(chunk))])
			must(err)
			n -= k
		}
		_, err := l.Write([]byte("k"))
		must(err)
	}
}

// guestTree starts the programs named, "middle:x" meaning x without a parent, says so on its line, and sleeps, or ends when the
// last name is "end".
func guestTree(token string, programs []string) {
	end := false
	for _, p := range programs {
		if end = p == "end"; end {
			break
		}
		cmd := again(token, &syscall.SysProcAttr{Setsid: strings.HasPrefix(p, "setsid:")}, strings.Split(strings.TrimPrefix(p, "setsid:"), ":")...)
		if rest, bare := strings.CutPrefix(p, "bare:"); bare { // without any environment
			cmd = again(token, nil, strings.Split(rest, ":")...)
			cmd.Env = []string{}
		}
		must(cmd.Start())
		if strings.Contains(p, "middle") {
			must(cmd.Wait())
		}
	}
	if !end {
		if l := line(); l != nil {
			_, _ = l.Write([]byte("k"))
		}
		sleep()
	}
}

// guestCrowd starts processes until it cannot or there are most, and says how many there are.
func guestCrowd(token string, most int) {
	n := 0
	for ; n < most; n++ {
		if again(token, nil, "sleep").Start() != nil {
			break
		}
	}
	fmt.Println("started", n)
	_, _ = line().Write([]byte("k"))
	sleep()
}

// guestFault is killed by SIGSEGV as if its memory were broken. It asks for a core before, or, with none, for the least there is.
func guestFault(none bool) {
	var l syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_CORE, &l))
	if l.Cur = l.Max; none {
		l = syscall.Rlimit{}
	}
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &l)
	signal.Reset()
	debug.SetTraceback("crash") // or else the language's runtime makes it an ordinary end
	_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
	select {}
}

// hog takes megabytes of memory, and the machine's time to notice.
func hog(megabytes int) [][]byte {
	var all [][]byte
	for range megabytes {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
		time.Sleep(500 * time.Microsecond)
	}
	return all
}

// beHost runs a driver with guests until it is killed.
func beHost(open Open, dir, token string, frozen bool) {
	d, err := open(dir)
	must(err)
	for i, program := range hostGuests {
		s, err := d.Prepare(context.Background(), sandbox.Spec{ID: token + "-" + strconv.Itoa(i)})
		must(err)
		c, err := s.Start(context.Background(), Guest(token, program...))
		must(err)
		_, err = io.ReadFull(c.Stream(), make([]byte, 1))
		must(err)
		if frozen {
			must(s.Freeze())
		}
	}
	fmt.Println("ready")
	sleep()
}

// hostGuests are the guests of a host that is killed.
var hostGuests = [][]string{
	{"tree"},
	{"tree", "sleep", "stubborn"},
	{"tree", "middle:sleep", "middle:middle:stubborn", "setsid:hold"},
}
