package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// fired is what became of one Trigger of a kind that can be set off from here.
type fired struct {
	Function string `json:"function"`
	Kind     string `json:"kind"`
	Ran      int    `json:"ran"`              // Invocations
	Failed   string `json:"failed,omitempty"` // the last failure: its kind of error or "timeout"
}

// soon is how far off a schedule's next slot may be to be waited for.
const soon = 125 * time.Second

// fireAll puts a message into each queue, publishes to each topic, puts a record into each stream, waits for the schedules that fire soon, and tells
// what ran. Functions are told from each other by their key, which is the end of their name.
func fireAll(ctx context.Context, o options, w *watcher, dir, data string) ([]fired, error) {
	var app struct {
		Name, Stage string
		Triggers    []struct {
			Function, Kind string
			Enabled        *bool
		}
	}
	if err := o.tell(ctx, &app, dir, "inspect", "."); err != nil {
		return nil, err
	}
	kinds := map[string]string{} // by function
	for _, t := range app.Triggers {
		if t.Enabled == nil || *t.Enabled {
			kinds[t.Function] = t.Kind
		}
	}
	before := w.counts()
	last, err := o.setOff(ctx, dir, data)
	if err != nil {
		return nil, err
	}
	var list []fired
	name := func(key string) string { return app.Name + "-" + app.Stage + "-" + key }
	for end := last.Add(o.call); ; time.Sleep(100 * time.Millisecond) {
		now, missing := w.counts(), 0
		list = nil
		for f, kind := range kinds {
			r := now[name(f)]
			list = append(list, fired{f, kind, r.n - before[name(f)].n, r.failed})
			if r.n == before[name(f)].n {
				missing++
			}
		}
		if missing == 0 || time.Now().After(end) {
			return list, nil
		}
	}
}

// setOff sends to all queues, topics and streams, and returns when the last slot of a schedule comes that is near.
func (o options) setOff(ctx context.Context, dir, data string) (last time.Time, _ error) {
	type named []struct{ Name string }
	var all struct {
		Queues, Topics, Streams named
		Schedules               []struct {
			Next []time.Time `json:"next"`
		}
	}
	last = time.Now()
	for _, args := range [][]string{{"queues", "ls"}, {"topics", "ls"}, {"streams", "ls"}, {"schedules", "-n", "1"}} {
		if err := o.tell(ctx, &all, dir, append(args, "--data", data)...); err != nil {
			return last, err
		}
	}
	for _, what := range []struct {
		names named
		args  []string
		fifo  []string
	}{
		{all.Queues, []string{"queues", "send"}, []string{"--group", "g", "--dedup", "d"}},
		{all.Topics, []string{"topics", "publish"}, []string{"--group", "g", "--dedup", "d"}},
		{all.Streams, []string{"streams", "put", "--partition-key", "k"}, nil},
	} {
		for _, n := range what.names {
			args := append([]string{}, what.args...)
			if strings.HasSuffix(n.Name, ".fifo") {
				args = append(args, what.fifo...)
			}
			if err := o.tell(ctx, nil, dir, append(args, n.Name, "-d", "{}", "--data", data)...); err != nil {
				return last, err
			}
		}
	}
	for _, s := range all.Schedules {
		if len(s.Next) > 0 && s.Next[0].After(last) && time.Until(s.Next[0]) < soon {
			last = s.Next[0]
		}
	}
	return last, nil
}

// tell runs a command of ebb in a folder and decodes what it prints.
func (o options) tell(ctx context.Context, into any, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, o.ebb, append([]string{"--json"}, args...)...)
	var said bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &said
	out, err := cmd.Output()
	if err == nil && into != nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		return fmt.Errorf("ebb %s: %w: %s", strings.Join(args, " "), err, cmp.Or(reason(said.String()), said.String()))
	}
	return nil
}

func (f fired) String() string {
	text := fmt.Sprintf("%s (%s): ran %d", f.Function, f.Kind, f.Ran)
	if f.Failed != "" {
		text += ", failed with " + f.Failed
	}
	return text
}
