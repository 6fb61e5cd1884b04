package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// contender is something that answers the request.
type contender struct {
	name  string
	what  string
	floor string // the floor that it is compared with
	start func(ctx context.Context, b *bench) (*server, error)
}

// contenders are in the order of the table. The first is what everything is compared with.
func contenders() []contender {
	return []contender{
		{name: "bare", what: "Go net/http", start: startBare},
		{name: "ebb-node", what: "ebb, Node handler", floor: "floor-node", start: startServe("node")},
		{name: "floor-node", what: "floor, Node handler", start: startFloor("node")},
		{name: "functions-framework", what: "functions-framework, Node", start: startFramework},
		{name: "serverless-offline", what: "serverless-offline, Node", start: startOffline},
		{name: "workerd", what: "workerd", start: startWorkerd},
		{name: "ebb-python", what: "ebb, Python handler", floor: "floor-python", start: startServe("python")},
		{name: "floor-python", what: "floor, Python handler", start: startFloor("python")},
		{name: "ebb-go", what: "ebb, Go (aws-lambda-go)", floor: "floor-go", start: startServe("go")},
		{name: "floor-go", what: "floor, Go (aws-lambda-go)", start: startFloor("go")},
		{name: "ebb-up-node", what: "ebb up --json, Node", floor: "floor-node", start: startUp},
	}
}

func names() []string {
	var out []string
	for _, c := range contenders() {
		out = append(out, c.name)
	}
	return out
}

const soon = 30 * time.Second

func startBare(ctx context.Context, b *bench) (*server, error) {
	s, err := b.launch(b.work, nil, false, b.bare)
	if err != nil {
		return nil, err
	}
	return s, s.printed(ctx)
}

// printed takes the address from a line with the URL.
func (s *server) printed(ctx context.Context) error {
	line, err := s.line(ctx, "http://", soon)
	if err != nil {
		return err
	}
	s.addr, s.ready = strings.TrimPrefix(line, "http://"), 0
	return nil
}

func startFloor(kind string) func(context.Context, *bench) (*server, error) {
	return func(ctx context.Context, b *bench) (*server, error) {
		code, program := b.gofunc, ""
		switch kind {
		case "node":
			code, program = filepath.Join(b.root, "bench", "apps", "node"), b.node
		case "python":
			code, program = filepath.Join(b.root, "bench", "apps", "python"), b.python
		}
		s, err := b.launch(b.work, nil, false, b.floor, "-runtime", kind, "-n", fmt.Sprint(b.o.guests), "-code", code,
			"-interpreter", program, "-bootstraps", filepath.Join(b.root, "internal", "guest", "lambda", "bootstrap"))
		if err != nil {
			return nil, err
		}
		return s, s.printed(ctx)
	}
}

// startServe runs `ebb serve` on data to which the app was deployed during set-up. Its first request is a cold start.
func startServe(kind string) func(context.Context, *bench) (*server, error) {
	return func(ctx context.Context, b *bench) (*server, error) {
		return b.serve(ctx, b.data(kind))
	}
}

func (b *bench) data(kind string) string { return filepath.Join(b.work, "data-"+kind) }
func (b *bench) app(kind string) string  { return filepath.Join(b.work, "app-"+kind) }

func (b *bench) serve(ctx context.Context, data string) (*server, error) {
	s, err := b.launch(b.work, nil, true, b.ebb, "serve", "--data", data, "--listen", "127.0.0.1:0", "--json")
	if err != nil {
		return nil, err
	}
	_, err = s.event(ctx)
	return s, err
}

func startUp(ctx context.Context, b *bench) (*server, error) {
	s, err := b.launch(b.work, nil, true, b.ebb, "up", b.app("node"), "--data", b.data("up"), "--listen", "127.0.0.1:0", "--no-watch", "--json")
	if err != nil {
		return nil, err
	}
	_, err = s.event(ctx)
	return s, err
}

// event waits for ebb's ready event and returns the control API's URL.
func (s *server) event(ctx context.Context) (api string, err error) {
	line, err := s.line(ctx, `"event":"ready"`, soon)
	if err != nil {
		return "", err
	}
	var e struct {
		Gateway string `json:"gateway"`
		API     string `json:"api"`
	}
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return "", fmt.Errorf("read the ready event: %w", err)
	}
	u, err := url.Parse(e.Gateway)
	if err != nil {
		return "", fmt.Errorf("read the ready event: %w", err)
	}
	s.addr, s.path = u.Host, "/hello"
	return e.API, nil
}
