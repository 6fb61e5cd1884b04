package lambda

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
)

// program is the file that a native Unit runs: bootstrap in the code or a layer, for go1.x the handler itself.
func program(u *guest.Unit) (string, error) {
	if familyOf(u.Runtime) == goOne {
		file := filepath.Join(u.Root, filepath.FromSlash(u.Handler))
		if u.Handler == "" || !filepath.IsLocal(filepath.FromSlash(u.Handler)) {
			return "", entryFault(u, fmt.Sprintf("the handler %q names no file in the code", u.Handler)).
				WithHint("for %s the handler is the path of the binary", u.Runtime)
		}
		if !isFile(file) {
			return "", entryFault(u, fmt.Sprintf("Couldn't find valid bootstrap(s): [%s]", file)).
				WithHint("build the binary to %s, the path that the handler names", u.Handler)
		}
		return file, nil
	}
	var tried []string
	for _, dir := range folders(u) {
		file := filepath.Join(dir, "bootstrap")
		if isFile(file) {
			return file, nil
		}
		tried = append(tried, file)
	}
	return "", entryFault(u, fmt.Sprintf("Couldn't find valid bootstrap(s): [%s]", strings.Join(tried, " "))).
		WithHint("%s runs a program or script named bootstrap at the top of the code", u.Runtime)
}

func entryFault(u *guest.Unit, msg string) *errs.Error {
	return initFault(u, "Runtime.InvalidEntrypoint", msg)
}

// processors names what an ELF header can say, as runtime.GOARCH names it.
var processors = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm",
	elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x",
}

// lambdaArch is the name Lambda has for a processor.
func lambdaArch(arch string) string {
	if arch == "amd64" {
		return "x86_64"
	}
	return arch
}

// checkProgram refuses what the machine cannot start, by its first bytes.
func checkProgram(u *guest.Unit, file string) error {
	name := filepath.Base(file)
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		if err := checkELF(u, name, head); err != nil {
			return err
		}
	case bytes.HasPrefix(head, []byte("#!")):
		if err := checkShebang(u, name, head); err != nil {
			return err
		}
	case isMachO(head):
		if runtime.GOOS != "darwin" {
			return foreignProgram(u, name, "macOS")
		}
	case bytes.HasPrefix(head, []byte("MZ")):
		return foreignProgram(u, name, "Windows")
	default:
		return entryFault(u, fmt.Sprintf("%s is neither a program nor a script", name)).
			WithHint("a script begins with a line like #!/bin/sh; a Go program is built with GOOS=linux go build -o %s", name)
	}
	if info.Mode()&0o111 == 0 {
		return entryFault(u, fmt.Sprintf("%s is not executable (its mode is %v)", name, info.Mode().Perm())).
			WithHint("chmod +x %s before packaging", name)
	}
	return nil
}

func isMachO(head []byte) bool {
	return bytes.HasPrefix(head, []byte{0xcf, 0xfa, 0xed, 0xfe}) || bytes.HasPrefix(head, []byte{0xca, 0xfe, 0xba, 0xbe})
}

func foreignProgram(u *guest.Unit, name, system string) error {
	return errs.New(errs.Invalid, "function %s: %s is built for %s, this machine is %s", u.Function, name, system, systemName()).
		WithHint("build it with GOOS=%s GOARCH=%s, or the equivalent of its language", runtime.GOOS, runtime.GOARCH)
}

func systemName() string {
	if runtime.GOOS == "darwin" {
		return "macOS"
	}
	return strings.ToUpper(runtime.GOOS[:1]) + runtime.GOOS[1:]
}

// checkELF reads the machine from the header, in which it stands at 18 in the byte order that byte 5 gives.
func checkELF(u *guest.Unit, name string, head []byte) error {
	if runtime.GOOS != "linux" {
		return foreignProgram(u, name, "Linux")
	}
	if len(head) < 20 {
		return entryFault(u, name+" is a damaged program")
	}
	m := elf.Machine(uint16(head[18]) | uint16(head[19])<<8)
	if head[elf.EI_DATA] == byte(elf.ELFDATA2MSB) {
		m = elf.Machine(uint16(head[19]) | uint16(head[18])<<8)
	}
	arch, ok := processors[m]
	if !ok {
		arch = strconv.Itoa(int(m))
	}
	if arch == runtime.GOARCH {
		return nil
	}
	return errs.New(errs.Invalid, "function %s: %s is built for %s, this machine is %s", u.Function, name, lambdaArch(arch), lambdaArch(runtime.GOARCH)).
		WithHint("build it for %s (for Go: GOARCH=%s), or run it on a machine with an %s processor", lambdaArch(runtime.GOARCH), runtime.GOARCH, lambdaArch(arch))
}

// checkShebang finds the script's interpreter.
func checkShebang(u *guest.Unit, name string, head []byte) error {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	if bytes.HasSuffix(line, []byte("\r")) {
		return entryFault(u, name+" has Windows line ends, so its interpreter cannot be found").WithHint("convert it: sed -i 's/\\r$//' %s", name)
	}
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return entryFault(u, name+" begins with an empty #! line")
	}
	if _, err := os.Stat(outside(u, words[0])); err != nil {
		return entryFault(u, fmt.Sprintf("%s wants the interpreter %s, which is not on this machine", name, words[0]))
	}
	return nil
}

// rpcUntil is the first minor version of aws-lambda-go 1 that speaks the Runtime API.
const rpcUntil = 18

// speaksRPC says whether a Go binary knows only the net/rpc form. Later versions of the library prefer that form where its variable is
// set, so it has to be known before. A binary without module versions is searched for the name of the Runtime API's variable.
func speaksRPC(file string) bool {
	if bi, err := buildinfo.ReadFile(file); err == nil {
		for _, d := range bi.Deps {
			if d.Path != "github.com/aws/aws-lambda-go" {
				continue
			}
			if d.Replace != nil {
				d = d.Replace
			}
			parts := strings.SplitN(strings.TrimPrefix(d.Version, "v"), ".", 3)
			if len(parts) == 3 {
				if minor, err := strconv.Atoi(parts[1]); err == nil {
					return parts[0] == "1" && minor < rpcUntil
				}
			}
		}
	}
	b, err := os.ReadFile(file)
	return err == nil && bytes.Contains(b, []byte("_LAMBDA_SERVER_PORT")) && !bytes.Contains(b, []byte("AWS_LAMBDA_RUNTIME_API"))
}
