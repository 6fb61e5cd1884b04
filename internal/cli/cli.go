// Package cli is the command line, one file per command.
//
// Main function: [Main].
//
// Guarantees (scripts rely on them):
//
//  1. Standard output holds results only; everything else goes to standard error.
//  2. A failure prints `ebb: error: …` and, where there is a mend, `ebb: hint: …`.
//  3. Exit codes: 0 done; 1 failed (the function, the build, the server); 2 wrong usage.
//  4. With --json results are JSON, one document or one line per event; colours only on terminals.
//  5. What `ebb up` and `ebb serve` print holds up neither a request nor the stop when nobody reads it: lines about requests,
//     functions' output and the server's log are dropped and counted then, all others are kept.
//
// It holds no logic that the server or a script could need.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/server"
)

// Version of this ebb.
const Version = "0.1.0-dev"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// System is what the command line uses of the outside.
type System struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Env            func(string) (string, bool)
	Dir            string         // working directory
	Color          bool           // standard error takes colours
	Terminal       bool           // standard error is one
	Exit           func(code int) // ends the process at once, on a second signal
}

// OS returns the process's own System.
func OS() System {
	dir, err := os.Getwd()
	if err != nil {
		dir = "."
	}
	_, noColor := os.LookupEnv("NO_COLOR")
	terminal := term.IsTerminal(int(os.Stderr.Fd()))
	return System{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.LookupEnv, Dir: dir, Exit: os.Exit,
		Color: !noColor && terminal, Terminal: terminal,
	}
}

// command carries what every command needs.
type command struct {
	System
	json        bool
	rootCommand *cobra.Command
	finish      func()        // ends the printing; nil where detach was not called
	outputs     []fs.FileInfo // files that the output goes to: no part of a project
	reach       reach
}

func newCommand(sys System) *command {
	written := outputFiles(sys.Stdout, sys.Stderr)
	sys.Stdout, sys.Stderr = &lineWriter{w: sys.Stdout}, &lineWriter{w: sys.Stderr}
	return &command{System: sys, outputs: written}
}

// Main runs one command line and returns its exit code.
func Main(sys System, args []string) int {
	ctx, stop := onSignal(context.Background(), sys.Exit)
	defer stop()
	c := newCommand(sys)
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	defer func() {
		if c.finish != nil {
			c.finish()
		}
	}()
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errs.CodeOf(err) == errs.Canceled {
		err = errs.New(errs.Canceled, "interrupted")
	}
	return c.report(err)
}

// lineWriter keeps what several goroutines print apart: each Write is whole.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// onSignal returns a context that ends with the first SIGINT or SIGTERM, for a clean stop. A later one ends the process at once;
// but not within a second, because a wrapper and the terminal may both pass on the same key press.
func onSignal(parent context.Context, exit func(int)) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		var first time.Time
		for s := range signals {
			if first.IsZero() {
				first = time.Now()
				cancel()
			} else if time.Since(first) > time.Second {
				code := 128
				if n, ok := s.(syscall.Signal); ok {
					code += int(n)
				}
				exit(code)
			}
		}
	}()
	return ctx, func() { signal.Stop(signals); close(signals); cancel() }
}

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// silentError ends with exit code 1 and nothing more to say.
type silentError struct{ error }

// diagError carries diagnostics of the user's files that were already shown.
type diagError struct{ list diag.List }

func (e diagError) Error() string {
	n := 0
	for _, d := range e.list {
		if d.Severity == diag.Error {
			n++
		}
	}
	if n == 1 {
		return "the project has an error"
	}
	return fmt.Sprintf("the project has %d errors", n)
}

func (c *command) report(err error) int {
	var usage usageError
	var silent silentError
	switch {
	case errors.As(err, &silent):
		return exitFailed
	case errors.As(err, &usage):
		c.failure(err)
		return exitUsage
	}
	c.failure(err)
	return exitFailed
}

// failure prints an error the way scripts expect it.
func (c *command) failure(err error) {
	var diags diagError
	if c.json {
		out := map[string]any{"event": "error", "message": err.Error()}
		if code := errs.CodeOf(err); code != errs.Internal {
			out["code"] = code
		}
		if h := errs.HintOf(err); h != "" {
			out["hint"] = h
		}
		if errors.As(err, &diags) {
			out["diagnostics"] = diags.list.Sorted()
		}
		c.printJSON(out)
	}
	fmt.Fprintf(c.Stderr, "%s %s\n", c.paint(red, "ebb: error:"), err)
	if h := errs.HintOf(err); h != "" {
		fmt.Fprintf(c.Stderr, "%s %s\n", c.paint(cyan, "ebb: hint:"), h)
	}
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ebb",
		Short: "A serverless cloud in one binary",
		Long: "ebb runs functions written for AWS Lambda, unchanged, on your own machine.\n\n" +
			"  ebb up           run the project in this folder\n  ebb inspect      show what it declares\n  ebb doctor       show what this machine can do",
		Version:       Version,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(args[0], c.rootCommand)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.rootCommand = root
	root.SetIn(c.Stdin)
	root.SetOut(c.Stdout)
	root.SetErr(c.Stderr)
	root.SetVersionTemplate("ebb {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = false
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print results as JSON")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return unknownFlag(cmd, err)
	})
	root.SetHelpCommand(c.help())
	root.AddCommand(c.up(), c.serve(), c.deploy(), c.invoke(), c.invocations(), c.events(), c.subscriptions(), c.schedules(), c.queues(), c.topics(), c.streams(), c.trace(), c.graph(), c.logs(), c.audit(), c.ls(), c.rollback(), c.rm(), c.data(), c.keys(),
		c.login(), c.logout(), c.inspect(), c.initCommand(), c.doctor(), c.version(), c.docs())
	root.InitDefaultCompletionCmd("completion")
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" { // a shell that it does not know would print help and succeed
			cmd.Args = args(noArgs)
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	return root
}

