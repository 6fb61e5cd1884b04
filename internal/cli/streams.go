package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
)

func (c *command) streams() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "streams",
		Short: "See ordered streams, put records into them, and read them",
		Long:  "Streams are those that projects declare; a function's `stream` trigger takes their records in batches, those of a partition key in their order.",
	}
	return group(cmd, c.streamsList(), c.streamsPut(), c.streamsTail())
}

func (c *command) streamsList() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List streams and how many records are in them", Args: args(noArgs)}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		list, err := client.Streams(cmd.Context())
		if err != nil {
			return err
		}
		if c.json {
			if list == nil {
				list = []api.StreamInfo{}
			}
			c.printJSON(map[string]any{"streams": list})
			return nil
		}
		if len(list) == 0 {
			c.say("no streams")
			return nil
		}
		w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "STREAM\tSHARDS\tCLOSED\tRECORDS\tKEPT FOR")
		for _, s := range list {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d h\n", s.Name, s.Shards, s.Closed, s.Records, s.RetentionHours)
		}
		return w.Flush()
	}
	return cmd
}

func (c *command) streamsPut() *cobra.Command {
	var r api.StreamRecord
	var data, file string
	cmd := &cobra.Command{
		Use:     "put STREAM [DATA]",
		Short:   "Put a record, and show its shard and sequence number",
		Example: "  ebb streams put clicks --partition-key ann '{\"page\":1}'",
		Args:    args(cobra.RangeArgs(1, 2)),
	}
	cmd.Flags().StringVarP(&r.Key, "partition-key", "k", "", "its partition key: records of one key stay in their order")
	cmd.Flags().StringVar(&r.HashKey, "hash-key", "", "chooses the shard in place of the key's MD5; decimal")
	cmd.Flags().StringVarP(&data, "data", "d", "", "its data")
	cmd.Flags().StringVarP(&file, "data-file", "f", "", "file with its data; - is standard input")
	c.reachFlags(cmd, "server-data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if r.Key == "" {
			return usageError{fmt.Errorf("a record has a partition key: give --partition-key")}
		}
		body, _, err := c.content(cmd, a, data, file)
		if err != nil {
			return err
		}
		r.Data = body
		client, err := c.client()
		if err != nil {
			return err
		}
		got, err := client.PutRecords(cmd.Context(), a[0], []api.StreamRecord{r})
		if err != nil {
			return err
		}
		if len(got) != 1 {
			return errs.New(errs.Internal, "the answer has %d records", len(got))
		}
		switch {
		case got[0].Error != "":
			return errs.New(got[0].Code, "%s", got[0].Error)
		case c.json:
			c.printJSON(got[0])
		default:
			fmt.Fprintln(c.Stdout, got[0].Shard, got[0].Sequence)
		}
		return nil
	}
	return cmd
}

func (c *command) streamsTail() *cobra.Command {
	var q api.RecordQuery
	var since string
	var once bool
	cmd := &cobra.Command{
		Use:     "tail STREAM",
		Short:   "Show records as they are put, until stopped",
		Long:    "Records of one shard come in their order. With --since it begins with older ones; with --once it ends with what is there.",
		Example: "  ebb streams tail clicks\n  ebb streams tail clicks --since 1h --once --json",
		Args:    args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&since, "since", "", "begin with records not older than this: 10m, 2h, or a time (default: now; with --once: the oldest)")
	cmd.Flags().StringVar(&q.Shard, "shard", "", "only those of one shard")
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", 0, "end after as many (default: no limit)")
	cmd.Flags().BoolVar(&once, "once", false, "end with what is there")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		q.Stream, q.Follow = a[0], !once
		if since != "" {
			at, err := sinceTime(since)
			if err != nil {
				return usageError{fmt.Errorf("--since %w", err)}
			}
			q.From = at
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		ready := func() {
			if !c.json && q.Follow {
				c.say("waiting for records; Ctrl-C stops")
			}
		}
		return client.Records(cmd.Context(), q, ready, func(r api.StreamRecord) error {
			if c.json {
				c.printJSON(r)
				return nil
			}
			fmt.Fprintf(c.Stdout, "%s  %s  %s  %s  %s\n", r.Arrived.Local().Format("2006-01-02 15:04:05.000"), strings.TrimPrefix(r.Shard, "shardId-"), r.Sequence, r.Key, shownText(r.Data))
			return nil
		})
	}
	return cmd
}
