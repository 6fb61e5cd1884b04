package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/gateway"
	"github.com/ebb-run/ebb/internal/server"
)

// settingFlags adds a flag for each server setting, or those that are named, and returns a function that loads them.
func (c *command) settingFlags(cmd *cobra.Command, only ...string) func(defaultData string) (*config.Config, error) {
	var file string
	all := config.Settings()
	if len(only) > 0 {
		all = slices.DeleteFunc(all, func(s config.Setting) bool { return !slices.Contains(only, s.Name) })
	} else {
		cmd.Flags().StringVar(&file, "config", "", "settings file (YAML)")
	}
	for _, s := range all {
		switch {
		case s.Bool:
			cmd.Flags().Bool(s.Name, s.Default == "true", s.Help)
		case s.Many:
			cmd.Flags().StringArray(s.Name, nil, s.Help)
		default:
			cmd.Flags().String(s.Name, s.Default, s.Help)
		}
	}
	return func(defaultData string) (*config.Config, error) {
		given := map[string]string{}
		for _, s := range all {
			if f := cmd.Flags().Lookup(s.Name); f.Changed {
				given[s.Name] = f.Value.String()
				if many, ok := f.Value.(pflag.SliceValue); ok {
					given[s.Name] = strings.Join(many.GetSlice(), ",")
				}
			}
		}
		if file != "" {
			file = c.abs(file)
		}
		cfg, err := config.Load(config.Sources{Flags: given, Env: c.Env, File: file})
		if err != nil {
			return nil, usageError{err}
		}
		if cfg.Data == "" {
			cfg.Data = defaultData
		}
		cfg.Data = c.abs(cfg.Data)
		return cfg, nil
	}
}

func (c *command) up() *cobra.Command {
	var pf projectFlags
	var noWatch bool
	cmd := &cobra.Command{
		Use:   "up [DIR]",
		Short: "Run the project in DIR (default: this folder) and redeploy on save",
		Long: "Reads the project, builds it, and runs everything in the foreground: gateway, functions, logs.\n" +
			"A change to a file redeploys at once; if the change does not start, what ran keeps serving.\n" +
			"SIGINT stops cleanly with exit code 0.\n\nWith --json every line on standard output is an event; `ready` comes once calls will succeed.\n" +
			"When nobody reads the output, requests and logs are dropped; the last event, `dropped`, counts them.",
		Example: "  ebb up\n  ebb up examples/hello-api --listen 127.0.0.1:0\n  ebb up --stage prod --param table=users",
		Args:    args(cobra.MaximumNArgs(1)),
	}
	pf.add(cmd)
	pf.addBuild(cmd)
	cmd.Flags().BoolVar(&noWatch, "no-watch", false, "do not redeploy when files change")
	load := c.settingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		dir := ""
		if len(a) > 0 {
			dir = a[0]
		}
		cfg, err := load(filepath.Join(c.abs(dir), ".ebb"))
		if err != nil {
			return err
		}
		p, err := c.project(dir, cfg.Account, pf)
		if err != nil {
			return err
		}
		p.settings = *cfg
		defer p.close()
		c.detach()
		err = (&upRun{c: c, lossy: c.passing(), p: p, cfg: cfg, watch: !noWatch, begun: time.Now()}).run(cmd.Context())
		if cmd.Context().Err() != nil && errs.CodeOf(err) == errs.Canceled {
			return nil // stopped before it was ready, as asked
		}
		return err
	}
	return cmd
}

// upRun is one `ebb up`.
type upRun struct {
	c      *command
	lossy  *command // prints what comes with requests
	p      *project
	cfg    *config.Config
	watch  bool
	begun  time.Time
	mu     sync.Mutex // one line, or what belongs together, at a time; c and lossy never wait for a reader
	client *api.Client
	only   func(*app.App) // serves nothing else
}

