package process

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// proc is one process as /proc/pid/stat shows it; proc_pid_stat(5).
type proc struct {
	pid, ppid, group, session int
	start                     uint64 // with pid, identifies it
	dead                      bool
}

// listProcs lists all processes that this one can see.
func listProcs() []proc {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	all := make([]proc, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := readProc(pid); ok {
				all = append(all, p)
			}
		}
	}
	return all
}

func readProc(pid int) (proc, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return proc{}, false
	}
	// The name in parentheses may hold anything, also parentheses.
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(f) < 20 {
		return proc{}, false
	}
	num := func(i int) int { n, _ := strconv.Atoi(string(f[i])); return n }
	start, _ := strconv.ParseUint(string(f[19]), 10, 64)
	return proc{
		pid: pid, ppid: num(1), group: num(2), session: num(3), start: start,
		dead: f[0][0] == 'Z' || f[0][0] == 'X',
	}, true
}

// markOf is the value of the marker in a process's environment, or "".
func markOf(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	for kv := range bytes.SplitSeq(text, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte(marker+"=")); ok {
			return string(v)
		}
	}
	return ""
}

// family picks the processes that belong to a Sandbox: those with its mark, those in the session or group of its main process
// (0 when unknown), and the descendants of all these.
func family(all []proc, marked func(proc) bool, pid int) []proc {
	self := os.Getpid()
	in := make(map[int]bool)
	var found []proc
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if in[p.pid] || p.dead || p.pid == self || p.pid == 1 {
				continue
			}
			led := pid > 0 && (p.pid == pid || p.group == pid || p.session == pid)
			if led || in[p.ppid] || marked(p) {
				in[p.pid], grown = true, true
				found = append(found, p)
			}
		}
	}
	return found
}

// killMarked kills the processes whose mark is wanted, those of the group or session of pid where it is not 0, and all their
// descendants. It returns how many it found.
func killMarked(wanted func(mark string) bool, pid int) int {
	marks := map[int]string{}
	found := family(listProcs(), func(p proc) bool {
		m, read := marks[p.pid]
		if !read {
			m = markOf(p.pid)
			marks[p.pid] = m
		}
		return m != "" && wanted(m)
	}, pid)
	for _, p := range found {
		killSame(p)
	}
	return len(found)
}

// killSame kills a process unless its number means another one by now.
func killSame(p proc) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		if err == unix.ENOSYS {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		return
	}
	defer unix.Close(fd)
	if now, ok := readProc(p.pid); ok && now.start == p.start {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}
