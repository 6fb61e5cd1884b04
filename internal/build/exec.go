package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxOutput is what is kept of a tool's output, from its end.
const maxOutput = 256 << 10

// command is one run of a tool.
type command struct {
	dir  string
	name string
	args []string
	env  []string // further variables, over the cleaned environment
	pass []string // further names to let through

	// What a Runner needs to know; see Job and Step.
	fetches bool
	outside bool // nothing of the project is needed
	plain   bool // a program of this machine that touches nothing of the project's
	shows   []string
	writes  []string
	results []string
	modules bool
	then    []Step
}

// run runs a tool to its end and returns what it printed, standard output and error together.
func (b *builder) run(c command) (string, error) {
	return b.runContext(b.ctx, c)
}

func (b *builder) runContext(ctx context.Context, c command) (string, error) {
	name, err := b.lookPath(c.name)
	if err != nil {
		return "", err
	}
	if !c.plain {
		if b.confined() {
			return b.runJob(ctx, name, c)
		}
		if b.noRunner != nil {
			return "", b.noRunner
		}
	}
	cmd := exec.CommandContext(ctx, name, c.args...)
	cmd.Dir = c.dir
	env := childEnv(b.o.Environ(), c.pass)
	if !c.plain {
		if env, err = PlainEnv(b.o.Environ(), append(slices.Clone(c.pass), b.o.Pass...), filepath.Join(b.o.Cache, "builds")); err != nil {
			return "", err
		}
	}
	cmd.Env = append(env, c.env...)
	var out tail
	cmd.Stdout = &out
	if b.o.Verbose {
		cmd.Stdout = io.MultiWriter(&out, b.o.Stdout)
	}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = 2 * time.Second
	ownGroup(cmd)
	err = cmd.Run()
	endGroup(cmd)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), err
}

// lookPath finds a tool in the PATH of the user's environment.
func (b *builder) lookPath(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	dirs, _ := b.o.Env("PATH")
	for _, dir := range filepath.SplitList(dirs) {
		if !filepath.IsAbs(dir) {
			continue // a tool of the current folder is not the user's choice
		}
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// missing says whether the tool itself is not there.
func missing(err error) bool { return errors.Is(err, exec.ErrNotFound) }

// show gives the user what a failed tool printed, trimmed.
func (b *builder) show(out string) {
	if b.o.Verbose {
		return // shown already
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	const most = 40
	if len(lines) > most {
		lines = append([]string{"…"}, lines[len(lines)-most:]...)
	}
	for _, l := range lines {
		if len(l) > 300 {
			l = l[:300] + "…"
		}
		_, _ = io.WriteString(b.o.Stdout, "  | "+l+"\n")
	}
}

// tail keeps the end of what is written to it.
type tail struct{ buf bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - 2*maxOutput; over > 0 {
		t.buf.Next(t.buf.Len() - maxOutput)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.buf.String() }

var (
	// envAllowed are the variables a build tool needs: where things are, how it talks to people, its own settings, proxies and
	// certificates.
	envAllowed = regexp.MustCompile(`(?i)^(PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TERM|TMPDIR|XDG_\w+|` +
		`npm_config_.*|YARN_\w+|COREPACK_\w+|PNPM_HOME|NVM_DIR|NVM_BIN|VOLTA_HOME|FNM_\w+|NODE_EXTRA_CA_CERTS|` +
		`PIP_\w+|PYENV_ROOT|PYENV_VERSION|UV_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|` +
		`GOPROXY|GOFLAGS|GOPRIVATE|GONOPROXY|GONOSUMDB|GONOSUMCHECK|GOSUMDB|GOINSECURE|GOPATH|GOMODCACHE|GOCACHE|GOROOT|GOTOOLCHAIN|GOENV|GOVCS|` +
		`https?_proxy|no_proxy|all_proxy|ftp_proxy|SSL_CERT_FILE|SSL_CERT_DIR|GIT_SSL_CAINFO|SSH_AUTH_SOCK|` +
		`NIX_\w+|LD_LIBRARY_PATH|SDKROOT|DEVELOPER_DIR)$`)
	// envSecret are names of secrets that would pass by a prefix. npm's own settings are not among them: it needs them to
	// log in to a private registry.
	envSecret = regexp.MustCompile(`(?i)(token|secret|passw|credential|_key$|_auth$)`)
)

// childEnv is the environment of a tool: what it needs, and what pass names.
func childEnv(environ, pass []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, ok := strings.Cut(kv, "=")
		if !ok {
			continue
		}
		allowed := envAllowed.MatchString(name) && (!envSecret.MatchString(name) || strings.HasPrefix(strings.ToLower(name), "npm_config_"))
		for _, p := range pass {
			allowed = allowed || p == name
		}
		if allowed {
			env = append(env, kv)
		}
	}
	return env
}
