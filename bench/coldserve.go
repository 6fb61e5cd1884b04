package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// coldServed measures cold starts through the gateway of a real `ebb serve` whose Instances are stopped as soon as they are idle.
func (b *bench) coldServed(ctx context.Context) error {
	for _, h := range handlers() {
		if b.skipped(h) {
			continue
		}
		row := b.report.coldOf(h.name, wayServe)
		if row.NotRun = b.absent[h.name]; row.NotRun != "" {
			continue
		}
		b.say("cold starts end to end: %s", h.what)
		if err := b.servedCold(ctx, h, row); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			row.NotRun = err.Error()
			b.say("%s, %s: not run: %v", h.name, wayServe, err)
		}
	}
	return nil
}

func (b *bench) servedCold(ctx context.Context, h handler, row *Cold) error {
	data := filepath.Join(b.work, "data-cold-"+h.name)
	s, err := b.launch(b.work, nil, true, b.ebb, "serve", "--data", data, "--listen", "127.0.0.1:0", "--keep-alive", "1ms", "--freeze-after", "never", "--json")
	if err != nil {
		return err
	}
	defer s.stop()
	api, err := s.event(ctx)
	if err != nil {
		return err
	}
	if err := b.command(ctx, "deploy", b.app(h.name), "--data", data); err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(data, "token"))
	if err != nil {
		return err
	}
	for n := range b.o.starts + 1 {
		if err := s.empty(ctx, api, strings.TrimSpace(string(token)), n > 0, h.ready); err != nil {
			return err
		}
		took, err := firstByte(s.addr, s.path)
		if err != nil {
			return err
		}
		if n > 0 {
			row.All = append(row.All, took.Seconds())
		}
	}
	row.Parts, err = b.reported(ctx, data, b.o.starts)
	return err
}

// empty waits until the server runs no Instance, and where it may hold programs ready for some time until it does; then a little.
func (s *server) empty(ctx context.Context, api, token string, again bool, ready int) error {
	for begun := time.Now(); ; {
		instances, err := metric(api, token, "ebb_instances")
		if err != nil {
			return err
		}
		held, err := metric(api, token, "ebb_templates_ready")
		if err != nil {
			return err
		}
		if instances == 0 && (!again || int(held) >= ready || time.Since(begun) > 2*time.Second) {
			return s.pause(ctx, time.Now().Add(soon), quiet)
		}
		if err := s.pause(ctx, begun.Add(soon), 10*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the end of an Instance: %w", err)
		}
	}
}

// firstByte asks over a connection that is there and gives the time to the first byte of a right answer.
func firstByte(addr, path string) (time.Duration, error) {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(soon))
	began := time.Now()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, addr); err != nil {
		return 0, err
	}
	r := bufio.NewReader(c)
	if _, err := r.Peek(1); err != nil {
		return 0, err
	}
	took := time.Since(began)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return 0, errors.Join(err, fmt.Errorf("%s: %.300s", resp.Status, body.String()))
	}
	return took, nil
}

// reported reads where the time went from the newest REPORT lines.
func (b *bench) reported(ctx context.Context, data string, most int) ([]coldParts, error) {
	cmd := exec.CommandContext(ctx, b.ebb, "logs", "--data", data, "--since", "1h", "--tail", strconv.Itoa(10*most))
	cmd.Dir, cmd.Env = b.work, os.Environ()
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read the logs: %w", err)
	}
	var all []coldParts
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(line, "REPORT RequestId: "); ok {
			all = append(all, readReport(rest))
		}
	}
	return all[max(0, len(all)-most):], nil
}

// readReport reads the fields of a REPORT line that say where a cold start's time went.
func readReport(line string) coldParts {
	var p coldParts
	init := 0.0
	for field := range strings.SplitSeq(line, "\t") {
		name, value, _ := strings.Cut(field, ": ")
		ms, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " ms"), 64)
		if err != nil {
			continue
		}
		switch name {
		case "Queue":
			p.Queue = ms / 1e3
		case "Sandbox":
			p.Sandbox = ms / 1e3
		case "Init Duration":
			init = ms / 1e3
		case "Handler Init":
			p.Handler = ms / 1e3
		case "Duration":
			p.Invoke = ms / 1e3
		}
	}
	p.Runtime = init - p.Handler
	return p
}
