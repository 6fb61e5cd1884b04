package lambda_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
)

// kept is a Sink that keeps the answer.
type kept struct {
	bytes.Buffer
	head invocation.Head
}

func (a *kept) Start(h invocation.Head) error { a.head = h; return nil }
func (a *kept) Upgrade(invocation.Head) (net.Conn, error) {
	return nil, errs.New(errs.Unsupported, "no connection")
}

// told waits for lines of a driver's log.
type told struct{ lines chan string }

func (w told) Write(p []byte) (int, error) {
	select {
	case w.lines <- string(p):
	default:
	}
	return len(p), nil
}

// nursery starts Python functions in Sandboxes, as copies of a zygote or executed.
type nursery struct {
	t      *testing.T
	proto  *lambda.Protocol
	driver *process.Driver
	log    told
}

func newNursery(t *testing.T) *nursery {
	t.Helper()
	n := &nursery{t: t, log: told{make(chan string, 100)}}
	var err error
	if n.proto, err = lambda.New(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if n.driver, err = process.Open(process.Options{Dir: t.TempDir(), Log: debugLog(n.log)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.driver.Close() })
	if !n.driver.Traits().Mounts {
		t.Skip("this machine isolates no guests, so none is a copy")
	}
	return n
}

// unit is a function whose app.py is text.
func (n *nursery) unit(text string, env ...string) *guest.Unit {
	u := pythonUnit(n.t, "app.handler", map[string]string{"app.py": text})
	// A shim of a version manager is outside of Sandboxes.
	real, err := exec.Command(u.Interpreter[0], append(u.Interpreter[1:], "-c", "import sys; print(sys.executable)")...).Output()
	if err != nil {
		n.t.Fatal(err)
	}
	u.Mounts, u.Env, u.Interpreter = true, env, []string{strings.TrimSpace(string(real))}
	return u
}

// Ways in which an Instance starts.
const (
	executed = "executed"
	copied   = "copied"
	ahead    = "copied ahead"
)

// call starts an Instance, invokes it once and gives the answer.
func (n *nursery) call(u *guest.Unit, how string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	code, err := n.proto.Code(u, "")
	if err != nil {
		n.t.Fatal(err)
	}
	if code.Template == nil {
		n.t.Fatal("the function has no template")
	}
	if how != ahead {
		code.Template.Ahead = nil
	}
	if how == executed {
		code.Template = nil
	}
	out := &bytes.Buffer{}
	b, err := n.driver.Prepare(ctx, sandbox.Spec{ID: "x", Transport: sandbox.Stream, Output: out, Limits: sandbox.Limits{MemoryBytes: 256 << 20, Processes: 100}})
	if err != nil {
		n.t.Fatal(err)
	}
	defer b.Stop(0)
	c, err := b.Start(ctx, code)
	if err != nil {
		n.t.Fatal(err)
	}
	s, err := n.proto.Open(ctx, c, u)
	if err != nil {
		b.Flush()
		n.t.Fatalf("%v; output:\n%s", err, out)
	}
	defer s.Close()
	a := &kept{}
	inv := &invocation.Invocation{ID: "8476a536-e9f4-11e8-9739-2dfe598c3fcd", Tenant: "default", Function: u.Function, Mode: invocation.ModeRequest, Attempt: 1, Deadline: time.Now().Add(20 * time.Second), Payload: invocation.Raw("{}")}
	if err := s.Invoke(ctx, inv, a); err != nil || a.head.Error != nil {
		n.t.Fatalf("%v, %+v: %s", err, a.head.Error, a)
	}
	return a.String()
}

// came is the answer of an Instance that started in a way, which a busy machine may deny it: then it is executed.
func (n *nursery) came(u *guest.Unit, how string) string {
	n.t.Helper()
	if how == ahead {
		return n.ahead(u)
	}
	for range 20 {
		answer := n.call(u, how)
		if how == executed {
			return answer
		}
		for len(n.log.lines) > 0 {
			if strings.Contains(<-n.log.lines, "is a copy") {
				return answer
			}
		}
	}
	n.t.Fatal("no Instance is a copy")
	return ""
}

// ahead is the answer of an Instance that waited for its function as a copy.
func (n *nursery) ahead(u *guest.Unit) string {
	n.t.Helper()
	n.call(u, ahead) // says what is wanted
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if n.driver.ReadyFor(u.Runtime) == 0 {
			continue
		}
		for len(n.log.lines) > 0 {
			<-n.log.lines
		}
		before := n.driver.Readied()
		answer := n.call(u, ahead)
		direct := false
		for len(n.log.lines) > 0 {
			direct = strings.Contains(<-n.log.lines, "is a copy") || direct
		}
		if !direct && n.driver.Readied() > before {
			return answer
		}
	}
	n.t.Fatal("no Instance waited as a copy")
	return ""
}

