// Command projects runs every project below a folder with `ebb up`, isolated and not, calls all that it has, and prints where the two
// differ and what the first Invocation of each function cost.
//
// An answer is compared by its status and, of a direct Invocation, by its kind of error: bodies tell of times and identifiers. Projects
// are run one after the other and as they stand; their dependencies are installed into them as `ebb up` does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// options are what the flags say.
type options struct {
	ebb, only string
	start     time.Duration // for a project to come up
	call      time.Duration // for an answer
	plain     bool
	again     int // direct calls of each function, after the others
	fire      bool
	json      string
}

// result is what became of one project.
type result struct {
	Project  string    `json:"project"`
	Isolated outcome   `json:"isolated"`
	Plain    *outcome  `json:"plain,omitempty"`
	Differs  []string  `json:"differs,omitempty"`
	Took     []float64 `json:"seconds"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	flag.StringVar(&o.ebb, "ebb", "", "the ebb binary (default: built from this tree)")
	flag.StringVar(&o.only, "only", "", "only projects whose path contains this")
	flag.DurationVar(&o.start, "start", 3*time.Minute, "how long a project may take to come up")
	flag.DurationVar(&o.call, "call", 10*time.Second, "how long an answer may take")
	flag.BoolVar(&o.plain, "plain", true, "run them without isolation too, and compare")
	flag.IntVar(&o.again, "again", 0, "call each function so often again, every time as a cold start: Instances are not kept then")
	flag.BoolVar(&o.fire, "fire", false, "set off triggers too: send to every queue, topic and stream, and wait for schedules that fire within two minutes")
	flag.StringVar(&o.json, "json", "", "write everything that was seen to this file")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./bench/projects [flags] DIR")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(ctx, o, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "projects: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, dir string) error {
	work, err := os.MkdirTemp("", "ebb-projects-")
	if err != nil {
		return fmt.Errorf("make the working folder: %w", err)
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil { // users of Sandboxes go through it
		return err
	}
	if o.ebb == "" {
		o.ebb = filepath.Join(work, "ebb")
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", o.ebb, "./cmd/ebb")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build ebb: %w\n%s", err, out)
		}
	} else if o.ebb, err = filepath.Abs(o.ebb); err != nil {
		return err
	}
	list, err := find(dir, o.only)
	if err != nil {
		return err
	}
	var all []result
	for _, p := range list {
		r := one(ctx, o, work, dir, p)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Println(r)
		all = append(all, r)
	}
	conclude(all)
	if o.json == "" {
		return nil
	}
	b, err := json.MarshalIndent(all, "", " ")
	return errors.Join(err, os.WriteFile(o.json, b, 0o644))
}

// find returns the folders below dir that hold a project for AWS, by path from there. One inside another is a project of its own.
func find(dir, only string) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || !isProject(path):
			return nil
		}
		p, err := filepath.Rel(dir, filepath.Dir(path))
		if err == nil && strings.Contains(p, only) && !slices.Contains(list, p) {
			list = append(list, p)
		}
		return err
	})
	return list, err
}

// forAWS tells such project files from those for other clouds.
var forAWS = regexp.MustCompile(`name:? *['"]?aws|provider: *aws`)

func isProject(path string) bool {
	name := filepath.Base(path)
	ext := filepath.Ext(name)
	if strings.TrimSuffix(name, ext) != "serverless" || !slices.Contains([]string{".yml", ".yaml", ".json", ".ts", ".js"}, ext) {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && forAWS.Match(text)
}

func one(ctx context.Context, o options, work, dir, project string) result {
	begun := time.Now()
	r := result{Project: project, Isolated: up(ctx, o, work, filepath.Join(dir, project), "auto")}
	r.Took = append(r.Took, time.Since(begun).Seconds())
	if !o.plain {
		return r
	}
	begun = time.Now()
	plain := up(ctx, o, work, filepath.Join(dir, project), "none")
	r.Took = append(r.Took, time.Since(begun).Seconds())
	r.Plain, r.Differs = &plain, differ(r.Isolated, plain)
	return r
}

// differ compares two runs of a project.
func differ(isolated, plain outcome) []string {
	if isolated.Up != plain.Up {
		return []string{fmt.Sprintf("comes up: isolated %t (%s), plain %t (%s)", isolated.Up, isolated.Why, plain.Up, plain.Why)}
	}
	var list []string
	for i, a := range isolated.Calls {
		if b := plain.Calls[i]; a.Status != b.Status || a.Error != b.Error {
			list = append(list, fmt.Sprintf("%s: isolated %d %s, plain %d %s", a.What, a.Status, a.Error, b.Status, b.Error))
		}
	}
	return list
}

func (r result) String() string {
	text := "same"
	switch {
	case len(r.Differs) > 0:
		text = "differs\n    " + strings.Join(r.Differs, "\n    ")
	case !r.Isolated.Up:
		text = "does not come up: " + r.Isolated.Why
	case r.Plain == nil:
		text = "comes up"
	}
	if r.Isolated.Up && r.Isolated.Why != "" {
		text += "\n    " + r.Isolated.Why
	}
	for _, f := range r.Isolated.Fired {
		text += "\n    " + f.String()
	}
	return fmt.Sprintf("%-60s %s", r.Project, text)
}

// conclude prints the totals and the cold starts.
func conclude(all []result) {
	var isolated, plain, differing int
	var cold, later []start
	for _, r := range all {
		if r.Isolated.Up {
			isolated++
		}
		if r.Plain != nil && r.Plain.Up {
			plain++
		}
		if len(r.Differs) > 0 {
			differing++
		}
		cold, later = append(cold, r.Isolated.Cold...), append(later, r.Isolated.Later...)
	}
	fmt.Printf("\n%d projects; %d come up isolated, %d without isolation; %d differ\n", len(all), isolated, plain, differing)
	slowest("the first cold starts, of each function", cold)
	slowest("the cold starts after those", later)
}

// slowest prints how long cold starts took, and the parts of the slowest.
func slowest(what string, cold []start) {
	if len(cold) == 0 {
		return
	}
	slices.SortFunc(cold, func(a, b start) int { return int((a.total() - b.total()) * 1000) })
	rank := func(p float64) float64 { return cold[int(p*float64(len(cold)-1)+0.5)].total() }
	under := 0
	for _, s := range cold {
		if s.total() <= 100 {
			under++
		}
	}
	fmt.Printf("%s: %d, isolated; p50 %.0f ms, p95 %.0f ms, most %.0f ms; %d in at most 100 ms; the slowest:\n", what, len(cold), rank(0.5), rank(0.95), rank(1), under)
	fmt.Printf("%9s %9s %9s %9s %9s\n", "all, ms", "queue", "sandbox", "runtime", "handler")
	for i := range min(10, len(cold)) {
		s := cold[len(cold)-1-i]
		fmt.Printf("%9.1f %9.1f %9.1f %9.1f %9.1f  %s\n", s.total(), s.Queue, s.Sandbox, s.Runtime, s.Handler, s.Function)
	}
}