func (u *upRun) run(ctx context.Context) error {
	if _, _, err := u.p.find(); err != nil {
		return err
	}
	own := filepath.Join(u.p.root, ".ebb")
	if u.cfg.Data != own && within(u.p.root, u.cfg.Data) && !within(own, u.cfg.Data) {
		return errs.New(errs.Invalid, "the data directory %s lies in the project, whose files are packaged and watched", u.cfg.Data).
			WithHint("Choose a folder outside the project with --data, or leave the flag out for %s.", own)
	}
	// Reading the project and opening the server take about as long; neither needs the other.
	var a *app.App
	var loadErr error
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		a, loadErr = u.p.load(ctx)
	}()
	u.c.relaxCollector()
	s, err := server.Open(ctx, server.Options{
		Config: u.cfg, Version: Version, Log: u.c.serverLog(u.cfg), Env: u.c.Env, Access: u.access,
	})
	<-loaded
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if loadErr != nil {
		return loadErr
	}
	if u.cfg.Data != own {
		if err := server.PointElsewhere(own, u.cfg.Data); err != nil {
			return err
		}
		defer func() { _ = os.Remove(filepath.Join(own, server.ElsewhereFile)) }()
	}
	u.client = api.NewClient(s.APIURL(), s.Token())
	runCtx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() {
		err := s.Run(runCtx)
		stop() // when the server falls, everything else ends
		ran <- err
	}()
	var wg sync.WaitGroup
	err = u.serve(runCtx, &wg, s, a)
	stop()
	wg.Wait()
	runErr := <-ran
	if err != nil && ctx.Err() == nil {
		return err
	}
	if runErr != nil {
		return runErr
	}
	return s.Close()
}

// serve deploys the project and keeps at it until ctx ends.
func (u *upRun) serve(ctx context.Context, wg *sync.WaitGroup, s *server.Server, a *app.App) error {
	w, err := u.startWatch()
	if err != nil {
		return err
	}
	defer w.Close()
	if f := u.p.options.EnvFile; f != "" {
		w.Also([]string{f})
	}
	following := make(chan struct{})
	wg.Go(func() {
		var once sync.Once
		begun := func() { once.Do(func() { close(following) }) }
		defer begun()
		err := u.client.Logs(ctx, api.LogQuery{Follow: true, Since: time.Now(), App: a.Name, Stage: a.Stage}, begun, u.log)
		if err != nil && ctx.Err() == nil {
			u.c.failure(fmt.Errorf("follow logs: %w", err))
		}
	})
	select {
	case <-following:
	case <-ctx.Done():
	}
	// Another stage or name that an earlier run has left here is not this project: it would take part in addresses and names.
	s.Only(a.Name, a.Stage)
	d, err := u.deploy(ctx, a, w)
	if err != nil {
		return u.short(err)
	}
	u.only = func(a *app.App) { s.Only(a.Name, a.Stage) }
	u.ready(s, d)
	for {
		select {
		case <-ctx.Done():
			return nil
		case files := <-w.Changes():
			u.reload(ctx, files, w)
		}
	}
}

func (u *upRun) deploy(ctx context.Context, a *app.App, w *watcher) (*api.Deployed, error) {
	work := filepath.Join(u.cfg.Data, "build")
	if u.cfg.SealKeyFile != "" {
		work = u.p.work() // in clear, as the project beside it is
	}
	r, err := u.p.build(ctx, a, work)
	if err != nil {
		return nil, err
	}
	w.Also(r.Watch)
	d, err := u.p.send(ctx, u.client, a, r, "ebb up")
	if err != nil {
		return nil, err
	}
	for _, text := range d.Warnings {
		if !u.p.quiet[text] {
			u.p.quiet[text] = true
			u.c.say("%s %s", u.c.paint(yellow, "warning:"), text)
		}
	}
	return d, nil
}

// reload deploys a change; a failure is shown, and what ran keeps serving.
func (u *upRun) reload(ctx context.Context, files []string, w *watcher) {
	start := time.Now()
	a, err := u.p.load(ctx)
	var d *api.Deployed
	if err == nil {
		d, err = u.deploy(ctx, a, w)
	}
	if err == nil {
		u.only(a)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil:
		u.c.failure(u.short(err))
		if !u.c.json {
			u.c.say("%s", u.c.paint(dim, "the previous deployment keeps serving"))
		}
	case u.c.json:
		u.c.printJSON(map[string]any{"event": "deployed", "deployment": d.Deployment, "changed": d.Changed, "files": files, "durationMS": time.Since(start).Milliseconds()})
	case len(d.Changed) > 0:
		u.c.say("%s %s %s", u.c.paint(green, "redeployed"), strings.Join(d.Changed, ", "),
			u.c.paint(dim, fmt.Sprintf("(%s; %d ms)", strings.Join(files, ", "), time.Since(start).Milliseconds())))
	}
}

type readyFunction struct {
	Name    string `json:"name"`
	Key     string `json:"key"`
	Handler string `json:"handler"`
	Runtime string `json:"runtime"`
	URL     string `json:"url,omitempty"`
}

type readyRoute struct {
	Method   string `json:"method"`
	Path     string `json:"path"`
	Function string `json:"function"`
	URL      string `json:"url,omitempty"`      // path on the gateway, where it is not Path
	Inactive string `json:"inactive,omitempty"` // why it answers 501
}

