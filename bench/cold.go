package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// handler is a function whose cold start is measured.
type handler struct {
	name    string // folder in bench/apps
	what    string
	runtime string
	entry   string
	target  float64 // of ebb's p50, in ms; 0 for none
	pooled  float64 // the same once there are pools to take Instances from
	ready   int     // programs that ebb holds ready when one of them becomes the next Instance; a zygote is one, its copy another
}

func handlers() []handler {
	return []handler{
		{"go", "Go (aws-lambda-go)", "provided.al2023", "bootstrap", 10, 10, 0},
		{"go-http", "Go (net/http alone)", "provided.al2023", "bootstrap", 10, 10, 0},
		{"python", "Python", "python3.13", "handler.hello", 40, 8, 2},
		{"node", "Node", "nodejs22.x", "handler.hello", 70, 10, 1},
		{"node-sdk", "Node + AWS SDK", "nodejs22.x", "handler.hello", 0, 90, 1},
	}
}

func handlerNames() (all []string) {
	for _, h := range handlers() {
		all = append(all, h.name)
	}
	return all
}

// skipped reports whether a handler is not to be measured.
func (b *bench) skipped(h handler) bool {
	return len(b.o.only) > 0 && !slices.Contains(b.o.only, h.name)
}

// quiet lies between two cold starts, so that the end of one is not a part of the next.
const quiet = 40 * time.Millisecond

// Cold is every cold start of one handler in one way. Times are in seconds, from the assignment to the first byte of the answer.
type Cold struct {
	Handler string      `json:"handler"`
	Way     string      `json:"way"`
	All     []float64   `json:"seconds"`
	Parts   []coldParts `json:"parts,omitempty"`
	NotRun  string      `json:"notRun,omitempty"`
}

// coldParts is where the time of a cold start went, in seconds.
type coldParts struct {
	Queue   float64 `json:"queue"`       // prepare the Sandbox where the driver is measured
	Sandbox float64 `json:"sandbox"`     // until the guest's program runs
	Runtime float64 `json:"runtimeInit"` // from then on until it loads the handler
	Handler float64 `json:"handlerInit"`
	Invoke  float64 `json:"invoke"`
}

// cold measures cold starts and the memory of many Instances.
func (b *bench) cold(ctx context.Context, out io.Writer) error {
	if err := b.coldSetUp(ctx); err != nil {
		return err
	}
	proto, err := lambda.New(filepath.Join(b.work, "bootstraps"))
	if err != nil {
		return err
	}
	since, busy, own := time.Now(), busyTime(), ownTime()
	if err := b.coldGuests(ctx, proto); err != nil {
		return err
	}
	if err := b.coldServed(ctx); err != nil {
		return err
	}
	b.report.Others = max(0, (busyTime()-busy)-(ownTime()-own)) / time.Since(since).Seconds() / float64(cpus())
	if b.o.density > 0 {
		if err := b.density(ctx); err != nil {
			return err
		}
	}
	b.report.concludeCold()
	b.report.Took = time.Since(since).Seconds()
	b.report.printCold(out, b.o.markdown)
	return nil
}

// coldSetUp builds ebb and the handlers, each into a folder that can be deployed.
func (b *bench) coldSetUp(ctx context.Context) error {
	b.say("build ebb and the handlers")
	builds := []struct{ dir, out, pkg string }{
		{filepath.Join(b.root, "bench", "apps", "go"), filepath.Join(b.app("go"), "bootstrap"), "."},
		{b.root, filepath.Join(b.app("go-http"), "bootstrap"), "./bench/apps/go-http"},
	}
	if b.ebb = b.o.ebb; b.ebb == "" {
		b.ebb = filepath.Join(b.work, "ebb")
		builds = append(builds, struct{ dir, out, pkg string }{b.root, b.ebb, "./cmd/ebb"})
	}
	for _, g := range builds {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", g.out, g.pkg)
		cmd.Dir, cmd.Env = g.dir, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", g.pkg, err, out)
		}
	}
	for _, h := range handlers() {
		if err := os.CopyFS(b.app(h.name), os.DirFS(filepath.Join(b.root, "bench", "apps", h.name))); err != nil {
			return fmt.Errorf("copy the %s app: %w", h.name, err)
		}
	}
	if err := b.writeEtc(); err != nil {
		return err
	}
	if err := b.bundleSDK(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.absent["node-sdk"] = err.Error()
	}
	return os.Chmod(b.work, 0o755) // users of Sandboxes go through it
}

// bundle is what the Node handler with the AWS SDK is made of.
var bundle = peer{"aws-sdk", []string{"@aws-sdk/client-dynamodb@3.940.0", "@aws-sdk/lib-dynamodb@3.940.0", "esbuild@0.25.12"}}

// bundleSDK makes one file of the handler and the SDK, unminified, which has 1.3 MB.
func (b *bench) bundleSDK(ctx context.Context) error {
	if err := b.install(ctx, bundle); err != nil {
		return err
	}
	dir := b.folder(bundle.name)
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "node_modules", ".bin", "esbuild"), filepath.Join(b.app("node-sdk"), "handler.mjs"),
		"--bundle", "--platform=node", "--target=node20", "--format=cjs", "--log-level=error", "--outfile="+filepath.Join(b.app("node-sdk"), "handler.js"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("bundle the SDK: %w: %s", err, out)
	}
	return nil
}

// unit is what ebb would start for a handler.
func (b *bench) unit(ctx context.Context, h handler, mounts bool) (*guest.Unit, error) {
	u := &guest.Unit{
		Function: "bench-" + h.name, Version: "$LATEST", ARN: "arn:aws:lambda:us-east-1:000000000000:function:bench-" + h.name, Runtime: h.runtime,
		Handler: h.entry, Root: b.app(h.name), MemoryMB: 128, Timeout: 6 * time.Second, Region: "us-east-1", Account: "000000000000",
		LogGroup: "/aws/lambda/bench", LogStream: "bench", Mounts: mounts,
	}
	found, err := runtimes.New(os.LookupEnv).Resolve(ctx, h.runtime)
	u.Interpreter = found.Command
	if mounts {
		u.Compiled = filepath.Join(b.work, "compiled", h.name)
	}
	return u, err
}

// coldOf finds or makes the row of a handler and a way.
func (r *report) coldOf(handler, way string) *Cold {
	i := slices.IndexFunc(r.Cold, func(c *Cold) bool { return c.Handler == handler && c.Way == way })
	if i < 0 {
		i = len(r.Cold)
		r.Cold = append(r.Cold, &Cold{Handler: handler, Way: way})
	}
	return r.Cold[i]
}
