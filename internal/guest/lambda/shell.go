package lambda

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// shebang gives the interpreter that a script's first line names, and its argument if it has one.
func shebang(file string) (words []string, ok bool) {
	f, err := os.Open(file)
	if err != nil {
		return nil, false
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 256)
	n, _ := f.Read(head)
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	rest, ok := strings.CutPrefix(line, "#!")
	if !ok {
		return nil, false
	}
	// The kernel splits at the first white space only: the rest is one argument.
	program, arg, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if program == "" {
		return nil, false
	}
	words = []string{program}
	if arg = strings.TrimSpace(arg); arg != "" {
		words = append(words, arg)
	}
	return words, true
}
