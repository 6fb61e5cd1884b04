package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
)

func (c *command) subscriptions() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "subscriptions",
		Aliases: []string{"subscription"},
		Short:   "Send events on to functions, queues, topics and endpoints; redrive dead letters",
		Long: "A subscription takes the events of an event bus that it asks for, and brings each to its target at least once, until that takes it or it\n" +
			"rests as a dead letter. Projects declare subscriptions; what is put here stands beside them, and stays when projects are deployed or removed.",
	}
	return group(cmd, c.subscriptionsPut(), c.subscriptionsList(), c.subscriptionsShow(), c.subscriptionsRemove(), c.subscriptionsRedrive())
}

// subscriptionFlags are those of put, as they are written.
type subscriptionFlags struct {
	spec                             api.SubscriptionSpec
	retry                            api.SubscriptionRetry
	pattern, filters, file, template string
	input, inputPath                 string
	paths                            map[string]string
	minBackoff, maxBackoff, maxAge   time.Duration
}

func (c *command) subscriptionsPut() *cobra.Command {
	var v subscriptionFlags
	cmd := &cobra.Command{
		Use:   "put NAME",
		Short: "Make a subscription, or change it",
		Long: "It asks for events by an EventBridge pattern, by a CloudEvents SQL expression, or by filters of the CloudEvents Subscriptions API (exact, prefix,\n" +
			"suffix, all, any, not, sql); without any it takes all events of its bus. It returns once the subscription stands: what is published from then\n" +
			"on is matched by it. Functions, queues and topics get events in EventBridge's form, and endpoints as CloudEvents in binary mode, unless\n" +
			"--format says otherwise.\n\n" +
			"With --file it reads all of it from a JSON file (- is standard input), whose members are named as the flags: bus, pattern, filters, sql, function,\n" +
			"queue, topic, endpoint, format, input, inputPath, inputTransformer {inputPathsMap, inputTemplate}, retry {attempts, minBackoff, maxBackoff,\n" +
			"maxAge}, deadLetters, ordered, group; NAME may stand there too, as name.",
		Example: "  ebb subscriptions put big-orders --function bill --pattern '{\"detail\":{\"total\":[{\"numeric\":[\">\",100]}]}}'\n" +
			"  ebb subscriptions put paid --queue jobs --sql \"type LIKE 'order.%' AND EXISTS tenant\" --dead-letters jobs-dead\n" +
			"  ebb subscriptions put audit --endpoint https://audit.example.com/events --filters '{\"prefix\":{\"source\":\"/shop/\"}}' --max-age 2h\n" +
			"  ebb subscriptions put -f subscription.json",
		Args: args(cobra.MaximumNArgs(1)),
	}
	f := cmd.Flags()
	f.StringVarP(&v.file, "file", "f", "", "JSON file with the subscription; - is standard input")
	f.StringVar(&v.spec.Bus, "bus", "", "event bus (default: default)")
	f.StringVar(&v.pattern, "pattern", "", "EventBridge pattern, JSON")
	f.StringVar(&v.filters, "filters", "", "filter of the CloudEvents Subscriptions API, or a list that must all hold, JSON")
	f.StringVar(&v.spec.SQL, "sql", "", "CloudEvents SQL expression")
	f.StringVar(&v.spec.Function, "function", "", "target: a function, by name or key")
	f.StringVar(&v.spec.Queue, "queue", "", "target: a queue")
	f.StringVar(&v.spec.Topic, "topic", "", "target: a topic")
	f.StringVar(&v.spec.Endpoint, "endpoint", "", "target: a URL that is posted to, by the rules of --egress of `ebb serve`")
	f.StringVar(&v.spec.Format, "format", "", "form of what the target gets: eventbridge, cloudevents, binary (endpoints only) or data")
	f.StringVar(&v.input, "input", "", "JSON text that takes the event's place")
	f.StringVar(&v.inputPath, "input-path", "", "part of the event that takes its place: $.detail")
	f.StringVar(&v.template, "template", "", "template that takes the event's place, with <variables>: EventBridge's InputTemplate")
	f.StringToStringVar(&v.paths, "path", nil, "variable of the template, name=$.path; may be given several times")
	f.IntVar(&v.retry.Attempts, "attempts", 0, "how often a delivery is tried (default: as the function says, or 186)")
	f.DurationVar(&v.minBackoff, "min-backoff", 0, "wait after the first failure; it doubles")
	f.DurationVar(&v.maxBackoff, "max-backoff", 0, "the longest wait between two attempts")
	f.DurationVar(&v.maxAge, "max-age", 0, "how long a delivery is tried (default: as the function says, or 24h)")
	f.StringVar(&v.spec.DeadLetters, "dead-letters", "", "queue that gets what the target did not take")
	f.BoolVar(&v.spec.Ordered, "ordered", false, "events with the same partitionkey one after the other")
	f.StringVar(&v.spec.Group, "group", "", "message group in a FIFO queue or topic (default: the subscription's name)")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		name, doc, parts, err := c.subscriptionDoc(cmd, &v, a)
		if err != nil {
			return err
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		got, err := client.PutSubscription(cmd.Context(), name, doc, parts)
		if err != nil && v.file != "" {
			return errs.New(errs.CodeOf(err), "%s: %w", v.file, err).WithHint("%s", errs.HintOf(err))
		}
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(got)
			return nil
		}
		fmt.Fprintln(c.Stdout, got.Own)
		return nil
	}
	return cmd
}

