package cli

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

func (c *command) events() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Publish events, see them pass, and replay them",
		Long: "Events are CloudEvents 1.0. One is on disk before it is accepted; each subscription that matches it gets it at least once, until it\n" +
			"succeeds or rests as a dead letter. Events are kept for 14 days and can be replayed.",
	}
	return group(cmd, c.eventsPublish(), c.eventsList(), c.eventsTail(), c.eventsReplay(), c.eventsSubscriptions())
}

func (c *command) eventsPublish() *cobra.Command {
	var e event.Event
	var bus, data, file, contentType string
	var extensions []string
	cmd := &cobra.Command{
		Use:   "publish [FILE|-]",
		Short: "Publish an event, or all events of a file",
		Long: "With --source and --type it makes one event, with a random id unless --id is given. With a FILE (- is standard input) it publishes that one\n" +
			"CloudEvent in JSON, an array of them, or one on each line. It returns once all are durable.",
		Example: "  ebb events publish --source /shop/orders --type order.paid --data '{\"order\":7}'\n  ebb events publish events.json\n  producer | ebb events publish -",
		Args:    args(cobra.MaximumNArgs(1)),
	}
	f := cmd.Flags()
	f.StringVar(&e.Source, "source", "", "where it comes from, a URI reference")
	f.StringVar(&e.Type, "type", "", "its type")
	f.StringVar(&e.ID, "id", "", "its id; a second event with the same source and id within 5 minutes is dropped")
	f.StringVar(&e.Subject, "subject", "", "its subject")
	f.StringVarP(&data, "data", "d", "", "its data")
	f.StringVarP(&file, "data-file", "f", "", "file with its data; - is standard input")
	f.StringVar(&contentType, "content-type", "", "media type of the data (default: application/json where they are JSON)")
	f.StringArrayVar(&extensions, "extension", nil, "a further attribute, name=value; may be given several times")
	f.StringVar(&bus, "bus", "", "event bus (default: default)")
	c.reachFlags(cmd, "server-data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		single := e.Source != "" || e.Type != "" || cmd.Flags().Changed("data") || file != ""
		if single == (len(a) > 0) {
			return usageError{fmt.Errorf("give --source and --type of one event, or a file with events")}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		total := 0
		send := func(kind string, body []byte) error {
			got, err := client.PublishRaw(cmd.Context(), bus, kind, body)
			if err != nil && total > 0 {
				return errs.New(errs.CodeOf(err), "%w (%s before it published)", err, count(total, "event"))
			}
			if err != nil {
				return err
			}
			total += got.Events
			return nil
		}
		if single {
			if err := c.fillEvent(cmd, &e, data, file, contentType, extensions); err != nil {
				return err
			}
			body, err := json.Marshal(&e)
			if err != nil {
				return err
			}
			if err := send(event.ContentType, body); err != nil {
				return err
			}
		} else if err := c.eachBody(a[0], send); err != nil {
			return err
		}
		switch {
		case c.json && single:
			c.printJSON(map[string]any{"events": total, "id": e.ID})
		case c.json:
			c.printJSON(map[string]any{"events": total})
		case single:
			fmt.Fprintln(c.Stdout, e.ID)
		default:
			c.say("%s published", count(total, "event"))
		}
		return nil
	}
	return cmd
}

// fillEvent makes an event of the flags.
func (c *command) fillEvent(cmd *cobra.Command, e *event.Event, data, file, contentType string, extensions []string) error {
	if e.ID == "" {
		e.ID = strings.ToLower(rand.Text())
	}
	e.Time = time.Now().UTC()
	if cmd.Flags().Changed("data") || file != "" {
		body, err := c.payload(cmd, data, file)
		if err != nil {
			return err
		}
		e.Data, e.DataContentType = body, contentType
		if contentType == "" {
			e.DataContentType = "text/plain"
			if json.Valid(body) {
				e.DataContentType = "application/json"
			}
		}
	}
	if contentType != "" {
		if _, _, err := mime.ParseMediaType(contentType); err != nil {
			return usageError{fmt.Errorf("--content-type %q: %w", contentType, err)}
		}
	}
	for _, x := range extensions {
		name, value, ok := strings.Cut(x, "=")
		if !ok || name == "" {
			return usageError{fmt.Errorf("--extension %q: want name=value", x)}
		}
		e.SetExtension(name, value)
	}
	return e.Validate(api.MostAsyncPayload) // the server has the limit that is set
}

// eachBody reads a file of events: one, an array, or one on each line, and sends bodies of as many as one call takes.
func (c *command) eachBody(name string, send func(kind string, body []byte) error) error {
	in := c.Stdin
	if name != "-" {
		f, err := os.Open(c.abs(name))
		if err != nil {
			return errs.New(errs.NotFound, "read events: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	lim := api.EventLimits()
	var batch []json.RawMessage
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		body, err := json.Marshal(batch)
		if err != nil {
			return errs.New(errs.Invalid, "read events: %w", err)
		}
		batch, size = nil, 0
		return send(event.BatchContentType, body)
	}
	dec := json.NewDecoder(in)
	add := func() error {
		var one json.RawMessage
		if err := dec.Decode(&one); err != nil {
			return errs.New(errs.Invalid, "read events: at byte %d: %w", dec.InputOffset(), err)
		}
		if size+len(one) > lim.Batch/2 || len(batch) == lim.Events {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, size = append(batch, one), size+len(one)
		return nil
	}
	for {
		first, err := firstToken(dec)
		switch {
		case err == io.EOF:
			return flush()
		case err != nil:
			return errs.New(errs.Invalid, "read events: %w", err)
		case first != '[':
			if err := add(); err != nil {
				return err
			}
			continue
		}
		if _, err := dec.Token(); err != nil {
			return errs.New(errs.Invalid, "read events: %w", err)
		}
		for dec.More() {
			if err := add(); err != nil {
				return err
			}
		}
		if _, err := dec.Token(); err != nil {
			return errs.New(errs.Invalid, "read events: at byte %d: %w", dec.InputOffset(), err)
		}
	}
}

// firstToken looks at the next byte that is no space, without taking it.
func firstToken(dec *json.Decoder) (byte, error) {
	dec.More() // reads up to it
	buffered, err := io.ReadAll(dec.Buffered())
	if err != nil {
		return 0, err
	}
	rest := bytes.TrimLeft(buffered, " \t\r\n")
	if len(rest) == 0 {
		return 0, io.EOF
	}
	return rest[0], nil
}

func (c *command) eventsList() *cobra.Command {
	var q api.EventQuery
	var since, pattern string
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "Show the events of the log, oldest first",
		Example: "  ebb events ls --since 1h\n  ebb events ls --pattern '{\"detail-type\":[\"order.paid\"]}' --json",
		Args:    args(noArgs),
	}
	cmd.Flags().StringVar(&since, "since", "24h", "not older than this: 10m, 2h, or a time")
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", 0, "end after as many (default: no limit)")
	c.eventFlags(cmd, &q, &pattern)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		at, err := sinceTime(since)
		if err != nil {
			return usageError{fmt.Errorf("--since %w", err)}
		}
		q.From = at
		return c.showEvents(cmd, q, pattern, nil)
	}
	return cmd
}

func (c *command) eventsTail() *cobra.Command {
	q := api.EventQuery{Follow: true}
	var pattern string
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show events as they are published, until stopped",
		Args:  args(noArgs),
	}
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", 0, "end after as many (default: no limit)")
	c.eventFlags(cmd, &q, &pattern)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q.From = time.Now()
		return c.showEvents(cmd, q, pattern, func() {
			if !c.json {
				c.say("waiting for events; Ctrl-C stops")
			}
		})
	}
	return cmd
}

