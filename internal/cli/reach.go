package cli

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/server"
)

// reach says which Node a command talks to.
type reach struct {
	apiURL, data              string // of this machine
	server, keyFile, serverCA string // elsewhere
}

// reachFlags adds the flags that say which Node a command talks to.
func (c *command) reachFlags(cmd *cobra.Command, dataFlag string) {
	cmd.Flags().StringVar(&c.reach.apiURL, "api", "", "URL of the control API (default: found by the data directory)")
	cmd.Flags().StringVar(&c.reach.data, dataFlag, "", "data directory of the running ebb (default: .ebb here or above, else that of ebb serve)")
	c.serverFlags(cmd)
}

// serverFlags adds those about a Node elsewhere.
func (c *command) serverFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.reach.server, "server", "", "URL of an ebb elsewhere, https://HOST:PORT (default: $EBB_SERVER, else this machine's)")
	cmd.Flags().StringVar(&c.reach.keyFile, "key-file", "", "file with the key for it (default: $EBB_KEY, else that of ebb login)")
	cmd.Flags().StringVar(&c.reach.serverCA, "server-ca", "", "PEM file that its certificate must come from; system is the CAs that this machine trusts (default: what the key names)")
	cmd.Flags().Var(refusedKey{}, "key", "refused")
	_ = cmd.Flags().MarkHidden("key") // it exists
}

// refusedKey is a flag that says where a key belongs instead.
type refusedKey struct{}

func (refusedKey) String() string { return "" }
func (refusedKey) Type() string   { return "string" }
func (refusedKey) Set(string) error {
	return errs.New(errs.Invalid, "a key on the command line is read by every user of this machine, and kept by the shell").
		WithHint("Put it into EBB_KEY or a file for --key-file, or keep it with `ebb login`. Revoke this one if it was real.")
}

// serverURL is the Node elsewhere that is meant, or empty.
func (c *command) serverURL() (string, error) {
	local := c.reach.data != "" || c.reach.apiURL != ""
	if c.reach.server != "" && local {
		return "", usageError{fmt.Errorf("--server is an ebb elsewhere; the data directory and --api are of this machine: give one of them")}
	}
	if c.reach.server != "" || local {
		return c.reach.server, nil
	}
	v, _ := c.Env("EBB_SERVER")
	return v, nil
}

// client finds the Node: by --server, else this machine's by --api, by the data directory, by .ebb in this folder or above, or the
// default of `ebb serve`.
func (c *command) client() (*api.Client, error) {
	at, err := c.serverURL()
	if err != nil {
		return nil, err
	}
	if at != "" {
		return c.remote(at)
	}
	if c.reach.apiURL != "" {
		if u, err := url.Parse(c.reach.apiURL); err != nil || !server.OnThisMachine(u.Host) {
			return nil, usageError{errs.New(errs.Invalid, "--api %s is not on this machine, and this machine's token is for no other", c.reach.apiURL).
				WithHint("For an ebb elsewhere give --server, and a key.")}
		}
	}
	var tried []string
	for _, dir := range c.dataDirs() {
		run, err := server.ReadRunFile(dir)
		if err != nil {
			tried = append(tried, dir)
			continue
		}
		token, err := identity.ReadToken(filepath.Join(dir, "token"))
		if err != nil {
			return nil, err
		}
		base := run.API
		if c.reach.apiURL != "" {
			base = c.reach.apiURL
		}
		return api.NewClient(base, token), nil
	}
	return nil, errs.New(errs.NotFound, "no running ebb found (looked in %s)", strings.Join(tried, ", ")).
		WithHint("Start one with `ebb up` in the project or with `ebb serve`, or name its data directory.")
}

// remote is the client of an ebb elsewhere.
func (c *command) remote(at string) (*api.Client, error) {
	u, err := api.ParseServer(at)
	if err != nil {
		return nil, usageError{err}
	}
	kept, err := c.keptLogin(u.String())
	if err != nil {
		return nil, err
	}
	text, err := c.givenKey()
	if err != nil {
		return nil, err
	}
	if text == "" {
		text = kept.Key
	}
	if text == "" {
		return nil, errs.New(errs.Unauthenticated, "no key for %s", u).
			WithHint("Put it into EBB_KEY or a file for --key-file, or keep it with `ebb login --server %s`. `ebb keys create NAME` makes one on the server.", u)
	}
	key, err := identity.ParseSecret(text)
	if err != nil {
		return nil, err
	}
	return c.dial(u.String(), key, kept.CA)
}

// dial makes the client with the CA that --server-ca names, else the one kept.
func (c *command) dial(at string, key identity.Secret, ca string) (*api.Client, error) {
	r := api.Remote{URL: at, Key: key, CA: []byte(ca)}
	switch c.reach.serverCA {
	case "":
	case "system":
		r.CA, r.SystemCA = nil, true
	default:
		data, err := os.ReadFile(c.abs(c.reach.serverCA))
		if err != nil {
			return nil, errs.New(errs.NotFound, "read --server-ca: %w", err)
		}
		r.CA = data
	}
	return api.NewRemoteClient(r)
}

// givenKey is the text of the key in --key-file or EBB_KEY, or empty.
func (c *command) givenKey() (string, error) {
	if c.reach.keyFile == "" {
		v, _ := c.Env("EBB_KEY")
		return strings.TrimSpace(v), nil
	}
	path := c.abs(c.reach.keyFile)
	f, err := os.Open(path)
	if err != nil {
		return "", errs.New(errs.NotFound, "read --key-file: %w", err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
		c.say("%s every user of this machine can read the key in %s: chmod 600 %s", c.paint(yellow, "warning:"), path, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", fmt.Errorf("read --key-file: %w", err)
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return "", errs.New(errs.Invalid, "--key-file %s is empty", path)
	}
	return strings.TrimSpace(string(data)), nil
}
