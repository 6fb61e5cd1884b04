package cli

import (
	"fmt"
	"time"

	"github.com/ebb-run/ebb/internal/api"
)

// upload shows on a terminal how far an upload has come, once it takes a while.
type upload struct {
	c     *command
	begun time.Time
	last  time.Time // when it was shown; zero while it is not
}

func (c *command) uploading() *upload { return &upload{c: c, begun: time.Now()} }

// told is called after each file.
func (u *upload) told(at api.Upload) {
	now := time.Now()
	if !u.c.Terminal || u.c.json || now.Sub(u.begun) < 500*time.Millisecond || now.Sub(u.last) < 100*time.Millisecond {
		return
	}
	u.last = now
	const mb = 1 << 20
	fmt.Fprintf(u.c.Stderr, "\r\x1b[K  uploading: %d of %d files, %.1f of %.1f MB", at.Files, at.AllFiles, float64(at.Bytes)/mb, float64(at.AllBytes)/mb)
}

// clear takes the line away.
func (u *upload) clear() {
	if !u.last.IsZero() {
		fmt.Fprint(u.c.Stderr, "\r\x1b[K")
		u.last = time.Time{}
	}
}
