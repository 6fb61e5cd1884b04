// Package executable writes programs that a test is to run.
package executable

import (
	"os"
	"syscall"
)

// Write writes an executable file. A child that another test forks while the file is open for writing would have it open too, and until that
// child has become its own program nobody could run this one (ETXTBSY); so nothing is forked meanwhile.
func Write(name string, content []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(name, content, 0o755)
}
