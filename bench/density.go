package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Density is what many idle Instances take together, in MiB.
type Density struct {
	Handler   string  `json:"handler"`
	Instances int     `json:"instances"`
	Guests    float64 `json:"guestsPSS"`  // their processes, helpers included
	Host      float64 `json:"hostGrowth"` // PSS of ebb itself, beyond what it had without them
	Machine   float64 `json:"machine"`    // by which the machine's available memory fell: cgroups, namespaces and page tables included
	Frozen    bool    `json:"frozen"`
	NotRun    string  `json:"notRun,omitempty"`
}

// density starts many Instances of each handler by provisioned concurrency and reads what they take once they are idle.
func (b *bench) density(ctx context.Context) error {
	for _, h := range handlers() {
		if h.name == "go-http" || h.name == "node-sdk" {
			continue
		}
		for _, frozen := range []bool{false, true} {
			if frozen && h.name != "python" {
				continue
			}
			b.say("memory of %d Instances: %s, frozen: %v", b.o.density, h.what, frozen)
			d := Density{Handler: h.name, Instances: b.o.density, Frozen: frozen}
			if err := b.dense(ctx, h, &d); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				d.NotRun = err.Error()
			}
			b.report.Density = append(b.report.Density, d)
		}
	}
	return nil
}

func (b *bench) dense(ctx context.Context, h handler, d *Density) error {
	dir := filepath.Join(b.work, fmt.Sprintf("app-dense-%s-%v", h.name, d.Frozen))
	if err := os.CopyFS(dir, os.DirFS(b.app(h.name))); err != nil {
		return err
	}
	file := filepath.Join(dir, "serverless.yml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	more := fmt.Sprintf("  hello:\n    provisionedConcurrency: %d\n", d.Instances)
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "  hello:\n", more, 1)), 0o644); err != nil {
		return err
	}
	data, freeze := dir+"-data", "never"
	if d.Frozen {
		freeze = "100ms"
	}
	s, err := b.launch(b.work, nil, true, b.ebb, "serve", "--data", data, "--listen", "127.0.0.1:0", "--memory", "65536", "--freeze-after", freeze, "--json")
	if err != nil {
		return err
	}
	defer s.stop()
	if _, err := s.event(ctx); err != nil {
		return err
	}
	if err := s.pause(ctx, time.Now().Add(soon), time.Second); err != nil {
		return err
	}
	before, _, err := memory(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	free := available()
	if err := b.command(ctx, "deploy", dir, "--data", data); err != nil {
		return err
	}
	const each = 2 // the helper, and the guest
	for deadline := time.Now().Add(4 * soon); len(descendants(s.cmd.Process.Pid)) < each*d.Instances; {
		if err := s.pause(ctx, deadline, 100*time.Millisecond); err != nil {
			return fmt.Errorf("%d processes of %d came: %w", len(descendants(s.cmd.Process.Pid)), each*d.Instances, err)
		}
	}
	if err := s.pause(ctx, time.Now().Add(2*settle), settle); err != nil {
		return err
	}
	d.Machine = free - available()
	after, _, err := memory(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	d.Host = after - before
	for _, pid := range descendants(s.cmd.Process.Pid) {
		if pss, _, err := memory(pid); err == nil {
			d.Guests += pss
		}
	}
	return nil
}

// available is what the machine could still give to programs, in MiB.
func available() float64 {
	text, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(text)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}
