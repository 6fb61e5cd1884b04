package confine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Arguments are such that the kernel itself would answer otherwise, and do nothing, if the filter let them through.
var harmlessTries = []struct {
	name string
	args string
	want unix.Errno
}{
	{"ptrace", "0", unix.EPERM},
	{"process_vm_readv", "0,0,0,0,0,99", unix.EPERM},
	{"process_vm_writev", "0,0,0,0,0,99", unix.EPERM},
	{"kcmp", "0,0,99", unix.EPERM},
	{"pidfd_getfd", "4095,4095,99", unix.EPERM},
	{"keyctl", "9999", unix.EPERM},
	{"add_key", "0", unix.EPERM},
	{"request_key", "0", unix.EPERM},
	{"bpf", "9999", unix.EPERM},
	{"perf_event_open", "0", unix.EPERM},
	{"userfaultfd", "4095", unix.EPERM},
	{"kexec_load", "0,99", unix.EPERM},
	{"init_module", "0", unix.EPERM},
	{"finit_module", "4095", unix.EPERM},
	{"delete_module", "0", unix.EPERM},
	{"mount", "0,0,0,0,0", unix.EPERM},
	{"umount2", "0,4095", unix.EPERM},
	{"fsopen", "0,4095", unix.EPERM},
	{"fsconfig", "4095,99", unix.EPERM},
	{"fsmount", "4095,99", unix.EPERM},
	{"fspick", "4095,0,4095", unix.EPERM},
	{"open_tree", "4095,0,2", unix.EPERM},
	{"move_mount", "4095,0,4095,0,4095", unix.EPERM},
	{"mount_setattr", "4095,0,1", unix.EPERM},
	{"pivot_root", "0", unix.EPERM},
	{"chroot", "0", unix.EPERM},
	{"swapon", "0,4095", unix.EPERM},
	{"swapoff", "0", unix.EPERM},
	{"reboot", "0", unix.EPERM},
	{"settimeofday", "0", unix.EPERM},
	{"clock_settime", "99", unix.EPERM},
	{"adjtimex", "0", unix.EPERM},
	{"clock_adjtime", "99", unix.EPERM},
	{"quotactl", "0", unix.EPERM},
	{"acct", "1", unix.EPERM},
	{"open_by_handle_at", "4095,0", unix.EPERM},
	{"name_to_handle_at", "4095,0", unix.EPERM},
	{"fanotify_init", "99999", unix.EPERM},
	{"fanotify_mark", "4095", unix.EPERM},
	{"unshare", "0", unix.EPERM},
	{"unshare", "268435456", unix.EPERM},
	{"setns", "4095", unix.EPERM},
	{"clone", "268435456", unix.EPERM},
	{"clone", "1073741824", unix.EPERM},
	{"clone3", "0", unix.ENOSYS},
	{"io_uring_setup", "0", unix.ENOSYS},
	{"io_uring_enter", "4095", unix.ENOSYS},
	{"sethostname", "0,4095", unix.EPERM},
	{"syslog", "99", unix.EPERM},
	{"ioctl", "4095,21522", unix.EPERM},
	{"ioctl", "4095,18446744069414605842", unix.EPERM}, // with an upper half that the kernel does not see
	{"ioctl", "4095,21505", unix.EBADF},
	{"personality", "262144", unix.EPERM},
	{"personality", "4294967295", 0},
	{"mknodat", "4095,0,8192", unix.EPERM},
	{"mknodat", "4095,0,4096", unix.EFAULT},
	{"socket", "2,3,1", unix.EPERM},
	{"socket", "2,10,768", unix.EPERM},
	{"socket", "17,3,768", unix.EAFNOSUPPORT},
	{"socket", "38,5,0", unix.EAFNOSUPPORT},
	{"socket", "40,1,0", unix.EAFNOSUPPORT},
	{"socket", "16,3,12", unix.EPROTONOSUPPORT},
	{"socket", "16,3,0", 0},
	{"socket", "2,1,262", unix.EPROTONOSUPPORT},
	{"socket", "2,1,0", 0},
	{"socket", "10,2,0", 0},
	{"socket", "1,1,0", 0},
	{"syncfs", "4095", 0},
	{"iopl", "0", unix.EPERM},
	{"ioperm", "0,99999", unix.EPERM},
}

