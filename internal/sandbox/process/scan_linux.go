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
	stopped                   bool // by a signal
	waits                     bool // in the kernel, until it gets what it waits for
	unborn                    bool // in the middle of exec: its environment cannot be read yet
}

// listProcs lists all processes that this one can see, and how many ended while it was looking.
func listProcs() (all []proc, vanished int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	all = make([]proc, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, ok := readProc(pid); ok {
			all = append(all, p)
		} else {
			vanished++
		}
	}
	return all, vanished
}

func readProc(pid int) (proc, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return proc{}, false
	}
	// The name in parentheses may hold anything, also parentheses.
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(f) < 49 {
		return proc{}, false
	}
	num := func(i int) int { n, _ := strconv.Atoi(string(f[i])); return n }
	start, _ := strconv.ParseUint(string(f[19]), 10, 64)
	const kernelThread = 0x00200000 // PF_KTHREAD; these have no environment either
	envEnd := string(f[48])         // 0 also for processes of other users, whose environment cannot be read at all
	return proc{
		pid: pid, ppid: num(1), group: num(2), session: num(3), start: start,
		dead:    f[0][0] == 'Z' || f[0][0] == 'X',
		stopped: f[0][0] == 'T',
		waits:   f[0][0] == 'D',
		unborn:  envEnd == "0" && num(6)&kernelThread == 0,
	}, true
}

// markOf is the value of the marker in a process's environment, or "". It is certain when it will not change.
func markOf(p proc) (mark string, certain bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
	if err != nil {
		return "", true // ended, or of another user
	}
	for kv := range bytes.SplitSeq(text, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte(marker+"=")); ok {
			return string(v), true
		}
	}
	// Between stat and environ it may have begun an exec.
	if now, ok := readProc(p.pid); len(text) == 0 && ok && !now.dead && (p.unborn || now.unborn) {
		return "", false
	}
	return "", true
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

// hunt kills the processes whose mark is wanted, those of the group or session of pid where it is not 0, and all their
// descendants.
type hunt struct {
	wanted func(mark string) bool
	quiet  int // passes in a row that found nothing
}

// pass looks at all processes once and kills what it finds. It reports whether nothing is left. A process that forks and ends,
// or that is in the middle of exec, can escape one look; so a pass in which there was any such process is not trusted alone.
func (h *hunt) pass(pid int) bool {
	found, unsure, vanished := h.find(pid)
	for _, p := range found {
		signalSame(p, unix.SIGKILL)
	}
	h.quiet++
	if len(found) > 0 {
		h.quiet = 0
	}
	switch {
	case h.quiet == 0:
		return false
	case unsure > 0:
		return h.quiet > 20
	case vanished > 0:
		return h.quiet > 2
	}
	return true
}

// find looks at all processes once. unsure are those that could not be looked at, vanished those that ended meanwhile.
func (h *hunt) find(pid int) (found []proc, unsure, vanished int) {
	all, vanished := listProcs()
	marks := map[int]string{}
	found = family(all, func(p proc) bool {
		m, read := marks[p.pid]
		if !read {
			var certain bool
			if m, certain = markOf(p); !certain {
				unsure++
			}
			marks[p.pid] = m
		}
		return m != "" && h.wanted(m)
	}, pid)
	return found, unsure, vanished
}

// signalSame signals a process unless its number means another one by now.
func signalSame(p proc, s unix.Signal) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		if err == unix.ENOSYS {
			_ = unix.Kill(p.pid, s)
		}
		return
	}
	defer unix.Close(fd)
	if now, ok := readProc(p.pid); ok && now.start == p.start {
		_ = unix.PidfdSendSignal(fd, s, nil, 0)
	}
}
