package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
)

// logins is the file of keys that `ebb login` keeps.
type logins struct {
	Format  int              `json:"format"`
	Servers map[string]login `json:"servers"` // by URL
}

type login struct {
	Key string `json:"key"`
	CA  string `json:"ca,omitempty"` // PEM; empty where the key names it, or the machine's roots decide
}

const loginsFormat = 1

func (c *command) login() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Keep the key of a server for the commands that follow",
		Long: "Reads the key from --key-file, from EBB_KEY, or from standard input, asks the server whether it holds, and keeps it in a file that\n" +
			"only you can read ($XDG_CONFIG_HOME/ebb/servers.json). Commands with the same --server then need no key.",
		Example: "  ebb login --server https://ebb.example.com:8443\n  ebb login --server https://ebb.example.com:8443 --key-file ci.key --server-ca ca.pem",
		Args:    args(noArgs),
	}
	c.serverFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		at, err := c.loginServer()
		if err != nil {
			return err
		}
		text, err := c.givenKey()
		if err != nil {
			return err
		}
		if text == "" {
			if text, err = c.askKey(); err != nil {
				return err
			}
		}
		key, err := identity.ParseSecret(text)
		if err != nil {
			return err
		}
		l := login{Key: key.Text()}
		if c.reach.serverCA != "" && c.reach.serverCA != "system" {
			data, err := os.ReadFile(c.abs(c.reach.serverCA))
			if err != nil {
				return errs.New(errs.NotFound, "read --server-ca: %w", err)
			}
			l.CA = string(data)
		}
		if c.reach.serverCA == "system" {
			// The fingerprint would be heeded again by the next command.
			l.Key = key.Bearer()
		}
		client, err := c.dial(at, key, "")
		if err != nil {
			return err
		}
		info, err := client.Info(cmd.Context())
		if err != nil {
			return err
		}
		if err := c.changeLogins(func(f *logins) { f.Servers[at] = l }); err != nil {
			return err
		}
		return c.printLogin(at, info)
	}
	return cmd
}

func (c *command) printLogin(at string, info *api.Info) error {
	who := info.Caller
	if who == nil {
		who = &api.Caller{}
	}
	if c.json {
		c.printJSON(map[string]any{"server": at, "caller": who, "version": info.Version})
		return nil
	}
	scope := "every app"
	if who.App != "" {
		scope = "app " + who.App
	}
	fmt.Fprintf(c.Stdout, "logged in to %s as %s (key %s, role %s, %s)\n", at, who.Name, who.Key, who.Role, scope)
	return nil
}

func (c *command) logout() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Forget the key of a server",
		Long:  "Forgets what `ebb login` has kept. The key itself goes on working: `ebb keys revoke` ends it.",
		Args:  args(noArgs),
	}
	cmd.Flags().StringVar(&c.reach.server, "server", "", "URL of the server (default: $EBB_SERVER)")
	cmd.RunE = func(*cobra.Command, []string) error {
		at, err := c.loginServer()
		if err != nil {
			return err
		}
		found := false
		if err := c.changeLogins(func(f *logins) { _, found = f.Servers[at]; delete(f.Servers, at) }); err != nil {
			return err
		}
		if !found {
			return errs.New(errs.NotFound, "no key of %s is kept", at)
		}
		if c.json {
			c.printJSON(map[string]string{"forgotten": at})
		} else {
			fmt.Fprintf(c.Stdout, "forgot the key of %s\n", at)
		}
		return nil
	}
	return cmd
}

func (c *command) loginServer() (string, error) {
	at, err := c.serverURL()
	if err != nil {
		return "", err
	}
	if at == "" {
		return "", usageError{fmt.Errorf("which server? give --server https://HOST:PORT")}
	}
	u, err := api.ParseServer(at)
	if err != nil {
		return "", usageError{err}
	}
	return u.String(), nil
}

// askKey reads the key from standard input, unseen where that is a terminal.
func (c *command) askKey() (string, error) {
	if f, ok := c.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(c.Stderr, "key: ")
		data, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(c.Stderr)
		if err != nil {
			return "", fmt.Errorf("read the key: %w", err)
		}
		return string(data), nil
	}
	line, err := bufio.NewReader(io.LimitReader(c.Stdin, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the key: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// configDir is where settings of the user are kept: $XDG_CONFIG_HOME/ebb.
func (c *command) configDir() string {
	if v, ok := c.Env("XDG_CONFIG_HOME"); ok && filepath.IsAbs(v) {
		return filepath.Join(v, "ebb")
	}
	home, _ := c.Env("HOME")
	if home == "" {
		home = c.Dir
	}
	return filepath.Join(home, ".config", "ebb")
}

func (c *command) loginsFile() string { return filepath.Join(c.configDir(), "servers.json") }

func (c *command) readLogins() (*logins, error) {
	f := &logins{Format: loginsFormat, Servers: map[string]login{}}
	path := c.loginsFile()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read kept keys: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, errs.New(errs.Forbidden, "the kept keys in %s can be read by others (mode %04o)", path, info.Mode().Perm()).
			WithHint("Run `chmod 600 %s`, and rotate the keys in it if others use this machine.", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read kept keys: %w", err)
	}
	if err := json.Unmarshal(data, f); err != nil || f.Format < 1 {
		return nil, errs.New(errs.Invalid, "%s is damaged", path).WithHint("Delete it and run `ebb login` again.")
	}
	if f.Format > loginsFormat {
		return nil, errs.New(errs.Unsupported, "%s has format %d; this ebb knows up to %d", path, f.Format, loginsFormat).WithHint("Use the newer ebb that wrote it.")
	}
	if f.Servers == nil {
		f.Servers = map[string]login{}
	}
	return f, nil
}

func (c *command) keptLogin(at string) (login, error) {
	f, err := c.readLogins()
	if err != nil {
		return login{}, err
	}
	return f.Servers[at], nil
}

// changeLogins writes the file anew: it is there in full or as it was.
func (c *command) changeLogins(change func(*logins)) error {
	f, err := c.readLogins()
	if err != nil {
		return err
	}
	change(f)
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("keep key: %w", err)
	}
	dir := c.configDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep key: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".servers-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keep key: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when all went well
	_, err = tmp.Write(append(data, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), c.loginsFile())
	}
	if err != nil {
		return fmt.Errorf("keep key: %w", err)
	}
	return nil
}
