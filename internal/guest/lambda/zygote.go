package lambda

import (
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// A Python function can be a copy of an interpreter that is booted already, as long as nothing in its environment would have made that boot
// differently.

// bootVars are the variables that the dynamic linker, the C library, OpenSSL and Python read when a program starts, by their beginning.
var bootVars = []string{"LD_", "GLIBC_", "MALLOC_", "GCONV_", "LOCPATH", "NLSPATH", "OPENSSL_", "PYTHON", "_PYTHON", "__PYVENV_LAUNCHER__"}

// localeVars are those by which the interpreter chooses encodings, and HOME, in which it looks for packages. A template has the Unit's own.
var localeVars = []string{"LANG", "LANGUAGE", "LC_", "HOME"}

// preloadVar tells a copy that waits where SDKs are that it may load.
const preloadVar = "_EBB_PRELOAD"

// copied is what a Python function's program can be a copy of, or nil.
func (p *Protocol) copied(u *guest.Unit, c *sandbox.Code) *sandbox.Template {
	if !u.Mounts || len(c.Beside) > 0 {
		return nil
	}
	t := &sandbox.Template{Name: u.Runtime, Kind: sandbox.Copied, Ahead: &sandbox.Ahead{}, Mounts: []sandbox.Mount{{Source: p.dir, Target: runtimeDir}}}
	for _, kv := range c.Env {
		name, value, _ := strings.Cut(kv, "=")
		of := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		switch {
		case !utf8.ValidString(kv), name == "PYTHONPATH" && !plainPath(value), name != "PYTHONPATH" && slices.ContainsFunc(bootVars, of):
			return nil
		case slices.ContainsFunc(localeVars, of):
			t.Env = append(t.Env, kv)
		}
	}
	t.Command = append(slices.Clone(u.Interpreter), p.bootstrap(u, "python-zygote.py"))
	t.Mounts = append(t.Mounts, installation(u.Interpreter[0])...)
	if u.Supplied != "" {
		// Not in the zygote, which has rights that a deployment's files must not come near: a copy that waits has none left.
		t.Ahead.Mounts = []sandbox.Mount{{Source: u.Supplied, Target: suppliedDir}}
		t.Ahead.Env = []string{preloadVar + "=" + suppliedDir + "/python"}
	}
	return t
}

// plainPath says whether a search path holds clean, absolute folders, each once: what Python takes over as it is.
func plainPath(text string) bool {
	dirs := strings.Split(text, ":")
	for i, d := range dirs {
		if !path.IsAbs(d) || path.Clean(d) != d || slices.Contains(dirs[:i], d) {
			return false
		}
	}
	return true
}
