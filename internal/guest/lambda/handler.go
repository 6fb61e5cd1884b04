package lambda

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
)

// checkHandler finds the file that the Handler names, before anything is started. It refuses only what cannot load.
func checkHandler(u *guest.Unit, f family) error {
	dir, base := filepath.Split(u.Handler)
	i := strings.IndexByte(base, '.')
	if f == python {
		i = strings.LastIndexByte(base, '.')
	}
	if i < 0 || strings.Contains(u.Handler, "..") {
		return initFault(u, "Runtime.MalformedHandlerName", fmt.Sprintf("Bad handler '%s'", u.Handler)).
			WithHint("a handler is written file.function, as in src/app.handler")
	}
	stem := dir + base[:i]
	exts := []string{"", ".js", ".mjs", ".cjs"}
	if f == python {
		stem = strings.ReplaceAll(stem, ".", "/")
		exts = []string{".py", "/__init__.py", ".pyc", ".so"}
	}
	found := func(base string) bool {
		for _, ext := range exts {
			if isFile(base + ext) {
				return true
			}
		}
		return false
	}
	if filepath.IsAbs(stem) {
		if at := outside(u, stem); at == stem || found(at) || isDir(at) {
			return nil
		}
		return initFault(u, "Runtime.ImportModuleError", fmt.Sprintf("Cannot find module '%s': handler %s needs the file %s.js, .mjs or .cjs", stem, u.Handler, stem)).
			WithHint("a layer has to hold it; one that is not here was named at the build")
	}
	if found(filepath.Join(u.Root, stem)) {
		return nil
	}
	if f == python {
		if anyModule(u, stem) {
			return nil
		}
	} else if resolvable(u, stem) {
		return nil
	}
	msg := fmt.Sprintf("Cannot find module '%s': handler %s needs the file %s.js, .mjs or .cjs in %s", stem, u.Handler, stem, u.Root)
	if f == python {
		msg = fmt.Sprintf("Unable to import module '%s': handler %s needs the file %s.py in %s", stem, u.Handler, stem, u.Root)
	}
	e := initFault(u, "Runtime.ImportModuleError", msg)
	for _, ext := range []string{".ts", ".tsx", ".mts", ".jsx"} {
		if isFile(filepath.Join(u.Root, stem) + ext) {
			return e.WithHint("%s%s is there, but it was not compiled to JavaScript", stem, ext)
		}
	}
	return e.WithHint("check the handler's path, and that the package patterns do not leave the file out")
}

// initFault is a failed Init that the host foresees.
func initFault(u *guest.Unit, kind, msg string) *errs.Error {
	return errs.New(errs.Failed, "function %s: %w", u.Function, &guest.InitError{Type: kind, Message: msg})
}

// anyModule says whether Python may find the module in a package folder or a compiled form, or outside the code.
func anyModule(u *guest.Unit, stem string) bool {
	top, _, _ := strings.Cut(stem, "/")
	dirs := []string{u.Root}
	if u.Layers != "" {
		dirs = append(dirs, filepath.Join(u.Layers, "python"))
		more, _ := filepath.Glob(filepath.Join(u.Layers, "python", "lib", "python*", "site-packages"))
		dirs = append(dirs, more...)
	}
	for i, d := range dirs {
		if m, _ := filepath.Glob(filepath.Join(d, stem) + ".*.so"); len(m) > 0 {
			return true
		}
		if i > 0 && (isDir(filepath.Join(d, top)) || isFile(filepath.Join(d, top+".py"))) {
			return true
		}
	}
	for _, kv := range u.Env {
		if strings.HasPrefix(kv, "PYTHONPATH=") {
			return true
		}
	}
	return false
}

// resolvable says whether Node may find the module as a package.
func resolvable(u *guest.Unit, stem string) bool {
	top, _, _ := strings.Cut(filepath.ToSlash(stem), "/")
	if isDir(filepath.Join(u.Root, stem)) {
		return true // a folder with index.js or package.json
	}
	for _, kv := range u.Env {
		if strings.HasPrefix(kv, "NODE_PATH=") {
			return true
		}
	}
	for _, d := range append([]string{filepath.Join(u.Root, "node_modules")}, nodeDirs(u)...) {
		if d != u.Root && (isDir(filepath.Join(d, top)) || isFile(filepath.Join(d, top+".js"))) {
			return true
		}
	}
	return false
}

// nodeFlags are the flags Lambda gives Node.js.
func nodeFlags(u *guest.Unit) []string {
	flags := []string{"--max-http-header-size=81920"}
	for _, kv := range u.Env {
		if strings.HasPrefix(kv, "NODE_OPTIONS=") && strings.Contains(strings.ReplaceAll(kv, "_", "-"), "--max-old-space-size") {
			return flags
		}
	}
	if u.MemoryMB >= 128 {
		// Past its own limit Node ends with an error that says where; past the Sandbox's it is killed.
		flags = append(flags, fmt.Sprintf("--max-old-space-size=%d", u.MemoryMB*9/10))
	}
	return flags
}
