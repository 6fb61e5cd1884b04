package lambda

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// On Lambda's Amazon Linux /bin/sh is bash, and bootstrap scripts rely on it (set -o pipefail, source). On Debian and others it is
// a smaller shell, so a script for /bin/sh is given to bash called "sh", which then behaves as it does there.

// shell returns a path named sh that is bash, or "" where /bin/sh is good as it is or there is no bash.
func shell(dir string) (string, error) {
	if real, err := filepath.EvalSymlinks("/bin/sh"); err == nil && filepath.Base(real) == "bash" {
		return "", nil
	}
	for _, bash := range []string{"/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"} {
		if !isFile(bash) {
			continue
		}
		link := filepath.Join(dir, "sh")
		if to, err := os.Readlink(link); err == nil && to == bash {
			return link, nil
		}
		if err := os.Symlink(bash, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		return link, nil
	}
	return "", nil
}

// forShell says whether the file is a script for /bin/sh.
func forShell(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 64)
	n, _ := f.Read(head)
	line, _, _ := bytes.Cut(head[:n], []byte("\n"))
	return bytes.Equal(bytes.Join(bytes.Fields(line), nil), []byte("#!/bin/sh"))
}
