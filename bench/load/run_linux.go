package load

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// stall is how long all answers may be missing before a run is given up.
const stall = 10 * time.Second

// line is one connection.
type line struct {
	fd    int
	due   int64 // of the request under way, in ns since the start
	busy  bool
	have  int
	input []byte
}

// run is one measurement.
type run struct {
	t     Target
	req   []byte
	ep    int
	lines []*line
	res   *Result
	begun time.Time
}

// Closed keeps n connections busy for d: each sends the next request when it has its answer.
func Closed(t Target, n int, d time.Duration) (*Result, error) {
	r, err := open(t, n)
	if err != nil {
		return nil, err
	}
	defer r.close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r.begun = time.Now()
	for _, l := range r.lines {
		if err := r.send(l, r.now()); err != nil {
			return nil, err
		}
	}
	busy, last := n, r.now()
	var events [64]unix.EpollEvent
	for busy > 0 {
		k, err := wait(r.ep, events[:], 1000)
		if err != nil {
			return nil, err
		}
		now := r.now()
		if k > 0 {
			last = now
		} else if now-last > int64(stall) {
			return nil, fmt.Errorf("no answer for %v", stall)
		}
		for _, e := range events[:k] {
			l := r.lines[e.Fd]
			done, err := r.receive(l)
			if err != nil {
				return nil, err
			}
			if !done {
				continue
			}
			if now = r.now(); now < int64(d) {
				if err := r.send(l, now); err != nil {
					return nil, err
				}
			} else {
				busy--
			}
		}
	}
	r.res.Elapsed = time.Duration(r.now())
	r.res.sort()
	return r.res, nil
}

// Open sends rate requests a second for d, evenly spaced, over at most n connections. One that finds no free connection waits, and its
// wait is part of its latency.
func Open(t Target, n int, rate float64, d time.Duration) (*Result, error) {
	r, err := open(t, n)
	if err != nil {
		return nil, err
	}
	defer r.close()
	clock, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	defer unix.Close(clock)
	if err := unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, clock, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		return nil, fmt.Errorf("watch the timer: %w", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	idle := append([]*line(nil), r.lines...)
	total := int(rate * d.Seconds())
	step := float64(time.Second) / rate
	due := func(i int) int64 { return int64(float64(i) * step) }
	var events [64]unix.EpollEvent
	var ticks [8]byte
	next, armed := 0, int64(-1)
	r.begun = time.Now()
	last := int64(0)
	for next < total || len(idle) < n {
		now := r.now()
		for next < total && len(idle) > 0 && due(next) <= now {
			l := idle[len(idle)-1]
			idle = idle[:len(idle)-1]
			if err := r.send(l, due(next)); err != nil {
				return nil, err
			}
			next++
		}
		if next < total && len(idle) > 0 && due(next) > armed {
			armed = due(next)
			if err := arm(clock, max(armed-r.now(), 1)); err != nil {
				return nil, err
			}
		}
		k, err := wait(r.ep, events[:], 1000)
		if err != nil {
			return nil, err
		}
		if k > 0 {
			last = r.now()
		} else if r.now()-last > int64(stall) {
			return nil, fmt.Errorf("no answer for %v", stall)
		}
		for _, e := range events[:k] {
			if e.Fd < 0 {
				_, _ = unix.Read(clock, ticks[:]) // an empty timer is no matter
				continue
			}
			l := r.lines[e.Fd]
			done, err := r.receive(l)
			if err != nil {
				return nil, err
			}
			if done {
				idle = append(idle, l)
			}
		}
	}
	r.res.Elapsed = time.Duration(r.now())
	r.res.sort()
	return r.res, nil
}

func arm(clock int, in int64) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(in)}
	if err := unix.TimerfdSettime(clock, 0, &spec, nil); err != nil {
		return fmt.Errorf("set the timer: %w", err)
	}
	return nil
}

func wait(ep int, events []unix.EpollEvent, ms int) (int, error) {
	k, err := unix.EpollWait(ep, events, ms)
	if err == unix.EINTR {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("wait for answers: %w", err)
	}
	return k, nil
}

func (r *run) now() int64 { return int64(time.Since(r.begun)) }

// open connects n times.
func open(t Target, n int) (*run, error) {
	r := &run{t: t, req: t.request(), res: &Result{Latency: make([]time.Duration, 0, 1<<16)}, ep: -1}
	var err error
	if r.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	for i := range n {
		fd, err := dial(t.Addr)
		if err != nil {
			r.close()
			return nil, err
		}
		r.lines = append(r.lines, &line{fd: fd, input: make([]byte, 16<<10)})
		if err := unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			r.close()
			return nil, fmt.Errorf("watch a connection: %w", err)
		}
	}
	return r, nil
}

// dial gives a connected socket that the Go runtime does not know of.
func dial(addr string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return -1, err
	}
	f, err := c.(*net.TCPConn).File()
	c.Close()
	if err != nil {
		return -1, fmt.Errorf("take the socket: %w", err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("copy the socket: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return -1, fmt.Errorf("set the socket up: %w", err)
	}
	return fd, nil
}

func (r *run) close() {
	for _, l := range r.lines {
		_ = unix.Close(l.fd)
	}
	if r.ep >= 0 {
		_ = unix.Close(r.ep)
	}
}

// send writes a request; it is small, so the socket of an idle connection takes all of it.
func (r *run) send(l *line, due int64) error {
	l.due, l.have, l.busy = due, 0, true
	n, err := unix.Write(l.fd, r.req)
	if err != nil || n < len(r.req) {
		return fmt.Errorf("send a request: %d of %d bytes: %w", n, len(r.req), err)
	}
	return nil
}

// receive reads what has come, and says whether it completes an answer.
func (r *run) receive(l *line) (done bool, err error) {
	n, err := unix.Read(l.fd, l.input[l.have:])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read an answer: %w", err)
	case n == 0 && !l.busy:
		return false, fmt.Errorf("the server closed an idle connection")
	case n == 0:
		return false, fmt.Errorf("read an answer: %w", errShort)
	case !l.busy:
		return false, errExcess
	}
	l.have += n
	done, bad := whole(l.input[:l.have], r.t.Body)
	if !done {
		if l.have == len(l.input) {
			return false, errLength
		}
		return false, nil
	}
	l.busy = false
	if bad != nil {
		return false, fmt.Errorf("check an answer: %w: %q", bad, l.input[:min(l.have, 300)])
	}
	r.res.Latency = append(r.res.Latency, time.Duration(r.now()-l.due))
	return true, nil
}
