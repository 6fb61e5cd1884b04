package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/runtimes"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/server"
)

func (c *command) doctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Show what this machine can do, what is missing, and the mend",
		Args:  args(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks, err := c.checks(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				c.printJSON(map[string]any{"version": Version, "os": runtime.GOOS, "arch": runtime.GOARCH, "checks": checks})
				return nil
			}
			fmt.Fprintf(c.Stdout, "ebb %s on %s/%s\n", Version, runtime.GOOS, runtime.GOARCH)
			for _, ch := range checks {
				mark := c.paint(green, "ok  ")
				if !ch.OK {
					mark = c.paint(yellow, "lack")
				}
				fmt.Fprintf(c.Stdout, "%s  %s: %s\n", mark, ch.Name, ch.Detail)
				if ch.Mend != "" && !ch.OK {
					fmt.Fprintf(c.Stdout, "      %s\n", strings.ReplaceAll(strings.TrimSpace(ch.Mend), "\n", "\n      "))
				}
			}
			return nil
		},
	}
}

func (c *command) checks(ctx context.Context) ([]api.Check, error) {
	var out []api.Check
	found, err := runtimes.New(c.Env).List(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		out = append(out, api.Check{Name: "runtime " + f.Family, OK: true, Detail: f.Version + " (" + f.Command[0] + ")"})
	}
	for _, t := range []struct{ tool, what, mend string }{
		{"node", "functions for nodejs*", "Install Node 20 or newer."},
		{"npm", "installing Node dependencies", "Install npm; it comes with Node."},
		{"python3", "functions for python*", "Install Python 3.9 or newer."},
		{"pip3", "installing Python dependencies", "Install pip for your Python."},
		{"go", "building Go handlers", "Install Go."},
		{"make", "projects with a Makefile", "Install make."},
	} {
		path, err := c.lookPath(t.tool)
		ch := api.Check{Name: t.tool, OK: err == nil, Detail: path, Mend: t.mend}
		if err != nil {
			ch.Detail = "not found; needed for " + t.what
		}
		out = append(out, ch)
	}
	dir, err := os.MkdirTemp("", "ebb-doctor-")
	if err != nil {
		return nil, fmt.Errorf("make a test folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	d, err := process.Open(process.Options{Dir: filepath.Join(dir, "run")})
	if err != nil {
		return nil, err
	}
	for _, p := range d.Protections() {
		out = append(out, server.Check(p))
	}
	if ok, _ := d.Isolated(); !ok {
		for _, p := range process.Diagnose() {
			out = append(out, server.Check(p))
		}
	}
	if err := d.Close(); err != nil {
		return nil, err
	}
	if client, err := c.client(); err == nil {
		info, err := client.Info(ctx)
		ch := api.Check{Name: "server", OK: err == nil}
		if err != nil {
			ch.Detail = err.Error()
		} else {
			how := "not sealed"
			if info.Sealed {
				how = "sealed by the operator's key"
			}
			ch.Detail = fmt.Sprintf("process %d, gateway %s, data in %s, %s, tables in %s", info.PID, info.Gateway, info.Data, how, info.Tables)
		}
		out = append(out, ch)
	}
	return out, nil
}

func (c *command) lookPath(tool string) (string, error) {
	path, _ := c.Env("PATH")
	for _, dir := range filepath.SplitList(path) {
		p := filepath.Join(dir, tool)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

func (c *command) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  args(noArgs),
		RunE: func(*cobra.Command, []string) error {
			if c.json {
				c.printJSON(map[string]string{"version": Version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
				return nil
			}
			fmt.Fprintf(c.Stdout, "ebb %s (%s, %s/%s)\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

// docs writes the generated reference pages.
func (c *command) docs() *cobra.Command {
	return &cobra.Command{
		Use:    "docs DIR",
		Short:  "Write the generated reference pages to DIR",
		Hidden: true,
		Args:   args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			dir := c.abs(a[0])
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("write docs: %w", err)
			}
			for name, text := range map[string]string{"settings.md": config.Reference(), "commands.md": commandReference(cmd.Root())} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					return fmt.Errorf("write docs: %w", err)
				}
			}
			return nil
		},
	}
}
