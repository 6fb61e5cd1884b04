package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
)

func (c *command) invoke() *cobra.Command {
	var payload, file, clientContext string
	var showLog, async bool
	cmd := &cobra.Command{
		Use:   "invoke FUNCTION [-]",
		Short: "Run a function directly and print its answer",
		Long: "Sends the payload byte for byte and prints the answer's payload alone on standard output.\n" +
			"A function error ends with exit code 1 and its message on standard error; the error document is still printed.\n" +
			"FUNCTION is the key in the project file, the full name, or an ARN. A lone - reads the payload from standard input.\n\n" +
			"With --async it returns as soon as the invocation is on disk, and prints its ID: `ebb invocations show ID` tells how it goes.",
		Example: "  ebb invoke hello --data '{\"name\":\"ann\"}'\n  ebb invoke hello --data-file event.json --log\n  cat event.json | ebb invoke hello -\n  ebb invoke hello --async",
		Args:    args(cobra.RangeArgs(1, 2)),
	}
	cmd.Flags().StringVarP(&payload, "data", "d", "", "payload, JSON (default: {})")
	cmd.Flags().StringVarP(&file, "data-file", "f", "", "file with the payload; - is standard input")
	cmd.Flags().BoolVar(&showLog, "log", false, "print the invocation's log on standard error")
	cmd.Flags().StringVar(&clientContext, "client-context", "", "client context, JSON")
	cmd.Flags().BoolVar(&async, "async", false, "do not wait for the answer: print the invocation's ID once it is durable")
	c.reachFlags(cmd, "server-data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if async && showLog {
			return usageError{fmt.Errorf("--log shows what has ended, and --async does not wait: use `ebb invocations show ID --wait --log`")}
		}
		if len(a) == 2 {
			if a[1] != "-" || file != "" {
				return usageError{fmt.Errorf("unexpected %q: the payload is given once, with --data, --data-file or -", a[1])}
			}
			file = "-"
		}
		body, err := c.payload(cmd, payload, file)
		if err != nil {
			return err
		}
		if clientContext != "" {
			if !json.Valid([]byte(clientContext)) {
				return usageError{fmt.Errorf("--client-context is not JSON")}
			}
			clientContext = base64.StdEncoding.EncodeToString([]byte(clientContext))
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		if async {
			return c.invokeAsync(cmd.Context(), client, a[0], body, clientContext)
		}
		answer, err := client.Invoke(cmd.Context(), a[0], body, clientContext)
		if err != nil {
			return err
		}
		if showLog {
			err := client.Logs(cmd.Context(), api.LogQuery{Invocation: answer.ID}, nil, func(r api.LogRecord) error {
				fmt.Fprintln(c.Stderr, r.Text)
				return nil
			})
			if err != nil {
				return err
			}
		}
		if _, err := c.Stdout.Write(answer.Payload); err != nil {
			return fmt.Errorf("print answer: %w", err)
		}
		if answer.Cause != "" {
			c.say("%s %s", c.paint(red, "ebb: error:"), answer.Message)
			return silentError{fmt.Errorf("the function failed")}
		}
		return nil
	}
	return cmd
}

func (c *command) invokeAsync(ctx context.Context, client *api.Client, function string, body []byte, clientContext string) error {
	got, err := client.InvokeAsync(ctx, function, body, clientContext)
	if err != nil {
		return err
	}
	if c.json {
		c.printJSON(got)
		return nil
	}
	fmt.Fprintln(c.Stdout, got.ID)
	return nil
}

// content gives the data of a command: its second argument, or what --data or --data-file say; false where none are given.
func (c *command) content(cmd *cobra.Command, a []string, data, file string) ([]byte, bool, error) {
	if len(a) < 2 {
		if data == "" && file == "" {
			return nil, false, nil
		}
		body, err := c.payload(cmd, data, file)
		return body, true, err
	}
	if cmd.Flags().Changed("data") || file != "" {
		return nil, false, usageError{fmt.Errorf("the data are given once: as an argument, with --data or with --data-file")}
	}
	if a[1] == "-" {
		body, err := c.payload(cmd, "-", "")
		return body, true, err
	}
	return []byte(a[1]), a[1] != "", nil
}

// payload returns the bytes to send, unchanged.
func (c *command) payload(cmd *cobra.Command, inline, file string) ([]byte, error) {
	switch {
	case cmd.Flags().Changed("data") && file != "":
		return nil, usageError{fmt.Errorf("the payload is given once, with --data, --data-file or -")}
	case inline == "-":
		file = "-"
	case cmd.Flags().Changed("data"):
		return []byte(inline), nil
	case file == "":
		return []byte("{}"), nil
	}
	in := c.Stdin
	if file != "-" {
		f, err := os.Open(c.abs(file))
		if err != nil {
			return nil, errs.New(errs.NotFound, "read payload: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	body, err := io.ReadAll(io.LimitReader(in, api.MaxPayload+1))
	if err != nil {
		return nil, fmt.Errorf("read payload: %w", err)
	}
	if len(body) > api.MaxPayload {
		return nil, errs.New(errs.TooLarge, "the payload is over the limit of %d bytes", api.MaxPayload)
	}
	return body, nil
}