// ready starts a function so that its zygote is brought up, and waits for that.
func (n *nursery) ready(u *guest.Unit) {
	n.t.Helper()
	n.call(u, copied)
	n.expect("copies can be had")
}

// expect waits for something in the log.
func (n *nursery) expect(what string) {
	n.t.Helper()
	end := time.After(30 * time.Second)
	for {
		select {
		case line := <-n.log.lines:
			if strings.Contains(line, what) {
				return
			}
			if strings.Contains(line, "no copies can be had") {
				n.t.Fatal(line)
			}
		case <-end:
			n.t.Fatalf("the log does not say %q", what)
		}
	}
}

// dump gives everything about its process that a function might look at.
const dump = `
import logging # whose import ebb's bootstrap looks for
import codecs, ctypes, gc, io, locale, os, resource, signal, site, socket, sys, sysconfig, tempfile, threading, time, warnings
main = sys.modules['__main__']
def status():
    want = ('Umask', 'State', 'Tgid', 'Ngid', 'Pid', 'PPid', 'TracerPid', 'Uid', 'Gid', 'Groups', 'NSpid', 'NStgid', 'NSpgid', 'NSsid', 'Threads', 'SigQ', 'SigPnd', 'ShdPnd', 'SigBlk', 'SigIgn', 'SigCgt',
            'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters', 'CoreDumping', 'THP_enabled', 'Cpus_allowed')
    return {k: v.strip() for k, _, v in (l.partition(':') for l in open('/proc/self/status')) if k in want}
def text(f): return [str(getattr(f, a, None)) for a in ('name', 'mode', 'encoding', 'errors', 'line_buffering', 'write_through', 'newlines')] + [f.isatty(), f.seekable(), type(f.buffer).__name__, f.fileno()]
def frozen(o): return repr(o).replace(' object at 0x', '\0').split('\0')[0]
def links(d): return sorted((f, os.readlink(d + '/' + f).split(':')[0]) for f in os.listdir(d) if os.path.islink(d + '/' + f))
def look():
    libc = ctypes.CDLL(None)
    fds = {}
    for n in range(64):
        try: fds[n] = os.readlink('/proc/self/fd/%d' % n).split(':')[0], os.get_inheritable(n)
        except OSError: pass
    return {
        'others': sorted(p for p in os.listdir('/proc') if p.isdigit()), # before there are any by its own making
        'flags': str(sys.flags), 'path': sys.path, 'argv': sys.argv, 'orig_argv': getattr(sys, 'orig_argv', None), 'executable': sys.executable, 'base': getattr(sys, '_base_executable', None),
        'prefixes': [sys.prefix, sys.base_prefix, sys.exec_prefix], 'environ': dict(os.environ), 'raw': sorted((k.decode(), v.decode()) for k, v in __import__('posix').environ.items()),
        'c environ': [libc.getenv(b'TZ') != 0, libc.getenv(b'MINE') != 0, libc.getenv(b'LD_PRELOAD')], 'child': os.popen('/usr/bin/env | sort').read(),
        'cwd': os.getcwd(), 'root': sorted(os.listdir('/')), 'links': os.readlink('/proc/self/cwd'), 'exe': os.readlink('/proc/self/exe'), 'comm': open('/proc/self/comm').read(), 'cmdline': open('/proc/self/cmdline').read(), 'procenv': sorted(open('/proc/self/environ').read().split('\0')),
        'main': sorted((k, frozen(v)) for k, v in vars(main).items() if k.startswith('__') and k != '__builtins__'), 'main names': sorted(vars(main)), 'loader': [type(main.__loader__).__name__, main.__loader__.name, main.__loader__.path],
        'encodings': [sys.getdefaultencoding(), sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), locale.getpreferredencoding(), str(locale.getlocale()), locale.setlocale(locale.LC_ALL)],
        'files': [text(sys.stdin), text(sys.stdout), text(sys.stderr)], 'fds': fds,
        'time': [time.tzname, time.timezone, time.daylight, time.strftime('%Z %H', time.localtime(0))],
        'site': [site.ENABLE_USER_SITE, site.USER_SITE, site.USER_BASE, os.path.expanduser('~')], 'bytecode': [sys.dont_write_bytecode, sys.pycache_prefix],
        'hooks': [frozen(f) for f in sys.meta_path] + [frozen(f)[:30] for f in sys.path_hooks], 'warnings': [str(w) for w in warnings.filters],
        'gc': [gc.isenabled(), gc.get_threshold(), gc.get_debug()], 'limits of python': [sys.getrecursionlimit(), sys.getswitchinterval(), sys.maxsize],
        'threads': [threading.active_count(), threading.main_thread() is threading.current_thread(), threading.main_thread().ident == threading.get_ident(), threading.main_thread().native_id, threading.current_thread().name],
        'ids': [os.getpid(), os.getppid(), os.getsid(0), os.getpgid(0), os.getresuid(), os.getresgid(), os.getgroups(), os.uname().nodename, socket.gethostname()],
        'umask': os.umask(0o22), 'status': status(), 'signals': [str(signal.getsignal(s)).split(' at ')[0] for s in range(1, 65) if s not in (32, 33)],
        'limits': {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith('RLIMIT_')}, 'nice': [os.nice(0), os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))],
        'dumpable': [libc.prctl(3), oct(os.stat('/proc/self/fd').st_mode), os.stat('/proc/self/environ').st_uid], 'death': libc.prctl(2, ctypes.byref(ctypes.c_int())), 'oom': open('/proc/self/oom_score_adj').read(),
        'namespaces': links('/proc/self/ns'), 'mounts': [l.split()[4:6] for l in open('/proc/self/mountinfo')], 'cgroup': [l.split(':')[1] for l in open('/proc/self/cgroup')],
        'init': [open('/proc/1/comm').read(), os.access('/proc/1/mem', os.R_OK)], 'tmp': [tempfile.gettempdir(), os.listdir('/tmp')], 'net': sorted(n for _, n in socket.if_nameindex()),
        'codecs': codecs.lookup('utf-8').name, 'logging': [frozen(h) for h in __import__('logging').root.handlers], 'sysconfig': sysconfig.get_paths()['stdlib'], 'recursive': threading.RLock().acquire(), 'relative': __import__('logging').makeLogRecord({}).relativeCreated < 20000,
    }
seen = look()
def handler(e, c): return seen
`

