package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Deploy is how long `ebb deploy` to a running `ebb serve` takes until the app's first right answer, in seconds.
type Deploy struct {
	Kind  string  `json:"kind"`
	First float64 `json:"firstSeconds"`           // a new app
	Again float64 `json:"againSeconds,omitempty"` // the same app with a changed handler, until the change answers
}

// Idle is an ebb that has nothing to do.
type Idle struct {
	What       string  `json:"what"`
	PSS        float64 `json:"pssMiB"`
	RSS        float64 `json:"rssMiB"`
	Goroutines int     `json:"goroutines"`
	Processes  int     `json:"processes"` // below ebb
}

// settle is how long an ebb is left alone before its memory is read.
const settle = 4 * time.Second

// crowd is how many functions are deployed to see what idle ones take.
const crowd = 1000

// perApp is how many of them an app has. CloudFormation takes 500 resources a template, and each function needs several.
const perApp = 100

func (b *bench) idle(ctx context.Context) error {
	if err := b.upReady(ctx); err != nil {
		return fmt.Errorf("measure ebb up: %w", err)
	}
	b.say("idle memory with no and with %d functions", crowd)
	data := filepath.Join(b.work, "data-idle")
	if err := b.resting(ctx, "no functions", data, nil); err != nil {
		return err
	}
	if err := b.resting(ctx, fmt.Sprintf("%d functions, just deployed", crowd), data, func() error {
		for i := range crowd / perApp {
			dir := filepath.Join(b.work, fmt.Sprintf("app-crowd-%d", i))
			if err := b.writeCrowd(dir, i); err != nil {
				return fmt.Errorf("write an app of %d functions: %w", perApp, err)
			}
			if err := b.command(ctx, "deploy", dir, "--data", data); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return b.resting(ctx, fmt.Sprintf("%d functions, after a restart", crowd), data, nil)
}

// resting starts ebb, does something with it, leaves it alone and reads what it takes.
func (b *bench) resting(ctx context.Context, what, data string, do func() error) error {
	s, err := b.launch(b.work, nil, true, b.ebb, "serve", "--data", data, "--listen", "127.0.0.1:0", "--json")
	if err != nil {
		return err
	}
	defer s.stop()
	api, err := s.event(ctx)
	if err != nil {
		return err
	}
	if do != nil {
		if err := do(); err != nil {
			return err
		}
	}
	if err := s.pause(ctx, time.Now().Add(2*settle), settle); err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(data, "token"))
	if err != nil {
		return fmt.Errorf("read the control API's token: %w", err)
	}
	i := Idle{What: what}
	if i.PSS, i.RSS, err = memory(s.cmd.Process.Pid); err != nil {
		return err
	}
	i.Processes = len(descendants(s.cmd.Process.Pid))
	count, err := metric(api, strings.TrimSpace(string(token)), "go_goroutines")
	if err != nil {
		return err
	}
	i.Goroutines = int(count)
	b.report.Idle = append(b.report.Idle, i)
	return nil
}

// writeCrowd writes the nth app of many functions, each with a route.
func (b *bench) writeCrowd(dir string, n int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	code, err := os.ReadFile(filepath.Join(b.root, "bench", "apps", "node", "handler.js"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "handler.js"), code, 0o644); err != nil {
		return err
	}
	var y strings.Builder
	fmt.Fprintf(&y, "service: bench-crowd-%d\n", n)
	y.WriteString("provider:\n  name: aws\n  runtime: nodejs22.x\n  memorySize: 128\nfunctions:\n")
	for i := range perApp {
		fmt.Fprintf(&y, "  f%04d:\n    handler: handler.hello\n    events:\n      - httpApi: GET /crowd%d/f%04d\n", i, n, i)
	}
	return os.WriteFile(filepath.Join(dir, "serverless.yml"), []byte(y.String()), 0o644)
}

// Up is how long `ebb up` takes until its ready event, in seconds.
type Up struct {
	Fresh []float64 `json:"freshSeconds"` // with an empty data directory
	Again []float64 `json:"againSeconds"` // with the data of the run before
}

func (b *bench) upReady(ctx context.Context) error {
	b.say("ebb up until ready, and redeploys")
	for i := range 5 {
		data := filepath.Join(b.work, fmt.Sprintf("data-up-%d", i))
		for _, into := range []*[]float64{&b.report.Up.Fresh, &b.report.Up.Again} {
			s, err := b.launch(b.work, nil, true, b.ebb, "up", b.app("node"), "--data", data, "--listen", "127.0.0.1:0", "--no-watch", "--json")
			if err != nil {
				return err
			}
			_, err = s.event(ctx)
			if err == nil {
				err = get(s.addr, s.path)
			}
			ready := s.ready
			s.stop()
			if err != nil {
				return err
			}
			*into = append(*into, ready.Seconds())
		}
	}
	for i := range b.report.Deploy {
		again, err := b.redeploy(ctx, b.report.Deploy[i].Kind)
		if err != nil {
			return fmt.Errorf("redeploy the %s app: %w", b.report.Deploy[i].Kind, err)
		}
		b.report.Deploy[i].Again = again
	}
	return nil
}

// redeploy deploys a changed app over the one that serves, and waits for an answer from the change.
func (b *bench) redeploy(ctx context.Context, kind string) (float64, error) {
	s, err := b.serve(ctx, b.data(kind))
	if err != nil {
		return 0, err
	}
	defer s.stop()
	if err := s.answers(ctx, soon); err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(b.app(kind), changed(kind)), []byte(changes(kind)), 0o644); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := b.command(ctx, "deploy", b.app(kind), "--data", b.data(kind)); err != nil {
		return 0, err
	}
	// The old revision serves until the new one does, which is before deploy returns.
	if err := s.answers(ctx, soon); err != nil {
		return 0, err
	}
	return time.Since(began).Seconds(), nil
}

// changed names a file whose content is part of the code.
func changed(kind string) string {
	switch kind {
	case "node":
		return "handler.js"
	case "python":
		return "handler.py"
	}
	return "serverless.yml"
}

// changes is that file in another form with the same meaning; for Go, where the code is a binary, a new environment.
func changes(kind string) string {
	switch kind {
	case "node":
		return "const body = JSON.stringify({ message: \"Hello, world!\" });\nexports.hello = async () => ({ statusCode: 200, headers: { \"content-type\": \"application/json\" }, body });\n"
	case "python":
		return "def hello(event, context):\n    return {\"statusCode\": 200, \"headers\": {\"content-type\": \"application/json\"}, \"body\": '{\"message\":\"Hello, world!\"}'}\n"
	}
	return "service: bench-go\nprovider:\n  name: aws\n  runtime: provided.al2023\n  memorySize: 128\n  environment:\n    CHANGED: \"1\"\npackage:\n  patterns: [\"!**\", \"bootstrap\"]\nfunctions:\n  hello:\n    handler: bootstrap\n    events:\n      - httpApi: GET /hello\n"
}