// group makes a command of those below it; by itself it shows its help.
func group(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.Args = func(_ *cobra.Command, a []string) error {
		if len(a) > 0 {
			return unknownCommand(a[0], cmd)
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(below...)
	return cmd
}

// unknownCommand names the nearest command.
func unknownCommand(name string, root *cobra.Command) error {
	var names []string
	for _, cmd := range root.Commands() {
		if !cmd.Hidden {
			names = append(names, cmd.Name())
		}
	}
	e := errs.New(errs.Invalid, "unknown command %q", name).WithHint("`%s --help` lists the commands.", root.CommandPath())
	if near := diag.Nearest(name, names); near != "" {
		e = e.WithHint("Did you mean `%s %s`?", root.CommandPath(), near)
	}
	return usageError{e}
}

// unknownFlag names the nearest flag.
func unknownFlag(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) && invalid.GetFlag().Name == "key" {
		return usageError{errors.Unwrap(invalid)} // without the value
	}
	e := errs.New(errs.Invalid, "%w", err).WithHint("`%s --help` lists the flags.", cmd.CommandPath())
	var missing *pflag.NotExistError
	if errors.As(err, &missing) && missing.GetSpecifiedShortnames() == "" {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := diag.Nearest(missing.GetSpecifiedName(), names); near != "" {
			e = e.WithHint("Did you mean --%s?", near)
		}
	}
	return usageError{e}
}

// help explains a command; one that does not exist is wrong usage.
func (c *command) help() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Explain a command",
		RunE: func(cmd *cobra.Command, a []string) error {
			found, rest, err := c.rootCommand.Find(a)
			if err != nil || found == c.rootCommand && len(rest) > 0 {
				return unknownCommand(strings.Join(a, " "), c.rootCommand)
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

func noArgs(_ *cobra.Command, a []string) error {
	if len(a) > 0 {
		return fmt.Errorf("unexpected argument %q", a[0])
	}
	return nil
}

// args turns a cobra argument check into a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
		}
		return nil
	}
}

func (c *command) printJSON(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		data = []byte(fmt.Sprintf(`{"event":"error","message":%q}`, err))
	}
	fmt.Fprintf(c.Stdout, "%s\n", data)
}

type color string

const (
	red    color = "31"
	green  color = "32"
	yellow color = "33"
	cyan   color = "36"
	dim    color = "2"
	bold   color = "1"
)

func (c *command) paint(col color, s string) string {
	if !c.Color {
		return s
	}
	return "\x1b[" + string(col) + "m" + s + "\x1b[0m"
}

// say prints a line for people.
func (c *command) say(format string, a ...any) { fmt.Fprintf(c.Stderr, format+"\n", a...) }

// abs makes a path given on the command line absolute.
func (c *command) abs(path string) string {
	if path == "" {
		return c.Dir
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(c.Dir, path)
}

func (c *command) dataDirs() []string {
	if c.reach.data != "" {
		dir := c.abs(c.reach.data)
		return []string{dir, filepath.Join(dir, ".ebb")}
	}
	if v, ok := c.Env("EBB_DATA"); ok && v != "" {
		return []string{c.abs(v)}
	}
	var dirs []string
	for d := c.Dir; ; d = filepath.Dir(d) {
		dirs = append(dirs, filepath.Join(d, ".ebb"))
		if d == filepath.Dir(d) {
			break
		}
	}
	// Most folders above hold none; only those that exist are worth naming.
	var exist []string
	for i, d := range dirs {
		if _, err := os.Stat(d); err == nil || i == 0 {
			exist = append(exist, d)
		}
		if elsewhere, err := os.ReadFile(filepath.Join(d, server.ElsewhereFile)); err == nil {
			exist = append(exist, strings.TrimSuffix(string(elsewhere), "\n"))
		}
	}
	return append(exist, c.defaultData())
}

// defaultData is the data directory of `ebb serve`: $XDG_DATA_HOME/ebb.
func (c *command) defaultData() string {
	if v, ok := c.Env("XDG_DATA_HOME"); ok && filepath.IsAbs(v) {
		return filepath.Join(v, "ebb")
	}
	home, _ := c.Env("HOME")
	if home == "" {
		home = c.Dir
	}
	return filepath.Join(home, ".local", "share", "ebb")
}

// cacheDir is where supplied SDKs and builds that projects share are kept: $XDG_CACHE_HOME/ebb.
func (c *command) cacheDir() string {
	if v, ok := c.Env("XDG_CACHE_HOME"); ok && filepath.IsAbs(v) {
		return filepath.Join(v, "ebb")
	}
	home, _ := c.Env("HOME")
	if home == "" {
		home = c.Dir
	}
	return filepath.Join(home, ".cache", "ebb")
}
