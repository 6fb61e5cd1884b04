package workshop

import (
	"bufio"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// public are the registries of the package managers, as they are without configuration.
var public = []string{
	"registry.npmjs.org:443", "registry.yarnpkg.com:443", "pypi.org:443", "files.pythonhosted.org:443", "proxy.golang.org:443", "sum.golang.org:443",
}

// Registries lists what builds connect to, as host:port: the public registries and those that the configuration of this machine and its user
// names, never those that a project does.
func Registries(env func(string) (string, bool)) []string {
	all := slices.Clone(public)
	add := func(text string) {
		for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ' ' || r == ',' || r == '|' || r == '\n' }) {
			if to := destination(strings.Trim(word, `"'`)); to != "" && !slices.Contains(all, to) {
				all = append(all, to)
			}
		}
	}
	for _, name := range []string{
		"npm_config_registry", "NPM_CONFIG_REGISTRY", "YARN_REGISTRY", "YARN_NPM_REGISTRY_SERVER", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS",
	} {
		text, _ := env(name)
		add(text)
	}
	for _, file := range npmFiles(env) {
		for key, value := range settings(file) {
			if key == "registry" || strings.HasSuffix(key, ":registry") {
				add(value)
			}
		}
	}
	if home, ok := env("HOME"); ok {
		for _, line := range lines(filepath.Join(home, ".yarnrc")) {
			if rest, ok := strings.CutPrefix(line, "registry "); ok {
				add(rest)
			}
		}
		for _, line := range lines(filepath.Join(home, ".yarnrc.yml")) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "npmRegistryServer:"); ok {
				add(rest)
			}
		}
	}
	pip := pipSettings(env)
	for _, key := range []string{"index-url", "extra-index-url", "find-links"} {
		add(pip[key])
	}
	for _, name := range []string{"GOPROXY", "GOSUMDB"} {
		add(goSetting(env, name))
	}
	return all
}

// destination is where a URL leads, as egress has it; "" when it is none.
func destination(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	case u.Scheme == "http":
		port = "80"
	default:
		return ""
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// proxies are where the environment's proxies are.
func proxies(env func(string) (string, bool)) []string {
	var all []string
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "npm_config_proxy", "npm_config_https_proxy", "PIP_PROXY"} {
		text, _ := env(name)
		if !strings.Contains(text, "://") && text != "" {
			text = "http://" + text
		}
		if to := destination(text); to != "" && !slices.Contains(all, to) {
			all = append(all, to)
		}
	}
	return all
}

// npmFiles are where npm's settings of the user and the machine are.
func npmFiles(env func(string) (string, bool)) []string {
	return []string{"/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc", userNpmrc(env)}
}

func userNpmrc(env func(string) (string, bool)) string {
	for _, name := range []string{"npm_config_userconfig", "NPM_CONFIG_USERCONFIG"} {
		if file, ok := env(name); ok && file != "" {
			return file
		}
	}
	home, _ := env("HOME")
	return filepath.Join(home, ".npmrc")
}

// pipSettings are those of pip.conf files, later ones over earlier ones: the machine's, the user's, that of the environment.
func pipSettings(env func(string) (string, bool)) map[string]string {
	files := []string{"/etc/pip.conf"}
	if home, ok := env("HOME"); ok {
		conf := filepath.Join(home, ".config")
		if dir, ok := env("XDG_CONFIG_HOME"); ok && dir != "" {
			conf = dir
		}
		files = append(files, filepath.Join(home, ".pip", "pip.conf"), filepath.Join(conf, "pip", "pip.conf"))
	}
	if file, ok := env("PIP_CONFIG_FILE"); ok {
		files = append(files, file)
	}
	all := map[string]string{}
	for _, file := range files {
		section, last := "", ""
		for _, line := range lines(file) {
			text := strings.TrimSpace(line)
			key, value, found := strings.Cut(text, "=")
			switch {
			case text == "" || text[0] == '#' || text[0] == ';':
			case text[0] == '[':
				section, last = strings.Trim(text, "[]"), ""
			case section != "global" && section != "install":
			case line[0] == ' ' || line[0] == '\t': // the value goes on
				if last != "" {
					all[last] = strings.TrimSpace(all[last] + " " + text)
				}
			case found:
				last = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(key)), "_", "-")
				all[last] = strings.TrimSpace(value)
			}
		}
	}
	return all
}

// goSetting is what the go command has for a variable, in the environment or in what `go env -w` wrote.
func goSetting(env func(string) (string, bool), name string) string {
	if text, ok := env(name); ok && text != "" {
		return text
	}
	file, ok := env("GOENV")
	if !ok || file == "" {
		conf, ok := env("XDG_CONFIG_HOME")
		if !ok || conf == "" {
			home, _ := env("HOME")
			conf = filepath.Join(home, ".config")
		}
		file = filepath.Join(conf, "go", "env")
	}
	return settings(file)[name]
}

// settings reads lines of key=value.
func settings(file string) map[string]string {
	all := map[string]string{}
	for _, line := range lines(file) {
		if key, value, ok := strings.Cut(line, "="); ok {
			all[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return all
}

func lines(file string) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []string
	for s := bufio.NewScanner(f); s.Scan(); {
		all = append(all, s.Text())
	}
	return all
}
