package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
)

func (c *command) logs() *cobra.Command {
	var q api.LogQuery
	var since string
	cmd := &cobra.Command{
		Use:     "logs [FUNCTION]",
		Short:   "Print the output of functions",
		Long:    "Plain text in order, every kind of invocation with its START, END and REPORT lines; with --json one object per line.",
		Example: "  ebb logs hello -f\n  ebb logs --since 10m\n  ebb logs --invocation 4f0c… ",
		Args:    args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().StringVar(&since, "since", "", "a time (RFC 3339) or how long ago (10m, 2h)")
	cmd.Flags().IntVarP(&q.Tail, "tail", "n", 0, "the newest `n` lines only")
	cmd.Flags().StringVar(&q.Invocation, "invocation", "", "one invocation by its ID")
	cmd.Flags().StringVar(&q.App, "app", "", "one app")
	cmd.Flags().StringVarP(&q.Stage, "stage", "s", "", "one stage")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if len(a) > 0 {
			q.Function = a[0]
		}
		if since != "" {
			at, err := sinceTime(since)
			if err != nil {
				return usageError{fmt.Errorf("--since %w", err)}
			}
			q.Since = at
		}
		if q.Tail < 0 {
			return usageError{fmt.Errorf("--tail %d: want a number from 0", q.Tail)}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		return client.Logs(cmd.Context(), q, nil, func(r api.LogRecord) error {
			if c.json {
				c.printJSON(r)
				return nil
			}
			_, err := fmt.Fprintln(c.Stdout, r.Text)
			return err
		})
	}
	return cmd
}

// sinceTime reads how long ago, or when.
func sinceTime(text string) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-ago), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	return time.Time{}, fmt.Errorf("%q is neither a duration (10m) nor a time (2006-01-02T15:04:05Z)", text)
}
