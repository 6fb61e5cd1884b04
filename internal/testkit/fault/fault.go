// Package fault ends a process at a named point, as a loss of power would.
//
// Main type: [Plan], whose Pass is given to what passes points. A test starts itself again as the process that is to die.
//
// Guarantees:
//
//  1. The process ends by SIGKILL at exactly the passage that the Plan names: nothing of it runs on, no deferred call, no flush.
//  2. A Plan without a point does nothing.
//
// It knows nothing of what the points mean.
package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// Plan says at which passage of which point the process ends.
type Plan struct {
	Point string
	Nth   int64 // from 1

	passed atomic.Int64
	die    func() // for tests; nil ends the process
}

// Parse reads what String wrote; an empty text is a Plan that does nothing.
func Parse(s string) (*Plan, error) {
	if s == "" {
		return &Plan{}, nil
	}
	point, n, ok := strings.Cut(s, ":")
	nth, err := strconv.ParseInt(n, 10, 64)
	if !ok || point == "" || err != nil || nth < 1 {
		return nil, fmt.Errorf("%q is no plan of a fault: want POINT:N", s)
	}
	return &Plan{Point: point, Nth: nth}, nil
}

// String writes a Plan for another process.
func (p *Plan) String() string {
	if p.Point == "" {
		return ""
	}
	return p.Point + ":" + strconv.FormatInt(p.Nth, 10)
}

// Pass notes a passage, and does not return from the one at which the process ends. It may be called concurrently.
func (p *Plan) Pass(point string) {
	if p.Point == "" || point != p.Point || p.passed.Add(1) != p.Nth {
		return
	}
	if p.die != nil {
		p.die()
		return
	}
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {} // until the signal has arrived
}
