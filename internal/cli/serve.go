package cli

import (
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/server"
	"github.com/ebb-run/ebb/internal/telemetry"
)

func (c *command) serve() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server that `ebb deploy` deploys to",
		Long: "Serves what is deployed until it is stopped. On this machine `ebb deploy` and the others find it by its data directory.\n\n" +
			"With certificates (--tls-self-signed, --tls-cert and --tls-key, or --tls-domain) the gateway speaks HTTPS, and the control API\n" +
			"at --api-listen lets in who has a key: see `ebb keys`. Without them nothing is served beyond this machine, but for a gateway\n" +
			"with --plain-http.",
		Example: "  ebb serve\n  ebb serve --listen :443 --api-listen :8443 --tls-self-signed --tls-names ebb.example.com\n" +
			"  ebb serve --listen :443 --api-listen :8443 --tls-domain api.example.com",
		Args: args(noArgs),
	}
	load := c.settingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := load(c.defaultData())
		if err != nil {
			return err
		}
		c.detach()
		c.relaxCollector()
		s, err := server.Open(cmd.Context(), server.Options{
			Config: cfg, Version: Version, Log: c.serverLog(cfg), Env: c.Env,
		})
		if err != nil {
			if cmd.Context().Err() != nil && errs.CodeOf(err) == errs.Canceled {
				return nil // stopped before it was ready, as asked
			}
			return err
		}
		defer func() { _ = s.Close() }()
		stacks, err := s.Stacks(cmd.Context())
		if err != nil {
			return err
		}
		if c.json {
			event := map[string]any{"event": "ready", "gateway": s.GatewayURL(), "api": s.APIURL(), "data": cfg.Data, "tables": s.TablesIn(), "stacks": len(stacks), "aws": s.AWSURL()}
			if s.RemoteURL() != "" {
				event["api"], event["local"] = s.RemoteURL(), s.APIURL()
			}
			c.printJSON(event)
		} else {
			control := s.APIURL()
			if s.RemoteURL() != "" {
				control = s.RemoteURL() + " (with keys)"
			}
			c.say("serving %s, control API %s, data in %s, tables in %s, %s; Ctrl-C stops", s.GatewayURL(), control, cfg.Data, s.TablesIn(), count(len(stacks), "app"))
			for _, st := range stacks {
				if st.Error != "" {
					c.say("%s %s at stage %s is not served: %s", c.paint(red, "warning:"), st.App, st.Stage, st.Error)
				}
			}
		}
		if err := s.Run(cmd.Context()); err != nil {
			return err
		}
		return s.Close()
	}
	return cmd
}

// serverLog is the server's own log, on standard error.
func (c *command) serverLog(cfg *config.Config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // config has checked it
	return telemetry.NewServerLog(mayDrop(c.Stderr), level)
}

// relaxCollector lets garbage wait for longer than is Go's default: what a Node keeps is small, what it throws away under load is much.
func (c *command) relaxCollector() {
	if _, set := c.Env("GOGC"); !set {
		debug.SetGCPercent(200)
	}
}
