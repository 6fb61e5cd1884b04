package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
)

func (c *command) graph() *cobra.Command {
	var app, format string
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Show who publishes what to whom",
		Long: "What projects declare (rules, queues, schedules, destinations, dead-letter queues) and what was seen to happen: which function\n" +
			"published what, and who took it, how often and when last. What was seen is kept as long as events are, 14 days.",
		Example: "  ebb graph\n  ebb graph --app shop --format dot | dot -Tsvg > shop.svg\n  ebb graph --format mermaid",
		Args:    args(noArgs),
	}
	cmd.Flags().StringVar(&app, "app", "", "only what touches one app")
	cmd.Flags().StringVar(&format, "format", "text", "text, dot, mermaid or json")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if c.json && !cmd.Flags().Changed("format") {
			format = "json"
		}
		formats := map[string]func(io.Writer, *api.GraphInfo){"text": c.graphText, "dot": graphDot, "mermaid": graphMermaid, "json": func(_ io.Writer, g *api.GraphInfo) { c.printJSON(g) }}
		write := formats[format]
		if write == nil {
			return usageError{fmt.Errorf("--format %q: want text, dot, mermaid or json", format)}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		g, err := client.Graph(cmd.Context(), app)
		if err != nil {
			return err
		}
		if len(g.Nodes) == 0 && format == "text" {
			c.say("nothing is deployed, and no events were published")
			return nil
		}
		write(c.Stdout, g)
		return nil
	}
	return cmd
}

// edgeText says what an edge is, without its ends.
func edgeText(e *api.GraphEdge) string {
	words := map[string]string{"deadLetters": "dead letters", "onSuccess": "on success", "onFailure": "on failure"}
	s := e.Kind
	if w := words[e.Kind]; w != "" {
		s = w
	}
	if e.Label != "" {
		s += " " + e.Label
	}
	return s
}

// nodeText is a node for people: functions by their names alone.
func nodeText(n *api.GraphNode) string {
	if n.Kind == "function" || n.Kind == "outside" {
		return n.Name
	}
	return n.Kind + " " + n.Name
}

// graphText writes the edges below the nodes that they leave, by App.
func (c *command) graphText(w io.Writer, g *api.GraphInfo) {
	names := map[string]string{}
	for i := range g.Nodes {
		names[g.Nodes[i].ID] = nodeText(&g.Nodes[i])
	}
	first := true
	for _, group := range groups(g) {
		if !first {
			fmt.Fprintln(w)
		}
		first = false
		title := "shared"
		if group.app != "" {
			title = group.app + " " + group.stage
		}
		fmt.Fprintln(w, c.paint(bold, title))
		for _, n := range group.nodes {
			fmt.Fprintln(w, "  "+oneLine(nodeText(&n)))
			for _, e := range g.Edges {
				if e.From != n.ID {
					continue
				}
				line := "    → " + names[e.To] + "  " + edgeText(&e)
				switch {
				case e.N > 0:
					line += fmt.Sprintf("  %s, last %s", times(e.N), e.Last.Local().Format(time.DateTime))
				case !e.Uncounted:
					line += "  not seen"
				}
				if !e.Declared {
					line += "  not declared"
				}
				fmt.Fprintln(w, oneLine(line))
			}
		}
	}
}

type graphGroup struct {
	app, stage string
	nodes      []api.GraphNode
}

// groups puts nodes by App and Stage; those of none come last.
func groups(g *api.GraphInfo) []graphGroup {
	var out []graphGroup
	for _, n := range g.Nodes {
		i := slices.IndexFunc(out, func(x graphGroup) bool { return x.app == n.App && x.stage == n.Stage })
		if i < 0 {
			i, out = len(out), append(out, graphGroup{app: n.App, stage: n.Stage})
		}
		out[i].nodes = append(out[i].nodes, n)
	}
	slices.SortFunc(out, func(a, b graphGroup) int {
		if (a.app == "") != (b.app == "") {
			return strings.Compare(b.app, a.app)
		}
		return strings.Compare(a.app+"/"+a.stage, b.app+"/"+b.stage)
	})
	return out
}

// seenText is how often something happened, for a drawing.
func seenText(e *api.GraphEdge) string {
	if e.N == 0 {
		return edgeText(e)
	}
	return fmt.Sprintf("%s ×%d", edgeText(e), e.N)
}

// graphDot writes Graphviz's language: what was not seen is dashed, what is not declared is grey.
func graphDot(w io.Writer, g *api.GraphInfo) {
	quote := func(s string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(oneLine(s)) + `"`
	}
	shapes := map[string]string{"function": "box", "bus": "hexagon", "queue": "cylinder", "schedule": "oval", "outside": "plaintext"}
	fmt.Fprintln(w, "digraph ebb {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];")
	for i, group := range groups(g) {
		indent := "  "
		if group.app != "" {
			fmt.Fprintf(w, "  subgraph cluster_%d {\n    label=%s;\n", i, quote(group.app+" "+group.stage))
			indent = "    "
		}
		for _, n := range group.nodes {
			shape := shapes[n.Kind]
			if shape == "" {
				shape = "ellipse"
			}
			fmt.Fprintf(w, "%s%s [label=%s, shape=%s];\n", indent, quote(n.ID), quote(n.Name), shape)
		}
		if group.app != "" {
			fmt.Fprintln(w, "  }")
		}
	}
	for _, e := range g.Edges {
		style := ""
		if e.N == 0 && !e.Uncounted {
			style += ", style=dashed"
		}
		if !e.Declared {
			style += ", color=gray40"
		}
		fmt.Fprintf(w, "  %s -> %s [label=%s%s];\n", quote(e.From), quote(e.To), quote(seenText(&e)), style)
	}
	fmt.Fprintln(w, "}")
}

// graphMermaid writes Mermaid's flowchart: what was not seen is dotted.
func graphMermaid(w io.Writer, g *api.GraphInfo) {
	// Entities stand for what would end a text.
	quote := func(s string) string {
		var b strings.Builder
		for _, r := range oneLine(s) {
			switch {
			case strings.ContainsRune("\"#<>&;`\\", r):
				fmt.Fprintf(&b, "#%d;", r)
			default:
				b.WriteRune(r)
			}
		}
		return `"` + b.String() + `"`
	}
	shapes := map[string][2]string{"function": {"[", "]"}, "bus": {"{{", "}}"}, "queue": {"[(", ")]"}, "schedule": {"([", "])"}, "outside": {"((", "))"}}
	ids := map[string]string{}
	for i, n := range g.Nodes {
		ids[n.ID] = fmt.Sprintf("n%d", i)
	}
	fmt.Fprintln(w, "flowchart LR")
	for i, group := range groups(g) {
		indent := "  "
		if group.app != "" {
			fmt.Fprintf(w, "  subgraph g%d[%s]\n", i, quote(group.app+" "+group.stage))
			indent = "    "
		}
		for _, n := range group.nodes {
			shape, ok := shapes[n.Kind]
			if !ok {
				shape = [2]string{"(", ")"}
			}
			fmt.Fprintf(w, "%s%s%s%s%s\n", indent, ids[n.ID], shape[0], quote(n.Name), shape[1])
		}
		if group.app != "" {
			fmt.Fprintln(w, "  end")
		}
	}
	for _, e := range g.Edges {
		arrow := "-->"
		if e.N == 0 && !e.Uncounted {
			arrow = "-.->"
		}
		fmt.Fprintf(w, "  %s %s|%s| %s\n", ids[e.From], arrow, quote(seenText(&e)), ids[e.To])
	}
}
