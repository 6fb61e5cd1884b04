package cli

import (
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
)

func (c *command) trace() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "trace ID",
		Short: "Show what an event or an invocation caused, and what caused it",
		Long: "ID is that of an event, an invocation, a message of a queue, or a trace (as in a traceparent). The whole tree is shown: events, the\n" +
			"functions that took them with their attempts, and what those published in turn. It goes back as far as the event log, 14 days.\n" +
			"A call whose caller waited is in it where it published events.",
		Example: "  ebb trace 01jb3e7n2v\n  ebb trace 4bf92f3577b34da6a3ce929d0e0e4736 --json\n  ebb trace \"$(ebb events publish --source /shop --type order.placed)\" --follow",
		Args:    args(cobra.ExactArgs(1)),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "show it again whenever it has changed, until nothing in it is open")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		var last *api.TraceInfo
		for every := 100 * time.Millisecond; ; every = min(2*every, 2*time.Second) {
			t, err := client.Trace(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			if !reflect.DeepEqual(t, last) {
				every = 100 * time.Millisecond
				switch {
				case c.json:
					c.printJSON(t)
				default:
					if last != nil {
						fmt.Fprintln(c.Stdout)
					}
					c.printTrace(t)
				}
			}
			if last = t; !follow || t.Open == 0 {
				return nil
			}
			select {
			case <-time.After(every):
			case <-cmd.Context().Done():
				return nil
			}
		}
	}
	return cmd
}

// treeWidth is how wide a tree is on a terminal. What goes elsewhere is not cut.
const treeWidth = 80

// treeIndent is how far what has no sisters is indented.
const treeIndent = 24

// treePrinter writes a trace for people.
type treePrinter struct {
	w     io.Writer
	paint func(color, string) string
	cut   bool      // at treeWidth
	from  time.Time // what times are counted from
}

func (c *command) printTrace(t *api.TraceInfo) {
	p := treePrinter{w: c.Stdout, paint: c.paint, cut: c.Color}
	head := "trace " + t.Trace
	for _, n := range t.Roots {
		if !n.At.IsZero() {
			p.from = n.At
			head += "  " + n.At.Local().Format("2006-01-02 15:04:05.000")
			break
		}
	}
	p.line("", head, bold)
	for i := range t.Roots {
		p.node("", "", &t.Roots[i])
	}
	if t.More {
		p.line("", "… there is more in the event log than is shown", dim)
	}
	var sums []string
	if t.Dead > 0 {
		sums = append(sums, count(t.Dead, "dead letter"))
	}
	if t.Open > 0 {
		sums = append(sums, fmt.Sprintf("%d not ended", t.Open))
	}
	if len(sums) > 0 {
		p.line("", strings.Join(sums, ", "), yellow)
	}
}

// oneLine keeps text of functions and events from doing anything to a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// line writes a line; text that does not fit is cut.
func (p *treePrinter) line(lead, text string, col color) {
	text = oneLine(text)
	if room := max(treeWidth-utf8.RuneCountInString(lead), 20); p.cut && utf8.RuneCountInString(text) > room {
		text = string([]rune(text)[:room-1]) + "…"
	}
	if col != "" {
		text = p.paint(col, text)
	}
	fmt.Fprintln(p.w, p.paint(dim, lead)+text)
}

// node writes a node and what is below it. first leads its own line, rest those that follow.
func (p *treePrinter) node(first, rest string, n *api.TraceNode) {
	title, col := p.title(n)
	p.line(first, title, col)
	below := rest
	if len(n.Children) > 0 {
		below += "│ "
	} else {
		below += "  "
	}
	details := p.details(n)
	for _, d := range details {
		p.line(below, d, dim)
	}
	if len(n.Children) == 1 && utf8.RuneCountInString(rest) > treeIndent { // a long chain goes straight down
		p.node(rest, rest, &n.Children[0])
		return
	}
	for i := range n.Children {
		if i == len(n.Children)-1 {
			p.node(rest+"└─ ", rest+"   ", &n.Children[i])
		} else {
			p.node(rest+"├─ ", rest+"│  ", &n.Children[i])
		}
	}
}

// title is the first line of a node.
func (p *treePrinter) title(n *api.TraceNode) (string, color) {
	switch n.Kind {
	case api.TraceEvent:
		s := "event " + n.Type + "  from " + n.Source
		if n.Topic != "" {
			return "message to topic " + n.Topic, ""
		}
		if n.Bus != "" && n.Bus != "default" {
			s += "  on " + n.Bus
		}
		return s, ""
	case api.TraceMessage:
		s := "message in " + n.Queue + "  " + n.State
		switch {
		case n.State == "dead":
			return fmt.Sprintf("message in %s  dead letter of %s", n.In, n.DeadFrom), red
		case n.Receives > 0:
			s += "  received " + times(n.Receives)
		}
		if n.In != "" && n.In != n.Queue {
			s += "  now in " + n.In
		}
		return s, ""
	}
	name := n.Function
	if name == "" {
		name = "a function"
	}
	s, col := name, color("")
	if n.State != "" {
		s += "  " + n.State
	}
	if n.Cause != "" {
		s += " (" + n.Cause + ")"
	}
	if n.DurationMS > 0 {
		s += "  " + duration(n.DurationMS)
	}
	switch n.State {
	case "succeeded":
		col = green
	case "dead", "failed", "failed in part":
		col = red
	case "cancelled", "retrying":
		col = yellow
	}
	switch n.Mode {
	case "destination", "async", "queue", "schedule":
		s += "  " + n.Mode
	case "request":
		s += "  call"
	}
	if n.Replay != "" {
		s += "  replay"
	}
	if n.Redriven > 0 {
		s += "  redriven " + times(n.Redriven)
	}
	return s, col
}

// details are what is said below a node's first line.
func (p *treePrinter) details(n *api.TraceNode) []string {
	id := n.ID
	if !n.At.IsZero() && !p.from.IsZero() {
		if d := n.At.Sub(p.from); d != 0 {
			id += "  " + signed(d)
		}
	}
	if n.Together > 1 {
		id += fmt.Sprintf("  with %s", count(n.Together, "message"))
	}
	if n.Elsewhere {
		return []string{id + "  as above"}
	}
	out := []string{id}
	shown := n.Attempts
	if n.State == "succeeded" && len(shown) == 1 {
		shown = nil
	}
	for i, a := range shown {
		number := n.Tries - len(n.Attempts) + i + 1
		s := fmt.Sprintf("attempt %d  %s", number, duration(a.DurationMS))
		switch {
		case a.Error != "":
			s += "  " + a.Error
		default:
			s += "  succeeded"
		}
		out = append(out, s)
	}
	if len(shown) == 0 && n.Error != "" {
		out = append(out, n.Error)
	}
	if n.State == "retrying" && !n.Due.IsZero() {
		out = append(out, "again at "+n.Due.Local().Format("15:04:05"))
	}
	return out
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// duration writes milliseconds.
func duration(ms float64) string {
	switch {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	case ms < 120_000:
		return fmt.Sprintf("%.1f s", ms/1000)
	}
	return (time.Duration(math.Round(ms/1000)) * time.Second).String()
}

// signed writes how much later, or earlier, something was.
func signed(d time.Duration) string {
	sign := "+"
	if d < 0 {
		sign, d = "-", -d
	}
	return sign + duration(float64(d.Microseconds())/1000)
}
