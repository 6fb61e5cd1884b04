//go:build !linux

package artifact

import (
	"errors"
	"os"
)

// clone is not there; files are copied.
func clone(_, _ *os.File) error { return errors.ErrUnsupported }
