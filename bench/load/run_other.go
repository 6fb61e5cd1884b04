//go:build !linux

package load

import (
	"errors"
	"time"
)

var errSystem = errors.New("the benchmarks run on Linux only")

// Closed refuses: see the package's comment.
func Closed(Target, int, time.Duration) (*Result, error) { return nil, errSystem }

// Open refuses: see the package's comment.
func Open(Target, int, float64, time.Duration) (*Result, error) { return nil, errSystem }
