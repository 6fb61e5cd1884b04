//go:build linux

// Package helper is the small static program that is process 1 of every Sandbox.
//
// Main types: [List], the system calls that the program makes before the guest runs, and [Image], the program.
//
// Between clone and the guest's own program somebody inside the new namespaces has to mount, to pass listeners to the host, to give up
// rights and to fork. A Go program would take milliseconds and megabytes for that, once for each Sandbox, and would have to stay: process
// 1 takes in orphans. So the program is a hundred instructions that know nothing: the host makes out a list of system calls with all
// their arguments in place, and the program works through it. In the end it takes in orphans until the guest has ended.
//
// Guarantees:
//
//  1. A step that fails, unless it may, ends the program with status [Failed] after the step was written to the control descriptor, from
//     which [List.Failure] says what it was.
//  2. While it serves, a SIGTERM to it is passed on to every other process in the namespace and all ended children are waited for. The
//     guest's end writes four bytes, its wait status, to the control descriptor before the program ends, and with it all that is left.
//  3. It uses no memory of its own but the list's.
//  4. A process that has mapped it and a list ([ListAt]) can call it as a C function of one argument, the list's address. It returns where the
//     list says so ([List.Return]), in whichever copy of the process gets there, and leaves the stack as it was.
//
// It knows nothing of namespaces, mounts or guests: package process makes the lists.
package helper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

const (
	// ListFD is the descriptor that the program finds its list at.
	ListFD = 4
	// ControlFD is the descriptor that it writes failures and the guest's wait status to.
	ControlFD = 5
	// Failed is its exit status after a failure.
	Failed = 111
	// FailureSize is the length of a failure on the control descriptor, in bytes. A wait status has four.
	FailureSize = stepSize
)

// The assembly knows all of these.
const (
	base     = 0x20000000 // where the program maps the list when it is executed
	room     = 1 << 20    // and how much of it, in bytes
	stepSize = 72
	atArgs   = 8
	atFlags  = 56 // bit 0: the step may fail; the others: its index
	atResult = 64

	opBranch = ^uint64(0) // if *(a0) == 0 go on at a1
	opServe  = ^uint64(1) // a0: the guest's number; a1: the signals to wait for; a2: room for a status
	opCopy   = ^uint64(2) // *(a0) = *(a1), eight bytes
	opCopy32 = ^uint64(3) // four bytes
	opReturn = ^uint64(4) // return a0 to the caller
)

// dataAt is where the data begins, behind the steps.
const dataAt = 256 << 10

// Room is how many bytes a list is mapped with.
const Room = room

// List is a list of system calls, and the data that their arguments point to. The zero List is empty, and for an executed program.
type List struct {
	at    uint64 // where it is mapped, less base
	steps []step
	data  []byte
}

type step struct {
	what   string
	number uint64
	args   [6]uint64
	soft   bool
}

// ListAt is an empty list for a program that is called, which finds it mapped at an address: private, to be read and written, Room bytes.
func ListAt(address uint64) List { return List{at: address - base} }

// Step is a step of a List, whose result later steps can use.
type Step struct{ index int }

// Arg is an argument of a step.
type Arg struct {
	value uint64
	from  int // the step whose result it is, counted from one; 0 for a value
}

// Int is a number as argument.
func Int[T ~int | ~int64 | ~uint32 | ~uint64 | ~uintptr](v T) Arg { return Arg{value: uint64(v)} }

// Result is the step's result as argument of a later one.
func (s Step) Result() Arg { return Arg{from: s.index + 1} }

// Bytes puts bytes into the data, aligned to eight. The argument is their address in the program.
func (l *List) Bytes(b []byte) Arg {
	for len(l.data)%8 != 0 {
		l.data = append(l.data, 0)
	}
	at := l.at + base + dataAt + uint64(len(l.data))
	l.data = append(l.data, b...)
	return Arg{value: at}
}

// Text puts a string with an ending zero into the data.
func (l *List) Text(s string) Arg { return l.Bytes(append([]byte(s), 0)) }

// Texts puts strings and an array of pointers to them into the data, as execve takes them.
func (l *List) Texts(all []string) Arg {
	array := make([]byte, 0, 8*len(all)+8)
	for _, s := range all {
		array = l.Text(s).Append(array)
	}
	return l.Bytes(append(array, make([]byte, 8)...))
}

// Append appends an address or a number, for data that holds pointers.
func (a Arg) Append(b []byte) []byte { return binary.LittleEndian.AppendUint64(b, a.value) }

// At is the address n bytes behind an address.
func (a Arg) At(n int) Arg { return Arg{value: a.value + uint64(n)} }

// Call appends a system call. what is for failures: "mount /proc".
func (l *List) Call(what string, number uintptr, args ...Arg) Step {
	return l.call(what, uint64(number), false, args)
}

// Try appends a system call that may fail.
func (l *List) Try(what string, number uintptr, args ...Arg) Step {
	return l.call(what, uint64(number), true, args)
}

