package workshop

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/build"
	"github.com/ebb-run/ebb/internal/runtimes"
)

var (
	// hostly are variables that say where things are on this machine, which are elsewhere inside or not there.
	hostly = regexp.MustCompile(`(?i)^(HOME|USER|LOGNAME|SHELL|TMPDIR|XDG_\w+|SSH_AUTH_SOCK|PYENV_\w+|NVM_\w+|VOLTA_HOME|FNM_\w+|PNPM_HOME|npm_config_(cache|prefix|userconfig|globalconfig|tmp|init_module)|` +
		`PIP_(CACHE_DIR|CONFIG_FILE|LOG|LOG_FILE|TARGET|PREFIX|ROOT|USER)|GOCACHE|GOMODCACHE|GOPATH|GOENV|GOTMPDIR|YARN_CACHE_FOLDER|YARN_GLOBAL_FOLDER|COREPACK_HOME|UV_CACHE_DIR)$`)
	proxyVar  = regexp.MustCompile(`(?i)^((https?|all|ftp)_proxy|npm_config_(https?_)?proxy|PIP_PROXY)$`)
	secretVar = regexp.MustCompile(`(?i)(token|secret|passw|credential|_key$|_auth|:username|_authtoken)`)
	userinfo  = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/@\s|,]*@`)
	// npmSecret are the keys of .npmrc that let somebody in.
	npmSecret = regexp.MustCompile(`(?i)(_auth|_password|authtoken|username|email|certfile|keyfile|^\s*(key|cert|otp)\s*=|proxy)`)
)

// goProxy is where steps that fetch find what Go has downloaded on this machine.
const goProxy = "/ebb-go"

// furnish makes a step's home, and gives its environment.
func (b *bench) furnish(s build.Step) (home string, env []string, err error) {
	if home, err = os.MkdirTemp(b.dir, "home-*"); err != nil {
		return "", nil, err
	}
	for _, dir := range []string{home, filepath.Join(home, "home"), filepath.Join(home, "tmp")} {
		if err := b.w.makeFolder(dir); err != nil {
			return home, nil, err
		}
	}
	if err := b.npmrc(filepath.Join(home, "home", ".npmrc"), s.Fetches); err != nil {
		return home, nil, err
	}
	said := map[string]bool{}
	add := func(name, value string) {
		if !s.Fetches {
			value = userinfo.ReplaceAllString(value, "$1")
		}
		said[name] = true
		env = append(env, name+"="+value)
	}
	for _, kv := range s.Env {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case slices.Contains(s.Keep, name):
			said[name] = true
			env = append(env, kv)
		case hostly.MatchString(name):
		case !s.Fetches && (proxyVar.MatchString(name) || secretVar.MatchString(name)):
		case name == "GOPROXY" || said[name]:
		case name == "PATH": // what is relative to the project is a stranger's choice
			dirs := slices.DeleteFunc(filepath.SplitList(value), func(dir string) bool { return !filepath.IsAbs(dir) || b.job.Root != "" && within(dir, b.job.Root) })
			add(name, strings.Join(dirs, string(filepath.ListSeparator)))
		default:
			add(name, value)
		}
	}
	for key, value := range pipSettings(b.w.o.Env) {
		name := "PIP_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
		if !said[name] && !hostly.MatchString(name) && (s.Fetches || name != "PIP_PROXY") {
			add(name, value)
		}
	}
	for _, name := range []string{"GOSUMDB", "GOPRIVATE", "GONOSUMDB", "GONOPROXY", "GOFLAGS", "GOTOOLCHAIN", "GOINSECURE"} {
		if value := goSetting(b.w.o.Env, name); value != "" && !said[name] {
			add(name, value)
		}
	}
	proxy := goSetting(b.w.o.Env, "GOPROXY")
	if proxy == "" {
		proxy = "https://proxy.golang.org"
	}
	if s.Fetches && downloads(b.w.o.Env) != "" {
		proxy = "file://" + goProxy + "|" + proxy
	}
	add("GOPROXY", proxy)
	for name, value := range map[string]string{
		"HOME": own + "/home", "TMPDIR": own + "/tmp", "USER": "build", "LOGNAME": "build", "SHELL": "/bin/sh",
		"npm_config_cache": cache + "/npm", "PIP_CACHE_DIR": cache + "/pip", "YARN_CACHE_FOLDER": cache + "/yarn", "XDG_CACHE_HOME": cache + "/other",
		"COREPACK_HOME": cache + "/corepack", "UV_CACHE_DIR": cache + "/uv",
		"GOCACHE": cache + "/go-build", "GOMODCACHE": cache + "/go-mod", "GOPATH": own + "/home/go", "GOENV": "off", "GOTMPDIR": own + "/tmp",
	} {
		add(name, value)
	}
	return home, env, nil
}

// npmrc writes the user's settings of npm, without what lets somebody in where that is not to be seen.
func (b *bench) npmrc(to string, whole bool) error {
	var text strings.Builder
	for _, line := range lines(userNpmrc(b.w.o.Env)) {
		if !whole {
			if npmSecret.MatchString(line) {
				continue
			}
			line = userinfo.ReplaceAllString(line, "$1")
		}
		text.WriteString(line + "\n")
	}
	if text.Len() == 0 {
		return nil
	}
	if err := os.WriteFile(to, []byte(text.String()), 0o600); err != nil {
		return err
	}
	return b.w.own(to)
}

// downloads is what Go has downloaded on this machine, in the form of a module proxy; "" where there is nothing.
func downloads(env func(string) (string, bool)) string {
	dir := goSetting(env, "GOMODCACHE")
	if dir == "" {
		path := filepath.SplitList(goSetting(env, "GOPATH"))
		if home, _ := env("HOME"); len(path) == 0 {
			path = []string{filepath.Join(home, "go")}
		}
		dir = filepath.Join(path[0], "pkg", "mod")
	}
	if dir = filepath.Join(dir, "cache", "download"); filepath.IsAbs(dir) && isFolder(dir) {
		return dir
	}
	return ""
}

// common are tools that others run by their names.
var common = []string{"node", "npm", "python3", "go", "make", "yarn", "pnpm", "git", "cc", "cargo"}

// programs are the folders that a step's program, and others that it may run, are installed in.
func programs(s build.Step) []string {
	files := []string{s.Command[0]}
	for _, kv := range s.Env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			for _, name := range common {
				if p := look(path, name); p != "" {
					files = append(files, p)
				}
			}
		}
	}
	var all []string
	for i, file := range files {
		real, err := filepath.EvalSymlinks(file)
		if err != nil {
			continue
		}
		for _, f := range []string{file, real} {
			show := installation(f)
			if show == "" && i == 0 && f == real { // the one that is run
				show = f
			}
			if show != "" && !within(show, "/usr", "/bin", "/sbin") && !slices.Contains(all, show) {
				all = append(all, show)
			}
		}
	}
	return all
}

// installation is the folder that belongs to a program in a folder bin: the one above, where that is not somebody's home; else "".
func installation(program string) string {
	dir := filepath.Dir(program)
	if up := filepath.Dir(dir); filepath.Base(dir) == "bin" && up != "/" && !runtimes.Personal(up) {
		return up
	}
	return ""
}

// reached is a program by a name that it has inside: where a link to it is not shown, its own.
func reached(program string) string {
	real, err := filepath.EvalSymlinks(program)
	if err != nil || within(program, "/usr", "/bin", "/sbin") || installation(program) != "" {
		return program
	}
	return real
}

func look(path, name string) string {
	for _, dir := range filepath.SplitList(path) {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && filepath.IsAbs(dir) && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

func within(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || under(path, dir) })
}

// trusted are files and folders that variables name, by which tools trust registries, or find packages on this machine.
func trusted(env []string) []string {
	var all []string
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		switch strings.ToUpper(name) {
		case "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "NPM_CONFIG_CAFILE", "PIP_FIND_LINKS":
		default:
			continue
		}
		for word := range strings.FieldsSeq(value) {
			if u, err := url.Parse(word); err == nil && u.Scheme == "file" {
				word = u.Path
			}
			if _, err := os.Stat(word); err == nil && filepath.IsAbs(word) && !within(word, "/usr", "/etc/ssl/certs") && !runtimes.Personal(word) && word != "/" {
				all = append(all, filepath.Clean(word))
			}
		}
	}
	return all
}
