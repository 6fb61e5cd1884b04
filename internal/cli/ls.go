package cli

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

func (c *command) ls() *cobra.Command {
	var history bool
	var stage string
	cmd := &cobra.Command{
		Use:   "ls [APP]",
		Short: "Show what is deployed",
		Args:  args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().BoolVar(&history, "history", false, "show the deployments of an app, newest first")
	cmd.Flags().StringVarP(&stage, "stage", "s", "", "one stage")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		stacks, err := client.Stacks(cmd.Context())
		if err != nil {
			return err
		}
		name := ""
		if len(a) > 0 {
			name = a[0]
		}
		if history {
			st, err := pickStack(stacks, name, stage)
			if err != nil {
				return err
			}
			list, err := client.History(cmd.Context(), st.App, st.Stage)
			if err != nil {
				return err
			}
			c.printHistory(list)
			return nil
		}
		chosen := []api.Stack{}
		for _, s := range stacks {
			if (name == "" || s.App == name) && (stage == "" || s.Stage == stage) {
				chosen = append(chosen, s)
			}
		}
		if len(chosen) == 0 && (name != "" || stage != "") {
			_, err := pickStack(stacks, name, stage)
			return err
		}
		if c.json {
			c.printJSON(map[string]any{"stacks": chosen})
			return nil
		}
		if len(chosen) == 0 {
			c.say("nothing is deployed")
		}
		for _, s := range chosen {
			c.printStack(s)
		}
		return nil
	}
	return cmd
}

func (c *command) printStack(s api.Stack) {
	fmt.Fprintf(c.Stdout, "%s  stage %s  %s  %s  %s  %d running\n", s.App, s.Stage, s.Gateway, s.Deployment, ago(s.Changed), s.Instances)
	if s.Error != "" {
		fmt.Fprintf(c.Stdout, "  not served: %s\n", s.Error)
	}
	w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
	for _, f := range s.Functions {
		fmt.Fprintf(w, "  function\t%s\t%s\t%s%s\n", f.Key, f.Runtime, f.Name, provisioned(f))
	}
	for _, r := range s.Routes {
		note := ""
		if r.Inactive != "" {
			note = "answers 501: " + r.Inactive
		}
		fmt.Fprintf(w, "  route\t%s %s\t%s\t%s\n", r.Method, r.Path, r.Function, note)
	}
	_ = w.Flush()
}

// provisioned says how many of the Instances to be kept are ready.
func provisioned(f api.FunctionInfo) string {
	if f.Provisioned == 0 {
		return ""
	}
	return fmt.Sprintf("\tprovisioned %d of %d", f.ProvisionedReady, f.Provisioned)
}

func (c *command) printHistory(list []api.Deployment) {
	if c.json {
		c.printJSON(map[string]any{"deployments": list})
		return
	}
	w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
	for _, d := range list {
		mark := " "
		if d.Current {
			mark = "*"
		}
		fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\t%s\n", mark, d.ID, d.Created.Local().Format(time.DateTime), d.By, count(d.Functions, "function"), d.Message)
	}
	_ = w.Flush()
}

func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// pickStack returns the Stack that a command is about; name and stage may be empty where only one fits.
func pickStack(stacks []api.Stack, name, stage string) (*api.Stack, error) {
	var fit []*api.Stack
	for i := range stacks {
		if s := &stacks[i]; (name == "" || s.App == name) && (stage == "" || s.Stage == stage) {
			fit = append(fit, s)
		}
	}
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		return nil, noStack(stacks, name, stage)
	}
	list := make([]string, 0, len(fit))
	for _, s := range fit {
		list = append(list, s.App+" --stage "+s.Stage)
	}
	return nil, errs.New(errs.Conflict, "several apps fit: %s", strings.Join(list, ", ")).WithHint("Name the app, and --stage if it has several.")
}

// noStack says what is not deployed, with the nearest that is.
func noStack(stacks []api.Stack, name, stage string) error {
	if len(stacks) == 0 {
		return errs.New(errs.NotFound, "nothing is deployed").WithHint("`ebb deploy` deploys the project in this folder.")
	}
	var apps, stages []string
	for _, s := range stacks {
		apps = append(apps, s.App)
		if s.App == name || name == "" {
			stages = append(stages, s.Stage)
		}
	}
	what, near := "no app "+name+" is deployed", diag.Nearest(name, apps)
	if name == "" || slices.Contains(apps, name) {
		what, near = "app "+name+" is not deployed at stage "+stage, diag.Nearest(stage, stages)
		if name == "" {
			what = "nothing is deployed at stage " + stage
		}
	}
	e := errs.New(errs.NotFound, "%s", what)
	if near != "" {
		return e.WithHint("Did you mean %s?", near)
	}
	return e.WithHint("`ebb ls` shows what is deployed.")
}
