package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
)

func (c *command) queues() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queues",
		Short: "See queues, send to them, and redrive dead letters",
		Long:  "Queues are those that projects declare; a function's `sqs` trigger takes their messages in batches.",
	}
	return group(cmd, c.queuesList(), c.queuesSend(), c.queuesPurge(), c.queuesRedrive())
}

func (c *command) queuesList() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List queues and how many messages are in them", Args: args(noArgs)}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		list, err := client.Queues(cmd.Context())
		if err != nil {
			return err
		}
		if c.json {
			if list == nil {
				list = []api.QueueInfo{}
			}
			c.printJSON(map[string]any{"queues": list})
			return nil
		}
		if len(list) == 0 {
			c.say("no queues")
			return nil
		}
		w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "QUEUE\tVISIBLE\tIN FLIGHT\tDELAYED\tOLDEST\tDEAD LETTERS")
		for _, q := range list {
			oldest, dead := "", ""
			if !q.Oldest.IsZero() {
				oldest = q.Oldest.Local().Format(time.DateTime)
			}
			if q.MaxReceives > 0 {
				dead = fmt.Sprintf("%s after %d", q.DeadLetters, q.MaxReceives)
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\n", q.Name, q.Visible, q.InFlight, q.Delayed, oldest, dead)
		}
		return w.Flush()
	}
	return cmd
}

func (c *command) queuesSend() *cobra.Command {
	var m api.QueueMessage
	var data, file string
	cmd := &cobra.Command{
		Use:     "send QUEUE [MESSAGE]",
		Short:   "Send a message",
		Example: "  ebb queues send jobs '{\"n\":1}'\n  ebb queues send orders.fifo --group ann --dedup 7 --data-file order.json",
		Args:    args(cobra.RangeArgs(1, 2)),
	}
	cmd.Flags().StringVarP(&data, "data", "d", "", "its body")
	cmd.Flags().StringVarP(&file, "data-file", "f", "", "file with its body; - is standard input")
	cmd.Flags().StringVar(&m.Group, "group", "", "its group, in a FIFO queue")
	cmd.Flags().StringVar(&m.Dedup, "dedup", "", "its deduplication ID, in a FIFO queue")
	c.reachFlags(cmd, "server-data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		body, given, err := c.content(cmd, a, data, file)
		if err != nil {
			return err
		}
		if !given {
			return usageError{fmt.Errorf("a message has a body: give MESSAGE, --data or --data-file")}
		}
		m.Body = string(body)
		client, err := c.client()
		if err != nil {
			return err
		}
		got, err := client.SendMessage(cmd.Context(), a[0], m)
		if err != nil {
			return err
		}
		switch {
		case c.json:
			c.printJSON(got)
		case got.Duplicate:
			c.say("dropped: a message with this deduplication ID was sent before, %s", got.ID)
		default:
			fmt.Fprintln(c.Stdout, got.ID)
		}
		return nil
	}
	return cmd
}

func (c *command) queuesPurge() *cobra.Command {
	cmd := &cobra.Command{Use: "purge QUEUE", Short: "Remove all messages of a queue", Args: args(cobra.ExactArgs(1))}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		return client.PurgeQueue(cmd.Context(), a[0])
	}
	return cmd
}

func (c *command) queuesRedrive() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "redrive QUEUE",
		Short: "Move the messages of a dead-letter queue back to where they came from",
		Args:  args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&to, "to", "", "move all to this queue instead")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		n, err := client.RedriveQueue(cmd.Context(), a[0], to)
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(map[string]int{"moved": n})
			return nil
		}
		c.say("%s moved", count(n, "message"))
		return nil
	}
	return cmd
}
