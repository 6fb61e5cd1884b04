// Package lambda is the guest protocol of AWS Lambda: handlers written for its Node.js and Python runtimes, for provided.* and go1.x.
//
// Main type: [Protocol]. Node.js and Python handlers run under ebb's own bootstraps, which talk in frames over
// [sandbox.Stream]; native runtimes speak the Runtime API of 2018-06-01 over [sandbox.Listen], and beside it the Extensions API of
// 2020-01-01, or, where a Go binary has an aws-lambda-go before 1.18, its net/rpc form over [sandbox.Dial].
//
// Guarantees:
//
//  1. A handler sees the event, the context, the environment and the module paths that Lambda gives it; a direct payload and its
//     result travel byte for byte.
//  2. What a handler wrote before it answered has left its process before the answer does.
//  3. Every failure, the host's included, has the error type, document and status that a caller of AWS sees, and Head.Error.
//  4. What a guest sends is bounded: 6 MB a result, 200 MB a stream, 64 KB of HTTP header.
//  5. A streamed answer goes out as it is written, no faster than it is read; one that nobody reads any more ends within guest.Farewell, or
//     the Instance does.
//  6. An idle Session holds no buffers and, with frames, no goroutine.
//  7. A Batch reaches a handler in the form that its source has on AWS, and Verdict reads the answer as an event source mapping does.
//
// It does not choose interpreters or install SDKs, and gives no credentials that work.
package lambda

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

//go:embed bootstrap
var bootstraps embed.FS

// Protocol speaks AWS Lambda's side of a function.
type Protocol struct {
	dir     string // holds the bootstraps
	sh      string // runs scripts for /bin/sh, or empty
	scratch sync.Pool
}

var _ guest.Protocol = (*Protocol)(nil)

// New writes the bootstraps into a folder of dir that is named by their content.
func New(dir string) (*Protocol, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the folder for bootstraps: %w", err)
	}
	sum := sha256.New()
	files := map[string][]byte{}
	err = fs.WalkDir(bootstraps, "bootstrap", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := bootstraps.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n", name, len(b))
		sum.Write(b)
		files[strings.TrimPrefix(name, "bootstrap/")] = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the bootstraps: %w", err)
	}
	p := &Protocol{dir: filepath.Join(dir, "lambda-"+hex.EncodeToString(sum.Sum(nil))[:16])}
	p.scratch.New = func() any {
		return &scratch{out: make([]byte, 0, scratchSize), in: make([]byte, scratchSize)}
	}
	if err := p.write(dir, files); err != nil {
		return nil, fmt.Errorf("write the bootstraps to %s: %w", dir, err)
	}
	if err := os.MkdirAll(filepath.Join(p.dir, noneDir), 0o755); err != nil {
		return nil, fmt.Errorf("make an empty folder: %w", err)
	}
	if p.sh, err = shell(p.dir); err != nil {
		return nil, fmt.Errorf("link bash as sh: %w", err)
	}
	return p, nil
}

// write makes p.dir appear as a whole.
func (p *Protocol) write(dir string, files map[string][]byte) error {
	if p.written(files) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".lambda-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for name, b := range files {
		file := filepath.Join(tmp, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	err = os.Rename(tmp, p.dir)
	if err == nil || p.written(files) {
		return nil
	}
	// What stands there is damaged.
	if err := os.RemoveAll(p.dir); err != nil {
		return err
	}
	return os.Rename(tmp, p.dir)
}

func (p *Protocol) written(files map[string][]byte) bool {
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(p.dir, name)); err != nil || !bytes.Equal(got, want) {
			return false
		}
	}
	return true
}

// Name is "lambda".
func (p *Protocol) Name() string { return "lambda" }

// family is the kind of a runtime.
type family int

const (
	foreign family = iota
	node
	python
	native // provided.*
	goOne  // go1.x
)

func familyOf(runtime string) family {
	switch {
	case strings.HasPrefix(runtime, "nodejs"):
		return node
	case strings.HasPrefix(runtime, "python"):
		return python
	case runtime == "provided" || strings.HasPrefix(runtime, "provided."):
		return native
	case strings.HasPrefix(runtime, "go1."):
		return goOne
	}
	return foreign
}

