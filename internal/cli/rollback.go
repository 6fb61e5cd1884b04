package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *command) rollback() *cobra.Command {
	var stage, to string
	cmd := &cobra.Command{
		Use:     "rollback [APP]",
		Short:   "Make the previous deployment current again",
		Example: "  ebb rollback\n  ebb rollback shop --stage prod --to 01JD…",
		Args:    args(cobra.MaximumNArgs(1)),
	}
	cmd.Flags().StringVarP(&stage, "stage", "s", "", "stage of the app")
	cmd.Flags().StringVar(&to, "to", "", "deployment to go back to (default: the one before the current)")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, st, err := c.stackOf(cmd, a, stage)
		if err != nil {
			return err
		}
		d, err := client.Rollback(cmd.Context(), st.App, st.Stage, to)
		if err != nil {
			return err
		}
		if c.json {
			c.printJSON(d)
			return nil
		}
		c.printDeployed(d, "rolled back")
		return nil
	}
	return cmd
}

func (c *command) rm() *cobra.Command {
	var stage string
	cmd := &cobra.Command{
		Use:   "rm APP",
		Short: "Take an app away, with its history",
		Args:  args(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVarP(&stage, "stage", "s", "", "stage of the app")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		client, st, err := c.stackOf(cmd, a, stage)
		if err != nil {
			return err
		}
		if err := client.Remove(cmd.Context(), st.App, st.Stage); err != nil {
			return err
		}
		if c.json {
			c.printJSON(map[string]string{"removed": st.App, "stage": st.Stage})
		} else {
			fmt.Fprintf(c.Stdout, "removed %s, stage %s\n", st.App, st.Stage)
		}
		return nil
	}
	return cmd
}
