package lambda

import (
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
)

// wrapperVar names a program that is started in the place of the runtime, with the runtime's command as its arguments: Lambda guide,
// "Modifying the runtime environment", "Wrapper scripts".
const wrapperVar = "AWS_LAMBDA_EXEC_WRAPPER"

// bootstrapVar brings a bootstrap what stands behind its own name in the command otherwise. Wrapper scripts put options before the last
// argument, so that has to be the bootstrap then. The bootstraps drop it from the environment.
const bootstrapVar = "_EBB_BOOTSTRAP"

// outside is the host's file for a path as a function on Lambda has it: below /opt, or below /var/task.
func outside(u *guest.Unit, name string) string {
	if rest, ok := below(name, optDir); ok && u.Layers != "" {
		return filepath.Join(u.Layers, rest)
	}
	if rest, ok := below(name, taskDir); ok {
		return filepath.Join(u.Root, rest)
	}
	return name
}

// below gives what of a path comes behind a folder.
func below(name, dir string) (rest string, ok bool) {
	if name == dir {
		return "", true
	}
	return strings.CutPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// folders are those of the host in which the function's own files are looked for, in Lambda's order.
func folders(u *guest.Unit) []string {
	if u.Layers == "" {
		return []string{u.Root}
	}
	return []string{u.Root, u.Layers}
}

// variable gives the user's value of a variable; of several the last counts.
func variable(u *guest.Unit, name string) string {
	value := ""
	for _, kv := range u.Env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

// handlerPath is the handler as the guest is to have it: one below /opt is found where the layers are.
func handlerPath(u *guest.Unit) string {
	if familyOf(u.Runtime) == node && strings.HasPrefix(u.Handler, optDir+"/") {
		return inside(u, outside(u, u.Handler))
	}
	return u.Handler
}

// wrapper gives the host's file that AWS_LAMBDA_EXEC_WRAPPER names, or "" where the Unit has none. OS-only runtimes do not know it.
func wrapper(u *guest.Unit) (string, error) {
	name := variable(u, wrapperVar)
	if f := familyOf(u.Runtime); name == "" || f != node && f != python {
		return "", nil
	}
	fault := func(format string, args ...any) *errs.Error {
		return errs.New(errs.Invalid, "function %s: "+wrapperVar+"=%s: "+format, append([]any{u.Function, name}, args...)...)
	}
	if _, opt := below(name, optDir); opt {
		switch {
		case u.Layers == "":
			return "", fault("the function has no layer here that could hold it").
				WithHint("give a local copy of the layer, or unset the variable for this stage")
		case !u.Mounts:
			return "", errs.New(errs.Unsupported, "function %s: %s=%s: sandboxes of this machine do not show layers at /opt, which wrapper scripts rely on",
				u.Function, wrapperVar, name).WithHint("unset the variable for this stage; `ebb doctor` says what sandboxes here can do")
		}
	}
	if !filepath.IsAbs(name) {
		return "", fault("it is no absolute path").WithHint("write it as on Lambda: /opt/wrapper or /var/task/wrapper")
	}
	file := outside(u, name)
	if !isFile(file) {
		return "", fault("there is no such file").WithHint("a layer's files are below /opt, those of the code below /var/task")
	}
	if err := checkProgram(u, file); err != nil {
		return "", err
	}
	return file, nil
}
