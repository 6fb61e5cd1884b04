package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/server"
)

func (c *command) deploy() *cobra.Command {
	var pf projectFlags
	var message string
	cmd := &cobra.Command{
		Use:   "deploy [DIR]",
		Short: "Build the project in DIR and make it current on a running ebb, of this machine or elsewhere",
		Long: "Builds on this machine, uploads the files that the server does not have, and makes the result current there.\n" +
			"What has arrived of an upload that was broken off is kept: the same command goes on from there.",
		Example: "  ebb deploy\n  ebb deploy shop --stage prod -m 'new prices'\n  EBB_KEY=$KEY ebb deploy --server https://ebb.example.com:8443",
		Args:    args(cobra.MaximumNArgs(1)),
	}
	pf.add(cmd)
	pf.addBuild(cmd)
	cmd.Flags().StringVarP(&message, "message", "m", "", "why, for the history")
	c.reachFlags(cmd, "data")
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
		client, err := c.client()
		if err != nil {
			return err
		}
		loaded, err := p.load(cmd.Context())
		if err != nil {
			return err
		}
		if err := server.MakeOwnFolder(filepath.Join(p.root, ".ebb")); err != nil {
			return err
		}
		r, err := p.build(cmd.Context(), loaded, p.work())
		if err != nil {
			return err
		}
		d, err := p.send(cmd.Context(), client, loaded, r, message)
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(d)
			return nil
		}
		for _, text := range d.Warnings {
			c.say("%s %s", c.paint(yellow, "warning:"), text)
		}
		c.printDeployed(d, "deployed")
		return nil
	}
	return cmd
}

func (c *command) printDeployed(d *api.Deployed, verb string) {
	what := "nothing changed"
	if len(d.Changed) > 0 {
		what = "changed: " + strings.Join(d.Changed, ", ")
	}
	fmt.Fprintf(c.Stdout, "%s %s, stage %s, as %s (%s; %d ms)\n", verb, d.App, d.Stage, d.Deployment, what, d.DurationMS)
	fmt.Fprintf(c.Stdout, "%s\n", d.Gateway)
}