func TestSeccomp_HoldsInTheKernel(t *testing.T) {
	t.Parallel()
	byName := map[string]int{}
	for _, n := range numbers {
		byName[n.name] = machines[runtime.GOARCH].number(n)
	}
	type try struct {
		what string
		want unix.Errno
	}
	args, tries := []string{"confine-calls"}, []try(nil)
	for _, h := range harmlessTries {
		if nr := byName[h.name]; nr >= 0 {
			args = append(args, strconv.Itoa(nr)+","+h.args)
			tries = append(tries, try{h.name + "(" + h.args + ")", h.want})
		}
	}
	args = append(args, "2047", "1073741863") // the future, and getpid of the x32 ABI
	tries = append(tries, try{"an unknown call", unix.ENOSYS}, try{"an x32 call", unix.ENOSYS})

	out, err := self(t, args...).CombinedOutput()
	lines := strings.Fields(string(out))
	if err != nil || len(lines) != len(tries) {
		t.Fatalf("%v, %d of %d calls answered:\n%s", err, len(lines), len(tries), out)
	}
	for i, l := range lines {
		if n, _ := strconv.Atoi(l); unix.Errno(n) != tries[i].want {
			t.Errorf("%s: %v, want %v", tries[i].what, unix.Errno(n), tries[i].want)
		}
	}
}

// real is a program that must work under both filters, with a folder of its own in /tmp.
type real struct {
	name    string
	program string   // looked for in PATH, or by find
	args    []string // @ is the folder
	want    string   // the last line it prints
}

var reals = []real{
	{"sh", "sh", []string{"-c", "cd @ && echo one >a && mkdir b && mv a b/ && ln b/a c && ln -s c d && cat d | tr a-z A-Z >e; (sleep 0; echo $(cat e)) & wait; " +
		"mkfifo f && (echo x >f &) && cat f >/dev/null; rm -r b && date >/dev/null && echo fine 2>/dev/null"}, "fine"},
	{"node", "node", []string{"-e", nodeScript, "@"}, "fine"},
	{"python", "python3", []string{"-c", pythonScript, "@"}, "fine"},
	{"go", "", []string{"confine-go", "@"}, "fine"},
	{"curl", "curl", []string{"--version"}, ""},
	{"git", "sh", []string{"-c", "cd @ && export HOME=@ GIT_CONFIG_NOSYSTEM=1 && git init -q . && echo x >x && git add x && " +
		"git -c user.name=a -c user.email=a%b commit -qm x && git gc -q && git clone -q . copy && cat copy/x"}, "x"},
}

const nodeScript = `
const fs = require('fs'), path = require('path'), net = require('net'), crypto = require('crypto'), zlib = require('zlib');
const { Worker } = require('worker_threads'), { execFileSync, fork } = require('child_process');
const dir = process.argv[1], wait = (emitter, event) => new Promise((ok, no) => emitter.once(event, ok).once('error', no));
(async () => {
  fs.mkdirSync(path.join(dir, 'a/b'), { recursive: true });
  await fs.promises.writeFile(path.join(dir, 'a/x'), 'x');
  await fs.promises.rename(path.join(dir, 'a/x'), path.join(dir, 'a/b/x'));
  fs.copyFileSync(path.join(dir, 'a/b/x'), path.join(dir, 'y'));
  fs.watch(dir).close();
  const w = new Worker("require('worker_threads').parentPort.postMessage(require('crypto').pbkdf2Sync('a','b',1000,32,'sha256'))", { eval: true });
  await wait(w, 'message'); await w.terminate();
  await new Promise((ok, no) => crypto.generateKeyPair('ec', { namedCurve: 'P-256' }, e => e ? no(e) : ok()));
  await new Promise((ok, no) => zlib.gzip('a'.repeat(1e5), e => e ? no(e) : ok()));
  if (execFileSync('/bin/sh', ['-c', 'echo child | cat']).toString() !== 'child\n') throw new Error('child');
  for (const at of [path.join(dir, 's'), 0]) {
    const s = net.createServer(c => c.end('hello')).listen(at); await wait(s, 'listening');
    const c = net.connect(at || s.address().port); const got = await wait(c, 'data');
    if (got.toString() !== 'hello') throw new Error('net'); s.close();
  }
  require('os').networkInterfaces(); require('os').cpus();
  const u = require('dgram').createSocket('udp4'); u.bind(0); await wait(u, 'listening'); u.close();
  await new WebAssembly.Module(new Uint8Array([0,97,115,109,1,0,0,0]));
  console.log('fine');
})().catch(e => { console.error(e); process.exit(1); });
`