// readyEvent is the line scripts wait for. WS is null until ebb serves it.
type readyEvent struct {
	Event     string          `json:"event"`
	Gateway   string          `json:"gateway"`
	API       string          `json:"api"`
	AWS       *string         `json:"aws"`
	WS        *string         `json:"ws"`
	App       string          `json:"app"`
	Stage     string          `json:"stage"`
	Functions []readyFunction `json:"functions"`
	Routes    []readyRoute    `json:"routes"`
}

func (u *upRun) ready(s *server.Server, d *api.Deployed) {
	u.mu.Lock()
	defer u.mu.Unlock()
	aws := s.AWSURL()
	e := readyEvent{Event: "ready", Gateway: s.GatewayURL(), API: s.APIURL(), AWS: &aws, App: d.App, Stage: d.Stage, Functions: []readyFunction{}, Routes: []readyRoute{}}
	for _, f := range d.Functions {
		e.Functions = append(e.Functions, readyFunction{Name: f.Name, Key: f.Key, Handler: f.Handler, Runtime: f.Runtime, URL: f.URL})
	}
	for _, r := range d.Routes {
		route := readyRoute{Method: r.Method, Path: r.Path, Function: r.Function, Inactive: r.Inactive}
		if r.URL != r.Path {
			route.URL = r.URL
		}
		e.Routes = append(e.Routes, route)
	}
	if u.c.json {
		u.c.printJSON(e)
		return
	}
	for _, check := range s.Checks() {
		if !check.OK {
			u.c.say("%s %s: %s", u.c.paint(yellow, "warning:"), check.Name, check.Detail)
		}
	}
	u.c.say("")
	width := 0
	for _, r := range e.Routes {
		width = max(width, len(r.Method))
	}
	for _, r := range e.Routes {
		path := r.Path
		if r.URL != "" {
			path = r.URL
		}
		if r.Path == "*" {
			path = strings.TrimRight(strings.TrimSuffix(path, "*"), "/") + "/*"
		}
		where := e.Gateway + path
		if !strings.HasPrefix(path, "/") { // a route key of a WebSocket API is no path
			where = "WebSocket " + path
		}
		u.c.say("  %-*s %s %s %s", width, r.Method, where, u.c.paint(dim, "->"), r.Function)
		if r.Inactive != "" {
			u.c.say("    %s %s", u.c.paint(yellow, "answers 501:"), r.Inactive)
		}
	}
	if len(e.Routes) == 0 {
		for _, f := range e.Functions {
			u.c.say("  ebb invoke %s", f.Key)
		}
	}
	u.c.say("\n%s %s %s", u.c.paint(green, "ready"), u.c.paint(bold, e.Gateway),
		u.c.paint(dim, fmt.Sprintf("%s, stage %s, %s, %.1f s; Ctrl-C stops", d.App, d.Stage, count(len(d.Functions), "function"), time.Since(u.begun).Seconds())))
}

// access shows a request.
func (u *upRun) access(a gateway.Access) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.c.json {
		u.lossy.printJSON(map[string]any{"event": "request", "method": a.Method, "path": a.Path, "status": a.Status, "durationMS": float64(a.Duration.Microseconds()) / 1000,
			"function": a.Function, "invocation": a.RequestID})
		return
	}
	col := green
	if a.Status >= 500 {
		col = red
	} else if a.Status >= 400 {
		col = yellow
	}
	u.lossy.say("%s %s %s %s %s", u.c.paint(dim, time.Now().Format("15:04:05")), u.c.paint(col, fmt.Sprint(a.Status)), a.Method, a.Path,
		u.c.paint(dim, strings.TrimSpace(fmt.Sprintf("%.1f ms %s", float64(a.Duration.Microseconds())/1000, a.Function))))
}

// log shows a line of output.
func (u *upRun) log(r api.LogRecord) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.c.json {
		u.lossy.printJSON(struct {
			Event string `json:"event"`
			api.LogRecord
		}{"log", r})
		return nil
	}
	switch r.Kind {
	case "start", "end", "report": // the request's own line says it
		return nil
	}
	name := strings.TrimPrefix(r.Function, r.App+"-"+r.Stage+"-")
	u.lossy.say("%s %s", u.c.paint(cyan, name+" |"), r.Text)
	return nil
}

// count gives a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// within says whether path is dir or below it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// short cuts what a function printed off its error: the followed logs show it already.
func (u *upRun) short(err error) error {
	line, _, more := strings.Cut(err.Error(), "\n")
	if !more || errs.CodeOf(err) != errs.Failed {
		return err
	}
	return &errs.Error{Code: errs.CodeOf(err), Msg: line, Hint: errs.HintOf(err)}
}
