package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
)

// stackOf finds the Node and the Stack that a command names.
func (c *command) stackOf(cmd *cobra.Command, a []string, stage string) (*api.Client, *api.Stack, error) {
	client, err := c.client()
	if err != nil {
		return nil, nil, err
	}
	stacks, err := client.Stacks(cmd.Context())
	if err != nil {
		return nil, nil, err
	}
	name := ""
	if len(a) > 0 {
		name = a[0]
	}
	st, err := pickStack(stacks, name, stage)
	return client, st, err
}

func (c *command) inspect() *cobra.Command {
	var pf projectFlags
	cmd := &cobra.Command{
		Use:   "inspect [DIR]",
		Short: "Show what a project declares: functions, routes, triggers, resources, roles",
		Args:  args(cobra.MaximumNArgs(1)),
	}
	pf.add(cmd)
	load := c.settingFlags(cmd, buildSettings...)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		dir := ""
		if len(a) > 0 {
			dir = a[0]
		}
		p, err := c.project(dir, "", pf)
		if err != nil {
			return err
		}
		settings, err := load("")
		if err != nil {
			return err
		}
		p.settings = *settings
		defer p.close()
		p.plainJSON = true
		loaded, err := p.load(cmd.Context())
		if err != nil {
			return err
		}
		if c.json {
			data, err := json.MarshalIndent(loaded, "", "  ")
			if err != nil {
				return fmt.Errorf("encode app: %w", err)
			}
			fmt.Fprintf(c.Stdout, "%s\n", data)
			return nil
		}
		c.printApp(loaded)
		return nil
	}
	return cmd
}

func (c *command) printApp(a *app.App) {
	w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
	defer func() { _ = w.Flush() }()
	fmt.Fprintf(w, "%s  stage %s  region %s  (%s)\n", a.Name, a.Stage, a.Region, a.Source)
	section := func(name string, n int) {
		if n > 0 {
			fmt.Fprintf(w, "\n%s (%d)\n", name, n)
		}
	}
	section("functions", len(a.Functions))
	for _, f := range a.Functions {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%d MiB, %d s\t%s\n", f.Key, f.Runtime, f.Handler, f.MemoryMB, f.TimeoutSec, f.Name)
	}
	section("routes", len(a.Routes))
	for _, r := range a.Routes {
		kind, note := "", ""
		if api := a.API(r.API); api != nil {
			kind = string(api.Kind)
		}
		if r.Authorizer != nil {
			note = "authorizer " + r.Authorizer.Kind
		}
		if r.APIKey {
			note = strings.TrimSpace(note + " API key")
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", kind, r.Method, r.Path, r.Function, note)
	}
	section("triggers", len(a.Triggers))
	for _, t := range a.Triggers {
		source := t.Source.String()
		if len(t.Schedule) > 0 {
			source = strings.Join(t.Schedule, ", ")
		}
		note := "declared, not yet active"
		switch {
		case !t.Enabled:
			note = "disabled"
		case api.ActiveTrigger(t.Kind):
			note = ""
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", t.Kind, source, t.Function, note)
	}
	section("resources", len(a.Resources))
	for _, r := range a.Resources {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", r.Kind, r.ID, r.Type, r.Name)
	}
	section("roles", len(a.Roles))
	for _, r := range a.Roles {
		fmt.Fprintf(w, "  %s\t%s\t%d statements\n", r.ID, r.Name, len(r.Statements))
	}
	section("outputs", len(a.Outputs))
	keys := make([]string, 0, len(a.Outputs))
	for k := range a.Outputs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(w, "  %s\t%s\n", k, a.Outputs[k])
	}
}
