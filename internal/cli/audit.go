package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/audit"
	"github.com/ebb-run/ebb/internal/errs"
)

func (c *command) audit() *cobra.Command {
	var q api.AuditQuery
	var since string
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, and who was refused",
		Long: "Deploys, rollbacks, removals, keys, and what AWS's clients and functions change of queues, tables, buckets, rules, parameters and the like (never\n" +
			"values); and what was refused: calls with wrong keys, roles that do not allow, other apps' things, and connections. Equal refusals of a minute\n" +
			"are one line with their number. A change that was begun and not ended, as by a crash, is shown as begun.",
		Example: "  ebb audit --since 24h\n  ebb audit --denials -f\n  ebb audit --app shop --json",
		Args:    args(cobra.NoArgs),
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().StringVar(&since, "since", "", "a time (RFC 3339) or how long ago (10m, 2h)")
	cmd.Flags().StringVar(&q.App, "app", "", "one app")
	cmd.Flags().BoolVar(&q.Denials, "denials", false, "only what was refused")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if since != "" {
			at, err := sinceTime(since)
			if err != nil {
				return usageError{fmt.Errorf("--since %w", err)}
			}
			q.Since = at
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		p := auditPrinter{c: c, open: map[string]api.AuditRecord{}}
		err = client.AuditRecords(cmd.Context(), q, nil, func(r api.AuditRecord) error {
			if c.json {
				c.printJSON(r)
				return nil
			}
			p.record(r)
			return nil
		})
		p.rest()
		return err
	}
	cmd.AddCommand(c.auditVerify())
	return cmd
}

// auditPrinter shows a change once, at its end.
type auditPrinter struct {
	c    *command
	open map[string]api.AuditRecord // begun, by log and number
	list []string                   // their keys in order
}

func (p *auditPrinter) record(r api.AuditRecord) {
	if r.Outcome == audit.Begun {
		key := r.Log + "/" + strconv.FormatUint(r.Seq, 10)
		p.open[key] = r
		p.list = append(p.list, key)
		return
	}
	if key := r.Log + "/" + strconv.FormatUint(r.Of, 10); r.Of > 0 {
		delete(p.open, key)
		p.list = slices.DeleteFunc(p.list, func(k string) bool { return k == key })
	}
	p.line(r)
}

// rest shows what was begun and has not ended.
func (p *auditPrinter) rest() {
	for _, key := range p.list {
		p.line(p.open[key])
	}
}

func (p *auditPrinter) line(r api.AuditRecord) {
	parts := []string{r.Time.Local().Format("2006-01-02 15:04:05"), r.Who, r.What}
	if r.On != "" && r.On != r.From {
		parts = append(parts, r.On)
	}
	if r.From != "" {
		parts = append(parts, "from "+r.From)
	}
	outcome := r.Outcome
	if r.Count > 1 {
		outcome += " " + times(r.Count)
	}
	if r.Text != "" {
		outcome += ": " + r.Text
	}
	col := color("")
	if r.Outcome != audit.Done {
		col = red
	}
	text := oneLine(strings.Join(parts, "  ") + "  " + outcome)
	if col != "" {
		text = p.c.paint(col, text)
	}
	fmt.Fprintln(p.c.Stdout, text)
}

func (c *command) auditVerify() *cobra.Command {
	var noted []string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that no record was changed, added or taken away",
		Long: "Each record carries the hash of the one before it, under a key of the server's. The check ends with the head of each log: who notes it elsewhere\n" +
			"and gives it with --head later, finds too whether records at the end were taken away. It exits with 1 where something is wrong.",
		Example: "  ebb audit verify\n  ebb audit verify --head changes=41:9c1f…",
		Args:    args(cobra.NoArgs),
	}
	cmd.Flags().StringArrayVar(&noted, "head", nil, "a head that was noted before, as `LOG=NUMBER:HASH`; may be repeated")
	c.reachFlags(cmd, "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		heads := map[string]audit.Head{}
		for _, text := range noted {
			log, rest, _ := strings.Cut(text, "=")
			number, hash, ok := strings.Cut(rest, ":")
			n, err := strconv.ParseUint(number, 10, 64)
			if err != nil || !ok || n == 0 || hash == "" {
				return usageError{fmt.Errorf("--head %q: want LOG=NUMBER:HASH, as `ebb audit verify` prints it", text)}
			}
			heads[log] = audit.Head{Seq: n, Hash: hash}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		logs, err := client.VerifyAudit(cmd.Context(), heads)
		if err != nil {
			return err
		}
		faults := 0
		for _, name := range slices.Sorted(maps.Keys(logs)) {
			faults += len(logs[name].Faults)
		}
		if c.json {
			c.printJSON(logs)
		} else {
			c.printReports(logs)
		}
		if faults > 0 {
			return errs.New(errs.Failed, "the audit logs were tampered with, or are damaged: %s", count(faults, "fault"))
		}
		return nil
	}
	return cmd
}

func (c *command) printReports(logs map[string]*audit.Report) {
	for _, name := range slices.Sorted(maps.Keys(logs)) {
		r := logs[name]
		text := fmt.Sprintf("%s  %s", name, count(r.Records, "record"))
		if r.First > 1 {
			text += fmt.Sprintf(" from %d", r.First)
		}
		if r.Head.Hash != "" {
			text += fmt.Sprintf("  head %s=%d:%s", name, r.Head.Seq, r.Head.Hash)
		}
		fmt.Fprintln(c.Stdout, text)
		for _, f := range r.Faults {
			fmt.Fprintln(c.Stdout, "  "+c.paint(red, oneLine(f)))
		}
	}
}