// Transport is frames for the bootstraps, the Runtime API for binaries, and RPC for Go binaries that know nothing else.
func (p *Protocol) Transport(u *guest.Unit) sandbox.Transport {
	switch familyOf(u.Runtime) {
	case node, python:
		return sandbox.Stream
	case goOne:
		if file, err := program(u); err == nil && speaksRPC(file) {
			return sandbox.Dial
		}
	}
	return sandbox.Listen
}

// Beside counts the extensions that run beside the Unit.
func (p *Protocol) Beside(u *guest.Unit) int { return len(p.extensions(u)) }

// Code checks that the Unit can start and says how.
func (p *Protocol) Code(u *guest.Unit, addr string) (sandbox.Code, error) {
	c := sandbox.Code{Dir: inside(u, u.Root), Mounts: p.needs(u), Env: p.environment(u, addr)}
	if err := p.accompany(u, &c); err != nil {
		return c, err
	}
	switch f := familyOf(u.Runtime); f {
	case node, python:
		err := p.interpreted(u, f, &c)
		return c, err
	case native, goOne:
		file, err := program(u)
		if err != nil {
			return c, err
		}
		if err := checkProgram(u, file); err != nil {
			return c, err
		}
		c.Command = p.script(u, file)
	default:
		return c, errs.New(errs.Unsupported, "function %s: runtime %q is not supported", u.Function, u.Runtime).
			WithHint("supported are nodejs*, python*, provided* and go1.x")
	}
	return c, nil
}

// interpreted gives c the command of a Node.js or Python function.
func (p *Protocol) interpreted(u *guest.Unit, f family, c *sandbox.Code) error {
	if len(u.Interpreter) == 0 {
		return errs.New(errs.Unsupported, "function %s: no interpreter for runtime %s", u.Function, u.Runtime)
	}
	if err := checkHandler(u, f); err != nil {
		return err
	}
	wrapped, err := wrapper(u)
	if err != nil {
		return err
	}
	file := "python.py"
	var flags []string
	if f == node {
		file, flags = "node.cjs", nodeFlags(u)
	}
	if wrapped != "" {
		c.Command = p.script(u, wrapped)
	}
	c.Command = append(append(append(c.Command, u.Interpreter...), flags...), p.bootstrap(u, file))
	if f == node && wrapped == "" {
		c.Template = p.template(u, c)
	}
	if wrapped != "" {
		c.Env = append(c.Env, bootstrapVar+"="+strings.Join(p.bootstrapArgs(u), "\n"))
	} else {
		c.Command = append(c.Command, p.bootstrapArgs(u)...)
		if f == python {
			c.Template = p.copied(u, c)
		}
	}
	return nil
}

// bootstrapArgs are what a bootstrap of ours has to know: the supplied SDKs' folder, the layers', and what to do about compiled code.
func (p *Protocol) bootstrapArgs(u *guest.Unit) []string {
	args := []string{inside(u, u.Supplied)}
	compiled := compiledArg(u)
	if u.Layers != "" || compiled != "" {
		args = append(args, inside(u, u.Layers))
	}
	if compiled != "" {
		args = append(args, compiled)
	}
	return args
}

// script is the command that runs a program or script of the function's own.
func (p *Protocol) script(u *guest.Unit, file string) []string {
	at := inside(u, file)
	args, ok := shebang(file)
	if !ok {
		return []string{at}
	}
	switch _, opt := below(args[0], optDir); {
	case args[0] == "/bin/sh" && p.sh != "":
		args[0] = p.bootstrap(u, filepath.Base(p.sh))
	case opt && !u.Mounts: // an interpreter that the layers bring
		args[0] = outside(u, args[0])
	default:
		return []string{at}
	}
	return append(args, at)
}

// Open waits for the guest's Init.
func (p *Protocol) Open(ctx context.Context, c sandbox.Conn, u *guest.Unit) (guest.Session, error) {
	t := p.Transport(u)
	names := p.extensions(u)
	switch {
	case len(names) > 0:
		return openExtended(ctx, c, u, t == sandbox.Stream, names, &p.scratch)
	case t == sandbox.Stream:
		return openStream(ctx, c.Stream(), u, &p.scratch)
	case t == sandbox.Dial:
		return openRPC(ctx, c, u)
	}
	return openAPI(ctx, c.Listener(), u, &p.scratch)
}
