package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
)

func (c *command) schedules() *cobra.Command {
	var next int
	cmd := &cobra.Command{
		Use:   "schedules",
		Short: "Show what runs by time, and when it runs next",
		Long: "Each slot of a schedule fires once, also over restarts; what it fires is delivered as an event is. A slot that passed while nothing ran\n" +
			"does not fire later, but for a one-time schedule, which does.",
		Args: args(noArgs),
	}
	cmd.Flags().IntVarP(&next, "next", "n", 3, "how many firings, at most 100")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if next < 1 || next > 100 {
			return usageError{fmt.Errorf("--next %d: want 1 to 100", next)}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		list, err := client.Schedules(cmd.Context(), next)
		if err != nil {
			return err
		}
		if c.json {
			if list == nil {
				list = []api.ScheduleInfo{}
			}
			c.printJSON(map[string]any{"schedules": list})
			return nil
		}
		if len(list) == 0 {
			c.say("nothing runs by time")
			return nil
		}
		w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "SCHEDULE\tTARGET\tEXPRESSION\tZONE\tLAST\tNEXT")
		for _, s := range list {
			zone, last := s.Zone, ""
			if zone == "" {
				zone = "UTC"
			}
			if !s.Last.IsZero() {
				last = s.Last.Local().Format(time.DateTime)
			}
			first := "none"
			if s.Disabled {
				first = "disabled"
			}
			if len(s.Next) > 0 {
				first = s.Next[0].Local().Format(time.DateTime)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.Function+s.Target, s.Expression, zone, last, first)
			for _, at := range s.Next[min(1, len(s.Next)):] {
				fmt.Fprintf(w, "\t\t\t\t\t%s\n", at.Local().Format(time.DateTime))
			}
		}
		return w.Flush()
	}
	return cmd
}
