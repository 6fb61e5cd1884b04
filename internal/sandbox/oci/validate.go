package oci

import (
	"bytes"
	"debug/elf"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// validate finds out on the host what would keep the program from running, since a runtime tells it in words of its own when it is too late.
func validate(c sandbox.Code) error {
	if len(c.Command) == 0 || !strings.HasPrefix(c.Command[0], "/") {
		return errs.New(errs.Invalid, "the program must be an absolute path, not %q", strings.Join(c.Command, " "))
	}
	if len(c.Beside) > 0 {
		return errs.New(errs.Unsupported, "programs beside the main one cannot run with strong isolation")
	}
	if c.Dir != "" {
		if dir := outside(c, c.Dir); !isDir(dir) {
			return errs.New(errs.NotFound, "working directory %s: %w", dir, syscall.ENOENT)
		}
	}
	program := outside(c, c.Command[0])
	info, err := os.Stat(program)
	if err != nil {
		return errs.New(errs.NotFound, "run %s: %w", program, syscall.ENOENT)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return errs.New(errs.Failed, "run %s: %w", program, syscall.EACCES).WithHint("Make the program executable: chmod +x %s", program)
	}
	return runnable(c, program)
}

// outside is where a path inside is on the host.
func outside(c sandbox.Code, path string) string {
	for _, m := range c.Mounts {
		if rest, ok := strings.CutPrefix(path, m.Target); ok && (rest == "" || rest[0] == '/') {
			return m.Source + rest
		}
	}
	return path
}

// machines are ELF's names of the architectures.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// runnable looks at a program's first bytes.
func runnable(c sandbox.Code, program string) error {
	f, err := os.Open(program)
	if err != nil {
		return errs.New(errs.Failed, "run %s: %w", program, err)
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 256) // as much as kernels read
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return errs.New(errs.Failed, "run %s: %w", program, err)
	}
	head = head[:n]
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		words := strings.Fields(string(line))
		if len(words) > 0 {
			if _, err := os.Stat(outside(c, words[0])); err == nil {
				return nil
			}
		}
		return errs.New(errs.Failed, "run %s: %w", program, syscall.ENOENT).
			WithHint("The program is there, but the interpreter in its first line is not on this machine.")
	}
	// The machine is at byte 18 of an ELF file, in its own order of bytes; both architectures here have the lowest first.
	if bytes.HasPrefix(head, []byte(elf.ELFMAG)) && len(head) >= 20 && elf.Machine(uint16(head[18])|uint16(head[19])<<8) == machines[runtime.GOARCH] {
		return nil
	}
	return errs.New(errs.Failed, "run %s: %w", program, syscall.ENOEXEC).
		WithHint("It is built for another processor or system, or is a script without a first line like #!/bin/sh.")
}