// subscriptionDoc gives name and text of the subscription that a file or the flags describe.
func (c *command) subscriptionDoc(cmd *cobra.Command, v *subscriptionFlags, a []string) (name string, doc []byte, parts bool, err error) {
	if len(a) > 0 {
		name = a[0]
	}
	if v.file != "" {
		if n := subscriptionFlagsGiven(cmd); n != "" {
			return "", nil, false, usageError{fmt.Errorf("--%s is of the flags' form: with --file everything stands in the file", n)}
		}
		if doc, err = c.textOf(v.file); err != nil {
			return "", nil, false, err
		}
		var named struct{ Name string }
		if json.Unmarshal(doc, &named) == nil && name == "" {
			name = named.Name
		}
		if name == "" {
			if !json.Valid(doc) {
				name = "subscription" // the server says where the text is wrong
			} else {
				return "", nil, false, usageError{fmt.Errorf("the subscription has no name: give NAME, or \"name\" in the file")}
			}
		}
		return name, doc, false, nil
	}
	if name == "" {
		return "", nil, false, usageError{fmt.Errorf("give NAME, or --file")}
	}
	doc, err = v.document(cmd)
	return name, doc, true, err
}

// textOf reads a file, or standard input.
func (c *command) textOf(file string) ([]byte, error) {
	in := c.Stdin
	if file != "-" {
		f, err := os.Open(c.abs(file))
		if err != nil {
			return nil, errs.New(errs.NotFound, "read subscription: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, api.MaxSubscription+1))
	if err != nil {
		return nil, fmt.Errorf("read subscription: %w", err)
	}
	return text, nil // the server refuses what is too long
}

// subscriptionFlagsGiven is the first flag given that a file has a member for.
func subscriptionFlagsGiven(cmd *cobra.Command) string {
	for _, n := range []string{"bus", "pattern", "filters", "sql", "function", "queue", "topic", "endpoint", "format", "input", "input-path", "template", "path", "attempts", "min-backoff",
		"max-backoff", "max-age", "dead-letters", "ordered", "group"} {
		if cmd.Flags().Changed(n) {
			return n
		}
	}
	return ""
}

// document is the text of what the flags describe. Pattern and filters stand in it as they were written, so that places in them stay right.
func (v *subscriptionFlags) document(cmd *cobra.Command) ([]byte, error) {
	changed := cmd.Flags().Changed
	if changed("input") {
		v.spec.Input = &v.input
	}
	if changed("input-path") {
		v.spec.InputPath = &v.inputPath
	}
	if changed("template") || len(v.paths) > 0 {
		v.spec.InputTransformer = &api.InputTransformer{Paths: v.paths, Template: v.template}
	}
	for _, d := range []struct {
		v    time.Duration
		into *string
	}{{v.minBackoff, &v.retry.MinBackoff}, {v.maxBackoff, &v.retry.MaxBackoff}, {v.maxAge, &v.retry.MaxAge}} {
		if d.v != 0 {
			*d.into = d.v.String()
		}
	}
	if v.retry != (api.SubscriptionRetry{}) {
		v.spec.Retry = &v.retry
	}
	text, err := json.Marshal(v.spec)
	if err != nil {
		return nil, err
	}
	var doc bytes.Buffer
	doc.WriteByte('{')
	for _, raw := range []struct{ name, text string }{{"pattern", v.pattern}, {"filters", v.filters}} {
		if !changed(raw.name) {
			continue
		}
		if !json.Valid([]byte(raw.text)) {
			return nil, usageError{fmt.Errorf("--%s is not JSON", raw.name)}
		}
		fmt.Fprintf(&doc, "%q:%s,", raw.name, raw.text)
	}
	rest := bytes.TrimPrefix(text, []byte("{"))
	if len(rest) == 1 { // only the brace
		return append(bytes.TrimSuffix(doc.Bytes(), []byte(",")), '}'), nil
	}
	_, err = doc.Write(rest)
	return doc.Bytes(), err
}

func (c *command) subscriptionsList() *cobra.Command {
	var own bool
	cmd := &cobra.Command{Use: "ls", Short: "List subscriptions, declared ones too, and how their deliveries stand", Args: args(noArgs)}
	cmd.Flags().BoolVar(&own, "own", false, "only those that were put, not what projects declare")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.listSubscriptions(cmd, own) }
	return cmd
}

func (c *command) listSubscriptions(cmd *cobra.Command, own bool) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	all, err := client.Subscriptions(cmd.Context())
	if err != nil {
		return err
	}
	list := []api.SubscriptionInfo{}
	for _, s := range all {
		if s.Own != "" || !own {
			list = append(list, s)
		}
	}
	if c.json {
		c.printJSON(map[string]any{"subscriptions": list})
		return nil
	}
	if len(list) == 0 {
		c.say("nothing takes events")
		return nil
	}
	w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "SUBSCRIPTION\tBUS\tTARGET\tPENDING\tDONE\tDEAD\tFILTER")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", shownName(s), s.Bus, targetText(s), s.Pending, s.Done, s.Dead, legible(s.Filter))
	}
	return w.Flush()
}

