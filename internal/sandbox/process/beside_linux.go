package process

import (
	"encoding/binary"
	"fmt"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// A program beside the guest has a copy of the helper as its parent, which waits for its end and tells it to the host: process 1 tells the
// guest's end alone.

// endSize is the length of the message that tells how a program beside the guest ended: its index and its wait status, four bytes each.
const endSize = 8

// await makes the helper wait for a byte of the host's.
func (b *birth) await(what string) {
	l := &b.list
	l.Call(what, unix.SYS_READ, helper.Int(helper.ControlFD), l.Bytes(make([]byte, 8)), helper.Int(1))
}

// accompany starts a program beside the guest, which is forked later.
func (b *birth) accompany(n int, p sandbox.Program) {
	l := &b.list
	say := func(what string, message helper.Arg, size int) {
		l.Call(what, unix.SYS_WRITE, helper.Int(helper.ControlFD), message, helper.Int(size))
	}
	l.Fork("fork", unix.SYS_CLONE, []helper.Arg{helper.Int(int(unix.SIGCHLD))}, func() {
		own := b.fork(p.Command, p.Env, "/", helper.ListFD-1)
		l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(0), helper.Int(helper.ListFD), helper.Int(0))
		l.Try("name the helper", unix.SYS_PRCTL, helper.Int(unix.PR_SET_NAME), l.Text("init"))
		say("say that it runs beside", l.Text(isBeside), 1)
		end := l.Bytes(binary.LittleEndian.AppendUint64(nil, uint64(n))) // the status goes into its upper half
		l.Call("wait for its end", unix.SYS_WAIT4, own.Result(), end.At(4), helper.Int(0), helper.Int(0))
		say("tell its end", end, endSize)
		l.Call("end", unix.SYS_EXIT_GROUP, helper.Int(0))
	})
	b.await("wait until it runs beside")
}

// watch reads what comes until the helper has ended, and gives how the guest did. The line to the host gets the ends of the others.
func (b *birth) watch(c *control) func() (unix.WaitStatus, bool) {
	line := b.box.line
	line.mu.Lock()
	line.mu.proceed = c.answer
	line.mu.Unlock()
	var status unix.WaitStatus
	known, over := false, make(chan struct{})
	go func() {
		defer close(over)
		defer c.conn.Close()
		var buf [helper.FailureSize]byte
		for {
			n, err := c.conn.Read(buf[:])
			switch {
			case err != nil || n == 0:
				return
			case n == 4:
				status, known = unix.WaitStatus(binary.LittleEndian.Uint32(buf[:])), true
			case n == endSize:
				c.tell(endOf(buf[:n]))
			case n == helper.FailureSize:
				b.box.say(fmt.Sprintf("ebb: the guest cannot start: %v\n", c.list.Failure(buf[:n])))
			}
		}
	}()
	return func() (unix.WaitStatus, bool) {
		<-over
		return status, known
	}
}

// endOf reads a message of endSize.
func endOf(message []byte) (program int, status unix.WaitStatus) {
	return int(binary.LittleEndian.Uint32(message)), unix.WaitStatus(binary.LittleEndian.Uint32(message[4:]))
}

// tell passes on how a program beside the guest ended; each does so once.
func (l *line) tell(program int, status unix.WaitStatus) {
	exit := sandbox.Exit{Code: status.ExitStatus()}
	if status.Signaled() {
		exit = sandbox.Exit{Code: -1, Signal: status.Signal().String()}
	}
	select {
	case l.beside <- sandbox.End{Program: program, Exit: exit}:
	default: // a second time: nobody but the helper tells these
	}
}

// besides is the code of what could not be started, for explanations: with programs beside it the main one has not been tried yet.
func besides(c sandbox.Code, failed *helper.StepError) sandbox.Code {
	for _, p := range c.Beside {
		if failed.What == "run "+p.Command[0] {
			c.Command, c.Dir = p.Command, ""
		}
	}
	return c
}