func (l *List) call(what string, number uint64, soft bool, args []Arg) Step {
	used := 0
	for _, a := range args {
		if a.from > 0 {
			used++
		}
	}
	own := len(l.steps) + used
	s := step{what: what, number: number, soft: soft}
	for i, a := range args {
		if a.from > 0 {
			l.steps = append(l.steps, step{what: what, number: opCopy, args: [6]uint64{l.stepAddr(own) + atArgs + 8*uint64(i), l.stepAddr(a.from-1) + atResult}})
			continue
		}
		s.args[i] = a.value
	}
	l.steps = append(l.steps, s)
	return Step{own}
}

// Store32 appends a step that puts the lower four bytes of a result, such as a descriptor, into the data.
func (l *List) Store32(to Arg, from Step) {
	l.steps = append(l.steps, step{number: opCopy32, args: [6]uint64{to.value, l.stepAddr(from.index) + atResult}})
}

// Fork appends what makes a copy of the program. The copy works through the steps that child appends, which end in execve; the program
// goes on behind them.
func (l *List) Fork(what string, number uintptr, args []Arg, child func()) Step {
	fork := l.Call(what, number, args...)
	l.IfZero(fork, child)
	return fork
}

// Forever appends what works through the steps that body appends again and again.
func (l *List) Forever(body func()) {
	first := len(l.steps)
	body()
	l.branch(l.Bytes(make([]byte, 8)).value, first)
}

// EndIfZero appends what ends the program, or its copy, where a step's result is zero.
func (l *List) EndIfZero(s Step) {
	after := len(l.steps)
	l.branch(l.stepAddr(s.index)+atResult, after+2)
	l.branch(l.Bytes(make([]byte, 8)).value, after+3)
	l.Call("end", syscall.SYS_EXIT_GROUP, Int(0))
}

// branch appends a leap to a step where the eight bytes at an address are zero.
func (l *List) branch(look uint64, to int) {
	l.steps = append(l.steps, step{number: opBranch, args: [6]uint64{look, l.stepAddr(to)}})
}

// Serve appends the end of the program: it takes in orphans until the guest has ended.
func (l *List) Serve(guest Step) {
	const awaited = 1<<(uint(syscall.SIGCHLD)-1) | 1<<(uint(syscall.SIGTERM)-1)
	l.call("serve", opServe, true, []Arg{guest.Result(), l.Bytes(binary.LittleEndian.AppendUint64(nil, awaited)), l.Bytes(make([]byte, 8))})
}

// Return appends the end of a program that was called: it gives a result to its caller.
func (l *List) Return(result Arg) { l.call("return", opReturn, true, []Arg{result}) }

// IfZero appends steps that are worked through where a step's result is zero.
func (l *List) IfZero(s Step, then func()) {
	l.branch(l.stepAddr(s.index)+atResult, len(l.steps)+2)
	over := len(l.steps)
	l.steps = append(l.steps, step{})
	then()
	// Into the place that was leaped over goes the leap over those steps. A branch that is always taken looks at zero.
	l.steps[over] = step{number: opBranch, args: [6]uint64{l.Bytes(make([]byte, 8)).value, l.stepAddr(len(l.steps))}}
}

// Blocked is the set of signals that have to be blocked while the program serves, as sigprocmask(2) takes it.
func Blocked() []byte { return binary.LittleEndian.AppendUint64(nil, ^uint64(0)) }

func (l *List) stepAddr(index int) uint64 { return l.at + base + stepSize*uint64(index) }

// errTooLong says that a guest's program, arguments and environment do not fit.
var errTooLong = errors.New("the program, its arguments and its environment are too long")

// Encode gives the list as the program reads it: steps for the beginning of ListFD's file and data for offset DataAt.
func (l *List) Encode() (steps, data []byte, err error) {
	if len(l.steps)*stepSize > dataAt || len(l.data) > room-dataAt {
		return nil, nil, errTooLong
	}
	steps = make([]byte, 0, len(l.steps)*stepSize)
	for i, s := range l.steps {
		steps = binary.LittleEndian.AppendUint64(steps, s.number)
		for _, a := range s.args {
			steps = binary.LittleEndian.AppendUint64(steps, a)
		}
		flags := uint64(i) << 1
		if s.soft {
			flags |= 1
		}
		steps = binary.LittleEndian.AppendUint64(steps, flags)
		steps = binary.LittleEndian.AppendUint64(steps, 0)
	}
	return steps, l.data, nil
}

// DataAt is the offset of the data in ListFD's file.
const DataAt = dataAt

// StepError is a step that failed.
type StepError struct {
	What  string
	Errno syscall.Errno
}

// Error gives what failed and why.
func (e *StepError) Error() string { return e.What + ": " + e.Errno.Error() }

// Unwrap gives the system's error.
func (e *StepError) Unwrap() error { return e.Errno }

// Failure says what FailureSize bytes from the control descriptor mean; the error is a *StepError.
func (l *List) Failure(b []byte) error {
	if len(b) != FailureSize {
		return fmt.Errorf("a failure of %d bytes", len(b))
	}
	index := binary.LittleEndian.Uint64(b[atFlags:]) >> 1
	e := &StepError{fmt.Sprintf("step %d of %d", index, len(l.steps)), syscall.Errno(-int64(binary.LittleEndian.Uint64(b[atResult:])))}
	if index < uint64(len(l.steps)) {
		e.What = l.steps[index].what
	}
	return e
}