const pythonScript = `
import sys, os, threading, subprocess, sqlite3, multiprocessing, tempfile, socket, ssl, asyncio, mmap, shutil, select, ctypes
d = sys.argv[1]
def square(n): return n * n
def main():
    ts = [threading.Thread(target=square, args=(i,)) for i in range(8)]
    [t.start() for t in ts]; [t.join() for t in ts]
    assert subprocess.run(['/bin/sh', '-c', 'cat'], input=b'x', capture_output=True).stdout == b'x'
    db = sqlite3.connect(os.path.join(d, 'db')); db.execute('pragma journal_mode=wal'); db.execute('create table t(x)')
    db.executemany('insert into t values (?)', [(i,) for i in range(1000)]); db.commit()
    assert db.execute('select count(*) from t').fetchone() == (1000,); db.execute('vacuum'); db.close()
    for kind in 'fork', 'spawn', 'forkserver':
        with multiprocessing.get_context(kind).Pool(2) as p: assert p.map(abs, [-1, -2]) == [1, 2]
    m = multiprocessing.shared_memory.SharedMemory(create=True, size=100); m.close(); m.unlink()
    with tempfile.TemporaryFile(dir=d) as f: f.write(b'x' * 10000); f.flush(); os.fsync(f.fileno()); mmap.mmap(f.fileno(), 0).close()
    os.makedirs(os.path.join(d, 'p/q')); open(os.path.join(d, 'p/x'), 'w').close(); os.replace(os.path.join(d, 'p/x'), os.path.join(d, 'p/q/x'))
    shutil.copytree(os.path.join(d, 'p'), os.path.join(d, 'r')); os.link(os.path.join(d, 'p/q/x'), os.path.join(d, 'lx')); os.mkfifo(os.path.join(d, 'ff'))
    s = socket.socket(socket.AF_UNIX); s.bind(os.path.join(d, 'py')); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect(os.path.join(d, 'py'))
    a = socket.socket(socket.AF_UNIX); a.bind('\0confine-test-%d' % os.getpid()); a.listen(); socket.socket(socket.AF_UNIX).connect(a.getsockname())
    ssl.create_default_context(); asyncio.run(asyncio.create_subprocess_exec('/bin/true')); socket.if_nameindex()
    with open('/dev/null', 'w') as n: n.write('x')
    os.sync(); os.posix_spawn('/bin/true', ['true'], {}); os.wait()
    print('fine')
import multiprocessing.shared_memory
if __name__ == '__main__': main()
`

// goProgram does with Go's runtime what servers do.
func goProgram(args []string) error {
	dir := args[0]
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { runtime.LockOSThread(); sha256.Sum256(make([]byte, 1<<16)) })
	}
	wg.Wait()
	if err := exec.Command("/bin/true").Run(); err != nil {
		return err
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer server.Close()
	answer, err := http.Get(server.URL)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	var mptcp net.ListenConfig
	mptcp.SetMultipathTCP(true)
	l, err := mptcp.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_ = l.Close()
	if _, err := net.Interfaces(); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dir, "copy"), os.DirFS("/etc/ssl")); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	fmt.Println("fine")
	return nil
}

func TestReal_ProgramsWorkConfined(t *testing.T) {
	t.Parallel()
	what := "both"
	if LandlockABI() < leastLandlock {
		t.Log("this kernel has no Landlock: only the filter of system calls is tried")
		what = "seccomp"
	}
	for _, r := range reals {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("/tmp", "confine-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			cmd := self(t, append([]string{"confine-exec", what, find(t, r.program)}, r.args...)...)
			for i := range cmd.Args {
				cmd.Args[i] = strings.ReplaceAll(cmd.Args[i], "@", dir)
			}
			cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=" + dir}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err = cmd.Run()
			lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
			if last := lines[len(lines)-1]; err != nil || r.want != "" && last != r.want {
				t.Errorf("%v, printed %q\n%s", err, stdout.String(), stderr.String())
			}
		})
	}
}

// find gives a program's file, past wrappers that need more than it.
func find(t *testing.T, program string) string {
	t.Helper()
	if program == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return exe
	}
	file, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed here", program)
	}
	if program == "python3" {
		out, err := exec.Command(file, "-c", "import sys; print(sys.executable)").Output()
		if err != nil {
			t.Fatal(err)
		}
		file = strings.TrimSpace(string(out))
	}
	return file
}

func TestSeccomp_ProgramsFor32BitsAreKilled(t *testing.T) {
	t.Parallel()
	gcc, err := exec.LookPath("gcc")
	if err != nil || runtime.GOARCH != "amd64" {
		t.Skip("needs gcc on amd64 to make a program that calls the kernel by its 32-bit entry")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "a.c"), filepath.Join(dir, "a")
	// getpid by int 0x80: the architecture is i386 for the filter, though the program is not.
	if err := os.WriteFile(source, []byte(`int main(void) { int r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20)); return r > 0 ? 0 : 1; }`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := exec.Command(program).Run(); err != nil {
		t.Skipf("this kernel has no 32-bit entry: %v", err)
	}
	err = self(t, "confine-exec", "seccomp", program).Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
		t.Errorf("the program ended with %v, want bad system call", err)
	}
}
