package cli

import (
	"encoding/base64"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
)

func (c *command) topics() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "See topics and what takes their messages, and publish to them",
		Long:  "Topics are those that projects declare. What is published to one goes to all its subscriptions: functions, queues, and HTTP endpoints.",
	}
	return group(cmd, c.topicsList(), c.topicsPublish(), c.topicsSubscriptions())
}

func (c *command) topicsList() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List topics", Args: args(noArgs)}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		list, err := client.Topics(cmd.Context())
		if err != nil {
			return err
		}
		if c.json {
			if list == nil {
				list = []api.TopicInfo{}
			}
			c.printJSON(map[string]any{"topics": list})
			return nil
		}
		if len(list) == 0 {
			c.say("no topics")
			return nil
		}
		w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "TOPIC\tSUBSCRIPTIONS")
		for _, t := range list {
			fmt.Fprintf(w, "%s\t%d\n", t.Name, t.Subscriptions)
		}
		return w.Flush()
	}
	return cmd
}

func (c *command) topicsPublish() *cobra.Command {
	var m api.TopicMessage
	var data, file string
	var attributes []string
	cmd := &cobra.Command{
		Use:   "publish TOPIC [MESSAGE]",
		Short: "Publish a message",
		Long:  "It returns, with the message's ID, once the message is durable.",
		Example: "  ebb topics publish news 'it rains' --subject weather --attribute place=Bern --attribute grade:Number=3\n" +
			"  ebb topics publish orders.fifo --group ann --dedup 7 --data-file order.json",
		Args: args(cobra.RangeArgs(1, 2)),
	}
	cmd.Flags().StringVarP(&data, "data", "d", "", "its text")
	cmd.Flags().StringVarP(&file, "data-file", "f", "", "file with its text; - is standard input")
	cmd.Flags().StringVar(&m.Subject, "subject", "", "its subject")
	cmd.Flags().StringArrayVarP(&attributes, "attribute", "a", nil, "message attribute, name=value or name:Type=value: String, String.Array, Number, Binary (in base64); may be repeated")
	cmd.Flags().BoolVar(&m.Structured, "structured", false, "the text is a JSON object with a text for each protocol, and one named default")
	cmd.Flags().StringVar(&m.Group, "group", "", "its group, in a FIFO topic")
	cmd.Flags().StringVar(&m.Dedup, "dedup", "", "its deduplication ID, in a FIFO topic")
	c.reachFlags(cmd, "server-data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		body, given, err := c.content(cmd, a, data, file)
		if err != nil {
			return err
		}
		if !given {
			return usageError{fmt.Errorf("a message has a text: give MESSAGE, --data or --data-file")}
		}
		m.Message = string(body)
		if m.Attributes, err = messageAttributes(attributes); err != nil {
			return err
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		got, err := client.PublishTopic(cmd.Context(), a[0], m)
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
	return cmd
}

// messageAttributes reads name=value and name:Type=value.
func messageAttributes(given []string) (map[string]api.MessageAttribute, error) {
	var out map[string]api.MessageAttribute
	for _, one := range given {
		head, value, ok := strings.Cut(one, "=")
		name, kind, _ := strings.Cut(head, ":")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("--attribute %q: want name=value or name:Type=value", one)}
		}
		at := api.MessageAttribute{Type: kind, Value: value}
		if strings.HasPrefix(kind, "Binary") {
			var err error
			if at.Binary, err = base64.StdEncoding.DecodeString(value); err != nil {
				return nil, usageError{fmt.Errorf("--attribute %q: the value of a Binary is base64", one)}
			}
			at.Value = ""
		}
		if out == nil {
			out = map[string]api.MessageAttribute{}
		}
		out[name] = at
	}
	return out, nil
}

func (c *command) topicsSubscriptions() *cobra.Command {
	cmd := &cobra.Command{Use: "subscriptions TOPIC", Short: "Show what takes a topic's messages, and how its deliveries stand", Args: args(cobra.ExactArgs(1))}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		list, err := client.TopicSubscriptions(cmd.Context(), a[0])
		if err != nil {
			return err
		}
		if c.json {
			if list == nil {
				list = []api.TopicSubscription{}
			}
			c.printJSON(map[string]any{"subscriptions": list})
			return nil
		}
		if len(list) == 0 {
			c.say("nothing takes the messages of %s", a[0])
			return nil
		}
		w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "PROTOCOL\tENDPOINT\tPENDING\tDONE\tDEAD\tDEAD LETTERS\tFILTER\tLAST FAULT")
		for _, s := range list {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", s.Protocol, s.Endpoint, s.Pending, s.Done, s.Dead, s.DeadLetters, legible(s.Filter), s.Fault)
		}
		return w.Flush()
	}
	return cmd
}
