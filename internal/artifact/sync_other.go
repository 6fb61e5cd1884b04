//go:build !linux

package artifact

import "errors"

// syncAll is not there; files are synced one by one.
func syncAll(string) error { return errors.ErrUnsupported }