func (c *command) eventFlags(cmd *cobra.Command, q *api.EventQuery, pattern *string) {
	cmd.Flags().StringVar(&q.Bus, "bus", "", "only those of one event bus")
	cmd.Flags().StringVar(pattern, "pattern", "", "only those that match an EventBridge pattern, JSON")
	c.reachFlags(cmd, "data")
}

func (c *command) showEvents(cmd *cobra.Command, q api.EventQuery, pattern string, ready func()) error {
	if pattern != "" {
		if !json.Valid([]byte(pattern)) {
			return usageError{fmt.Errorf("--pattern is not JSON")}
		}
		q.Pattern = json.RawMessage(pattern)
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	return client.Events(cmd.Context(), q, ready, func(e api.RecordedEvent) error {
		if c.json {
			c.printJSON(e)
			return nil
		}
		c.printEvent(e)
		return nil
	})
}

// shownData is how many bytes of an event's data a line shows.
const shownData = 160

func (c *command) printEvent(r api.RecordedEvent) {
	e := r.Event
	line := fmt.Sprintf("%s  %s  %s  %s", r.Published.Local().Format("2006-01-02 15:04:05.000"), e.Type, e.Source, e.ID)
	if e.Subject != "" {
		line += "  " + e.Subject
	}
	if r.Bus != "default" {
		line += "  on " + r.Bus
	}
	if text := shownText(e.Data); text != "" {
		line += "  " + text
	}
	fmt.Fprintln(c.Stdout, line)
}

// shownText is data as a line shows them.
func shownText(data []byte) string {
	text := strings.ToValidUTF8(string(data), "·")
	if len(text) > shownData {
		text = strings.ToValidUTF8(text[:shownData], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

func (c *command) eventsReplay() *cobra.Command {
	var from, to, pattern string
	var wait bool
	cmd := &cobra.Command{
		Use:   "replay SUBSCRIPTION",
		Short: "Deliver events of the log again, to one subscription",
		Long: "SUBSCRIPTION is a name of `ebb events subscriptions`, its end, or the name of its function. Deliveries of a replay are marked as such.\n" +
			"It returns once the request is durable; with --wait, once all events are found.",
		Example: "  ebb events replay shop-dev-bill --from 2h\n  ebb events replay shop-dev-bill --from 2026-01-02T08:00:00Z --to 2026-01-02T09:00:00Z",
		Args:    args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&from, "from", "", "events not older than this: 10m, 2h, or a time")
	cmd.Flags().StringVar(&to, "to", "", "and before this (default: now)")
	cmd.Flags().StringVar(&pattern, "pattern", "", "and that match this EventBridge pattern too, JSON")
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait until all events are found")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		r := api.ReplayRequest{Subscription: a[0]}
		var err error
		if r.From, err = sinceTime(from); err != nil {
			return usageError{fmt.Errorf("--from %w", err)}
		}
		if to != "" {
			if r.To, err = sinceTime(to); err != nil {
				return usageError{fmt.Errorf("--to %w", err)}
			}
		}
		if pattern != "" {
			if !json.Valid([]byte(pattern)) {
				return usageError{fmt.Errorf("--pattern is not JSON")}
			}
			r.Pattern = json.RawMessage(pattern)
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		got, err := client.Replay(cmd.Context(), r)
		for every := 20 * time.Millisecond; err == nil && wait && !got.Done; every = min(2*every, time.Second) {
			select {
			case <-time.After(every):
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			}
			got, err = client.ReplayStatus(cmd.Context(), got.ID)
		}
		if err != nil {
			return err
		}
		switch {
		case c.json:
			c.printJSON(got)
		case wait:
			c.say("%s delivered again (%s)", count(got.Found, "event"), got.ID)
		default:
			fmt.Fprintln(c.Stdout, got.ID)
		}
		return nil
	}
	return cmd
}

func (c *command) eventsSubscriptions() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "subscriptions",
		Short: "Show what takes events, and how its deliveries stand",
		Args:  args(noArgs),
	}
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.listSubscriptions(cmd, false) }
	return cmd
}

// legible gives JSON without the escapes that are for web pages.
func legible(raw json.RawMessage) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	var v any
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil || enc.Encode(v) != nil {
		return string(raw)
	}
	return strings.TrimSuffix(out.String(), "\n")
}