// shownName is what people call a subscription.
func shownName(s api.SubscriptionInfo) string {
	if s.Own != "" {
		return s.Own
	}
	return s.Name
}

// targetText names a subscription's target, and says why it rests.
func targetText(s api.SubscriptionInfo) string {
	text := s.Function + s.Target
	if s.State == api.SubscriptionResting {
		text += " (resting: " + s.Reason + ")"
	}
	return text
}

func (c *command) subscriptionsShow() *cobra.Command {
	var dead int
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Tell all that is known of a subscription, its dead letters too",
		Long:  "NAME is a name of `ebb subscriptions ls`, the end of a declared one's, or the name of its function.",
		Args:  args(cobra.ExactArgs(1)),
	}
	cmd.Flags().IntVarP(&dead, "limit", "n", 20, "how many dead letters, the newest first, at most 1000")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if dead < 0 || dead > 1000 {
			return usageError{fmt.Errorf("--limit %d: want 0 to 1000", dead)}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		d, err := client.Subscription(cmd.Context(), a[0], dead)
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(d)
			return nil
		}
		return c.printSubscription(d)
	}
	return cmd
}

func (c *command) printSubscription(d *api.SubscriptionDetail) error {
	w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, text)
		}
	}
	row("subscription", shownName(d.SubscriptionInfo))
	row("bus", d.Bus)
	row("target", d.Function+d.Target)
	row("filter", legible(d.Filter))
	state := d.State
	if d.Reason != "" {
		state += ": " + d.Reason
	}
	row("state", state)
	if s := d.Spec; s != nil {
		row("format", s.Format)
		if s.Retry != nil {
			text, _ := json.Marshal(s.Retry) // plain data
			row("retry", string(text))
		}
		row("dead letters to", s.DeadLetters)
		if s.Ordered {
			row("ordered", "by partitionkey")
		}
	}
	row("deliveries", fmt.Sprintf("%d waiting, %d running, %d done, %d dead", d.Pending-d.Running, d.Running, d.Done, d.Dead))
	if err := w.Flush(); err != nil || len(d.DeadLetters) == 0 {
		return err
	}
	fmt.Fprintln(c.Stdout, "dead letters")
	w = tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
	for _, v := range d.DeadLetters {
		fmt.Fprintf(w, "  %s\t%s\t%s %s\t%s\t%s\n", v.ID, v.Updated.Local().Format(time.DateTime), v.Source, v.Event, v.Cause, firstLine(v.Error))
	}
	return w.Flush()
}

func (c *command) subscriptionsRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Delete a subscription that was put; what it has not delivered is cancelled",
		Args:  args(cobra.ExactArgs(1)),
	}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		return client.DeleteSubscription(cmd.Context(), a[0])
	}
	return cmd
}

func (c *command) subscriptionsRedrive() *cobra.Command {
	var ch api.DeliveryChoice
	cmd := &cobra.Command{
		Use:   "redrive [ID...]",
		Short: "Give dead letters of subscriptions, rules and topics all their attempts again",
		Long: "IDs are those of `ebb subscriptions show`. Asynchronous invocations have a command of their own, `ebb invocations redrive`, and messages that\n" +
			"went to a dead-letter queue another, `ebb queues redrive`.",
		Example: "  ebb subscriptions redrive 0-2a-0-1001\n  ebb subscriptions redrive --subscription paid --cause exhausted\n  ebb subscriptions redrive --all",
		Args:    args(cobra.ArbitraryArgs),
	}
	cmd.Flags().StringVar(&ch.Subscription, "subscription", "", "all of this subscription")
	cmd.Flags().StringVar(&ch.Cause, "cause", "", "all that ended by this cause: exhausted, expired, refused, loop")
	cmd.Flags().BoolVar(&ch.All, "all", false, "all of every subscription")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		ch.IDs = a
		if len(a) == 0 && ch.Subscription == "" && ch.Cause == "" && !ch.All {
			return usageError{fmt.Errorf("nothing is chosen: give IDs, --subscription, --cause or --all")}
		}
		if len(a) > 0 && (ch.Subscription != "" || ch.All) {
			return usageError{fmt.Errorf("give IDs, or --subscription or --all, not both")}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		n, err := client.RedriveDeliveries(cmd.Context(), ch)
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(map[string]int{"changed": n})
			return nil
		}
		c.say("%s redriven", count(n, "dead letter"))
		return nil
	}
	return cmd
}
