package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
)

func (c *command) invocations() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "invocations",
		Aliases: []string{"invocation"},
		Short:   "See asynchronous invocations, and redrive or cancel them",
		Long: "An asynchronous invocation (`ebb invoke --async`) is on disk before it is accepted. It is tried until it succeeds, or rests as a dead\n" +
			"letter, which can be redriven. What ended is kept for 14 days.",
	}
	return group(cmd, c.invocationsList(), c.invocationsShow(), c.invocationsChange("redrive", "Give dead invocations all their attempts again",
		"  ebb invocations redrive 7d3c…\n  ebb invocations redrive --function resize --cause exhausted\n  ebb invocations redrive --all", "redriven",
		func(ctx context.Context, cl *api.Client, ch api.InvocationChoice) (int, error) {
			return cl.Redrive(ctx, ch)
		}),
		c.invocationsChange("cancel", "End invocations that have not ended; one that runs is told",
			"  ebb invocations cancel 7d3c…\n  ebb invocations cancel --function resize", "cancelled",
			func(ctx context.Context, cl *api.Client, ch api.InvocationChoice) (int, error) {
				return cl.CancelInvocations(ctx, ch)
			}))
}

func (c *command) invocationsList() *cobra.Command {
	var q api.InvocationQuery
	cmd := &cobra.Command{
		Use:     "ls [FUNCTION]",
		Short:   "List asynchronous invocations, the newest first",
		Example: "  ebb invocations ls\n  ebb invocations ls resize --state dead",
		Args:    args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().StringVar(&q.State, "state", "", "only those that are pending, running, retrying, succeeded, dead or cancelled")
	cmd.Flags().StringVar(&q.Cause, "cause", "", "only those that ended by this cause: exhausted, expired, refused, loop, lost, cancelled")
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", 50, "how many, at most 1000")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if q.Limit < 1 || q.Limit > 1000 {
			return usageError{fmt.Errorf("--limit %d: want 1 to 1000", q.Limit)}
		}
		if len(a) > 0 {
			q.Function = a[0]
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		list, err := client.Invocations(cmd.Context(), q)
		if err != nil {
			return err
		}
		if c.json {
			if list == nil {
				list = []api.InvocationStatus{}
			}
			c.printJSON(map[string]any{"invocations": list})
			return nil
		}
		if len(list) == 0 {
			c.say("no asynchronous invocations")
			return nil
		}
		w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tFUNCTION\tSTATE\tTRIES\tACCEPTED\t")
		for _, st := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", st.ID, st.Function, stateText(st), st.Tries, st.Accepted.Local().Format(time.DateTime), lastError(st))
		}
		return w.Flush()
	}
	return cmd
}

func stateText(st api.InvocationStatus) string {
	if st.Cause == "" || st.Cause == st.State {
		return st.State
	}
	return st.State + " (" + st.Cause + ")"
}

// lastError is the first line of the last attempt's error, cut to what a list has room for.
func lastError(st api.InvocationStatus) string {
	if len(st.Attempts) == 0 {
		return ""
	}
	text := firstLine(st.Attempts[len(st.Attempts)-1].Error)
	if r := []rune(text); len(r) > 60 {
		return string(r[:59]) + "…"
	}
	return text
}

func (c *command) invocationsShow() *cobra.Command {
	var wait, showLog bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Tell all that is known of an asynchronous invocation",
		Long:  "With --wait it returns once the invocation has ended: with exit code 0 where it succeeded, and 1 otherwise.",
		Args:  args(cobra.ExactArgs(1)),
	}
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait until it has ended")
	cmd.Flags().BoolVar(&showLog, "log", false, "print the log of all its attempts on standard error")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		st, err := client.Invocation(cmd.Context(), a[0])
		for every := 20 * time.Millisecond; err == nil && wait && !over(st); every = min(2*every, time.Second) {
			select {
			case <-time.After(every):
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			}
			st, err = client.Invocation(cmd.Context(), a[0])
		}
		if err != nil {
			return err
		}
		if showLog {
			err := client.Logs(cmd.Context(), api.LogQuery{Invocation: st.ID}, nil, func(r api.LogRecord) error {
				fmt.Fprintln(c.Stderr, r.Text)
				return nil
			})
			if err != nil {
				return err
			}
		}
		if c.json {
			c.printJSON(st)
		} else {
			c.printInvocation(st)
		}
		if wait && st.State != "succeeded" {
			return silentError{errors.New("the invocation did not succeed")}
		}
		return nil
	}
	return cmd
}

// over says whether nothing more happens to it by itself.
func over(st *api.InvocationStatus) bool {
	return st.State == "succeeded" || st.State == "dead" || st.State == "cancelled"
}

func (c *command) printInvocation(st *api.InvocationStatus) {
	w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
	row := func(name, text string) { fmt.Fprintf(w, "%s\t%s\n", name, text) }
	row("id", st.ID)
	row("function", st.Function)
	row("state", stateText(*st))
	row("accepted", st.Accepted.Local().Format(time.DateTime))
	if !st.Due.IsZero() && st.Tries > 0 {
		row("next attempt", st.Due.Local().Format(time.DateTime))
	}
	if st.Redriven > 0 {
		row("redriven", count(st.Redriven, "time"))
	}
	_ = w.Flush()
	if len(st.Attempts) > 0 {
		fmt.Fprintln(c.Stdout, "attempts")
		w = tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
		for _, a := range st.Attempts {
			text := "succeeded"
			switch {
			case a.Error != "" && a.Counts:
				text = firstLine(a.Error)
			case a.Error != "":
				text = firstLine(a.Error) + " (does not count)"
			}
			fmt.Fprintf(w, "  %s\t%.1f ms\t%s\n", a.Start.Local().Format(time.DateTime), a.DurationMS, text)
		}
		_ = w.Flush()
	}
	if len(st.Result) > 0 {
		fmt.Fprintf(c.Stdout, "result\n  %s\n", st.Result)
	}
}

func (c *command) invocationsChange(verb, short, example, done string, do func(context.Context, *api.Client, api.InvocationChoice) (int, error)) *cobra.Command {
	var ch api.InvocationChoice
	cmd := &cobra.Command{Use: verb + " [ID...]", Short: short, Example: example, Args: args(cobra.ArbitraryArgs)}
	cmd.Flags().StringVar(&ch.Function, "function", "", "all of this function")
	cmd.Flags().StringVar(&ch.Cause, "cause", "", "all that ended by this cause: exhausted, expired, refused, loop")
	cmd.Flags().BoolVar(&ch.All, "all", false, "all of every function")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		ch.IDs = a
		if len(a) == 0 && ch.Function == "" && ch.Cause == "" && !ch.All {
			return usageError{fmt.Errorf("nothing is chosen: give IDs, --function, --cause or --all")}
		}
		if len(a) > 0 && (ch.Function != "" || ch.All) {
			return usageError{fmt.Errorf("give IDs, or --function or --all, not both")}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		n, err := do(cmd.Context(), client, ch)
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(map[string]int{"changed": n})
			return nil
		}
		c.say("%s %s", count(n, "invocation"), done)
		return nil
	}
	return cmd
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}