func TestZygote_CopyFindsWhatAnExecutedGuestFinds(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{
		"as it is": {"MINE=1"}, "another locale and zone": {"MINE=1", "LANG=C", "LC_ALL=C.UTF-8", "TZ=Asia/Tokyo", "HOME=/tmp"},
		"a search path": {"MINE=ü", "PYTHONPATH=/var/task/lib:/opt/none"}, "no locale": {"MINE=", "LANG=POSIX"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNursery(t)
			u := n.unit(dump, env...)
			n.ready(u)
			first := decode(t, n.came(u, executed))
			for _, how := range []string{copied, ahead} {
				found := decode(t, n.came(u, how))
				for what, want := range first {
					if got := found[what]; got != want {
						t.Errorf("%s:\n%s %s\n%s %s", what, how, got, executed, want)
					}
				}
			}
			if len(first) < 40 {
				t.Errorf("%d things were looked at", len(first))
			}
		})
	}
}

func decode(t *testing.T, text string) map[string]string {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for k, v := range raw {
		all[k] = string(v)
	}
	return all
}

func TestZygote_CopiesShareNoRandomState(t *testing.T) {
	t.Parallel()
	n := newNursery(t)
	u := n.unit(`
import hashlib, os, random, secrets, ssl, tempfile, uuid, threading
def handler(e, c):
    return {'random': random.random(), 'own': random.Random().random(), 'system': random.SystemRandom().random(), 'uuid4': str(uuid.uuid4()), 'uuid1': str(uuid.uuid1()), 'secrets': secrets.token_hex(),
            'urandom': os.urandom(16).hex(), 'ssl': ssl.RAND_bytes(16).hex(), 'mktemp': tempfile.mktemp(), 'mkdtemp': tempfile.mkdtemp(), 'choice': ''.join(random.choices('abcdefghij', k=30)), 'pid': os.getpid()}`)
	n.ready(u)
	seen := map[string]bool{}
	for i := range 10 {
		for what, value := range decode(t, n.came(u, []string{copied, ahead}[i%2])) {
			key := fmt.Sprintf("%s %s", what, value)
			if seen[key] && what != "pid" {
				t.Errorf("two copies have the same %s: %s", what, value)
			}
			seen[key] = true
		}
	}
	if ready, bytes, started := n.driver.Templates(); ready == 0 || bytes < 1<<20 || started < 10 {
		t.Errorf("the driver tells of %d that are ready, with %d bytes, and %d starts", ready, bytes, started)
	}
}

func debugLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
