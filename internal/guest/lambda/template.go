package lambda

import (
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// templateVar tells a bootstrap that it is a Template.
const templateVar = "_EBB_TEMPLATE"

// placeVars are read once, when a program starts. They do nothing but name a place and a language, so a Template can have them of the Unit.
var placeVars = []string{"TZ", "LANG", "LANGUAGE", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME"}

// bootPrefixes begin the names of variables that Node.js, its libraries or the C library read before any code runs, or may.
var bootPrefixes = []string{"NODE_", "UV_", "OPENSSL_", "SSL_", "SSLKEYLOG", "LD_", "GLIBC_", "MALLOC_", "MEMORY_", "ICU_", "V8_", "GCONV_", "LOCPATH", "NLSPATH", "LC_", "LANG"}

// lateVars have such a name, but are read by the bootstrap's own doing or by libraries in JavaScript.
var lateVars = []string{"NODE_PATH", "NODE_ENV", "NODE_CONFIG", "NODE_CONFIG_DIR", "NODE_CONFIG_ENV", "NODE_APP_INSTANCE"}

// inert are values of NODE_OPTIONS that read no file and listen nowhere, so that a Template can have them of the Unit.
var inert = regexp.MustCompile(`^NODE_OPTIONS=(\s*--(enable-source-maps|no-warnings|no-deprecation|trace-warnings|(max-old-space-size|max-semi-space-size|stack-trace-limit|max-http-header-size)=\d{1,6}))*\s*$`)

// template is a Template for the Unit whose Command, without what the bootstrap has to know, c has. There is none for Units that bring what
// counts when Node.js starts, nor where one would need the Unit's files.
func (p *Protocol) template(u *guest.Unit, c *sandbox.Code) *sandbox.Template {
	if !u.Mounts || len(c.Beside) > 0 {
		return nil
	}
	t := &sandbox.Template{Name: u.Runtime, Kind: sandbox.Waiting}
	for _, m := range c.Mounts {
		if !slices.Contains([]string{taskDir, optDir, suppliedDir, compiledDir}, m.Target) {
			t.Mounts = append(t.Mounts, m)
		}
	}
	for _, kv := range c.Env {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case slices.Contains(placeVars, name), slices.Contains(trusted, kv):
			t.Env = append(t.Env, kv)
		case slices.Contains(lateVars, name):
		case name == "NODE_OPTIONS" && inert.MatchString(kv):
			t.Env = append(t.Env, kv)
		case slices.ContainsFunc(bootPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }):
			return nil
		}
	}
	t.Env = append(t.Env, templateVar+"=1")
	t.Command = slices.Concat(u.Interpreter, nodeFlags(u), []string{p.bootstrap(u, "node.cjs")})
	for _, word := range t.Command {
		for _, m := range mounts(u) {
			if _, own := below(word, m.Target); own {
				return nil
			}
		}
	}
	return t
}
