package process

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// outputChunk is how much is read from a guest's pipe at once: what a pipe holds by default.
const outputChunk = 64 << 10

// output carries what a guest writes to Spec.Output. Bytes are read and handed on under one lock, by the goroutine of run or
// by whoever calls flush; so the order is kept, and once flush has the lock nothing is on the way between pipe and Output.
type output struct {
	pipe    *os.File
	raw     syscall.RawConn
	buffers *sync.Pool
	ended   chan struct{} // closed when run has returned

	mu sync.Mutex // held while reading from pipe and writing to w: that is its purpose
	w  io.Writer
}

// newOutput returns the host's side and the descriptor for the guest, which the caller closes.
func newOutput(w io.Writer, buffers *sync.Pool) (*output, int, error) {
	if w == nil {
		w = io.Discard
	}
	r, guest, err := pipe()
	if err != nil {
		return nil, -1, err
	}
	f := os.NewFile(uintptr(r), "guest output")
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		_ = unix.Close(guest)
		return nil, -1, err
	}
	return &output{pipe: f, raw: raw, buffers: buffers, w: w, ended: make(chan struct{})}, guest, nil
}

// run hands on what arrives until the last writer is gone or close is called.
func (o *output) run() {
	defer close(o.ended)
	for end := false; !end; {
		err := o.raw.Read(func(fd uintptr) bool {
			n, err := o.pass(int(fd), outputChunk)
			if errors.Is(err, unix.EAGAIN) {
				return false
			}
			end = n == 0
			return true
		})
		if err != nil {
			return
		}
	}
}

// pass moves at most limit bytes in one read.
func (o *output) pass(fd, limit int) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.passLocked(fd, limit)
}

func (o *output) passLocked(fd, limit int) (int, error) {
	buf := o.buffers.Get().(*[]byte)
	defer o.buffers.Put(buf)
	for {
		n, err := unix.Read(fd, (*buf)[:min(limit, outputChunk)])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return 0, err
		}
		_, _ = o.w.Write((*buf)[:n]) // the reader of logs cannot hold up a guest with its errors
		return n, nil
	}
}

// flush hands on what is in the pipe now. A guest that goes on writing does not keep it from returning.
func (o *output) flush() {
	_ = o.raw.Control(func(fd uintptr) {
		o.mu.Lock()
		defer o.mu.Unlock()
		left, err := unix.IoctlGetInt(int(fd), fionread)
		for err == nil && left > 0 {
			var n int
			n, err = o.passLocked(int(fd), left)
			if n == 0 {
				return
			}
			left -= n
		}
	})
}

// close hands on what is left and waits for run, which must have been started.
func (o *output) close() {
	o.flush()
	_ = o.pipe.Close()
	<-o.ended
}
