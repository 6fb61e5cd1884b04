package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// maxPending is how many bytes wait for a reader of standard output or error before lines that may be lost are.
	maxPending = 4 << 20
	// lastWords is how long the end waits for a reader to take what is still to be said.
	lastWords = 2 * time.Second
)

// printer stands between the server and a stream that somebody may have stopped reading: a script that reads up to `ready`,
// a terminal that is held. Its one goroutine writes; nobody else ever waits for the reader. What is given to Write is kept
// until it is written, what is given to the Writer of lossy is dropped and counted when too much waits already.
type printer struct {
	w    io.Writer
	lost func(n int) string // the last line, when n lines were dropped
	wake chan struct{}      // holds one
	done chan struct{}      // closed when everything is written

	mu struct {
		sync.Mutex
		lines   [][]byte
		pending int // bytes of lines, with what is being written
		dropped int
		closed  bool
	}
}

func newPrinter(w io.Writer, lost func(n int) string) *printer {
	p := &printer{w: w, lost: lost, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go p.run()
	return p
}

// Write takes one line or several, which will not be dropped.
func (p *printer) Write(b []byte) (int, error) { return p.add(b, false) }

// lossy takes whole lines that may be dropped.
type lossy struct{ p *printer }

func (l lossy) Write(b []byte) (int, error) { return l.p.add(b, true) }

func (p *printer) add(b []byte, may bool) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mu.closed:
		return len(b), nil // nobody could be told any more
	case may && p.mu.pending > 0 && p.mu.pending+len(b) > maxPending:
		p.mu.dropped++
		return len(b), nil
	}
	p.mu.lines = append(p.mu.lines, append([]byte(nil), b...))
	p.mu.pending += len(b)
	p.stir()
	return len(b), nil
}

func (p *printer) stir() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run writes until close, and then what is left.
func (p *printer) run() {
	defer close(p.done)
	for {
		p.mu.Lock()
		lines, closed, dropped := p.mu.lines, p.mu.closed, p.mu.dropped
		p.mu.lines = nil
		p.mu.Unlock()
		for _, b := range lines {
			_, _ = p.w.Write(b) // there is no other place to tell of it
			p.mu.Lock()
			p.mu.pending -= len(b)
			p.mu.Unlock()
		}
		switch {
		case len(lines) > 0:
		case !closed:
			<-p.wake
		default:
			if dropped > 0 {
				_, _ = io.WriteString(p.w, p.lost(dropped))
			}
			return
		}
	}
}

// close ends the printer when everything is written or lastWords is over; then a write that nobody takes is left behind.
func (p *printer) close() {
	p.mu.Lock()
	p.mu.closed = true
	p.stir()
	p.mu.Unlock()
	last := time.NewTimer(lastWords)
	defer last.Stop()
	select {
	case <-p.done:
	case <-last.C:
	}
}

// detach makes the command print without ever waiting for a reader, until c.finish.
func (c *command) detach() {
	note := func(n int) string {
		return fmt.Sprintf("ebb: %s not printed: nobody read them in time\n", count(n, "line"))
	}
	noteOut := note
	if c.json {
		noteOut = func(n int) string { return fmt.Sprintf("{\"event\":\"dropped\",\"count\":%d}\n", n) }
	}
	out, err := newPrinter(c.Stdout, noteOut), newPrinter(c.Stderr, note)
	c.Stdout, c.Stderr = out, err
	c.finish = func() {
		var both sync.WaitGroup
		both.Go(out.close)
		both.Go(err.close)
		both.Wait()
	}
}

// mayDrop is w for lines that may be dropped, where w is a printer.
func mayDrop(w io.Writer) io.Writer {
	if p, ok := w.(*printer); ok {
		return lossy{p}
	}
	return w
}

// passing is a command whose lines may be dropped: for what comes with every request.
func (c *command) passing() *command {
	p := *c
	p.Stdout, p.Stderr = mayDrop(c.Stdout), mayDrop(c.Stderr)
	return &p
}
