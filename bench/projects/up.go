package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// outcome is what one run of a project showed.
type outcome struct {
	Up    bool    `json:"up"`
	Why   string  `json:"why,omitempty"` // it did not: the first line of the error
	Calls []call  `json:"calls,omitempty"`
	Cold  []start `json:"cold,omitempty"`  // the first of each function
	Later []start `json:"later,omitempty"` // those after it
	Fired []fired `json:"fired,omitempty"` // what was set off besides calls
}

// call is one answer.
type call struct {
	What   string `json:"what"`
	Status int    `json:"status"`          // 0 where none came
	Error  string `json:"error,omitempty"` // errorType of a direct Invocation
}

// start is what a REPORT line says of a cold start, in ms.
type start struct {
	Function string  `json:"function"`
	Queue    float64 `json:"queue"`
	Sandbox  float64 `json:"sandbox"`
	Runtime  float64 `json:"runtime"`
	Handler  float64 `json:"handler"`
}

func (s start) total() float64 { return s.Queue + s.Sandbox + s.Runtime + s.Handler }

// ready is the event of that name.
type ready struct {
	Gateway   string `json:"gateway"`
	API       string `json:"api"`
	Functions []struct {
		Name string `json:"name"`
	} `json:"functions"`
	Routes []struct{ Method, Path, Function string } `json:"routes"`
}

// up runs one project in one way and stops it.
func up(ctx context.Context, o options, work, dir, isolation string) outcome {
	data, err := os.MkdirTemp(work, "data-")
	if err != nil {
		return outcome{Why: err.Error()}
	}
	defer os.RemoveAll(data)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.ebb, "up", "--json", "--no-watch", "--allow-unprotected", "--listen", "127.0.0.1:0", "--isolation", isolation, "--data", data)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	var said bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &said
	if o.again > 0 { // nearly every call is a cold start then
		cmd.Env = append(os.Environ(), "EBB_KEEP_ALIVE=10ms", "EBB_FREEZE_AFTER=never")
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return outcome{Why: err.Error()}
	}
	w := &watcher{ready: make(chan ready, 1), ended: make(chan struct{})}
	go w.run(out)
	var result outcome
	select {
	case r := <-w.ready:
		token, _ := os.ReadFile(filepath.Join(data, "token"))
		result.Up, result.Calls = true, callAll(ctx, o, r, strings.TrimSpace(string(token)))
		w.wait(len(r.Functions))
		if o.fire {
			if result.Fired, err = fireAll(ctx, o, w, dir, data); err != nil {
				result.Why = err.Error()
			}
		}
		for range o.again {
			for _, f := range r.Functions {
				time.Sleep(between)
				_, _ = answer(ctx, o, http.MethodPost, r.API+"/v1/functions/"+f.Name+"/invocations", strings.TrimSpace(string(token)))
			}
		}
	case <-w.ended:
	case <-time.After(o.start):
		result.Why = "not within " + o.start.String()
	}
	cancel()
	<-w.ended
	_ = cmd.Wait() // an exit code says nothing that is not seen here
	if !result.Up && result.Why == "" {
		result.Why = reason(said.String())
	}
	result.Cold, result.Later = w.starts(), w.mu.later
	return result
}

// between lies between two cold starts that are measured, so that the end of one is over and what was taken for it is there again.
const between = 600 * time.Millisecond

// reason finds what ended ebb among what it said.
func reason(said string) string {
	for _, l := range strings.Split(said, "\n") {
		if strings.Contains(l, "error: ") && !strings.HasPrefix(l, "npm ") {
			return strings.TrimPrefix(l, "ebb: error: ")
		}
	}
	return "no reason given"
}

// watcher reads the events of one ebb.
type watcher struct {
	ready chan ready
	ended chan struct{} // closed after the last event

	mu struct {
		sync.Mutex
		seen  map[string]bool // functions
		list  []start
		later []start
		runs  map[string]runs // by function
	}
}

// runs are what reports told of a function.
type runs struct {
	n      int
	failed string // the last failure
}

func (w *watcher) run(r io.Reader) {
	defer close(w.ended)
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var e struct{ Event, Function, Kind, Text string }
		switch _ = json.Unmarshal(line, &e); {
		case e.Event == "ready":
			var r ready
			if json.Unmarshal(line, &r) == nil {
				w.ready <- r
			}
		case e.Event == "log" && e.Kind == "report":
			w.report(e.Function, e.Text)
		}
	}
}

var field = regexp.MustCompile(`(Init Duration|Queue|Sandbox|Handler Init): ([0-9.]+) ms`)

var failure = regexp.MustCompile(`Status: (\w+)(?:\tError Type: (\S+))?`)

// report keeps what a cold start of a function cost.
func (w *watcher) report(function, text string) {
	v := map[string]float64{}
	for _, m := range field.FindAllStringSubmatch(text, -1) {
		v[m[1]], _ = strconv.ParseFloat(m[2], 64)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.seen == nil {
		w.mu.seen, w.mu.runs = map[string]bool{}, map[string]runs{}
	}
	r := runs{w.mu.runs[function].n + 1, ""}
	if m := failure.FindStringSubmatch(text); m != nil {
		r.failed = cmp.Or(m[2], m[1])
	}
	w.mu.runs[function] = r
	if v["Init Duration"] == 0 {
		return
	}
	s := start{function, v["Queue"], v["Sandbox"], v["Init Duration"] - v["Handler Init"], v["Handler Init"]}
	if w.mu.seen[function] {
		w.mu.later = append(w.mu.later, s)
		return
	}
	w.mu.seen[function] = true
	w.mu.list = append(w.mu.list, s)
}

// wait gives the last reports, which come after their answers, a moment to arrive.
func (w *watcher) wait(functions int) {
	for range 50 {
		if len(w.starts()) >= functions {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *watcher) starts() []start {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.list
}

func (w *watcher) counts() map[string]runs {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.mu.runs)
}

var hole = regexp.MustCompile(`\{[^}]*\}|\*`)

// callAll calls every route, then every function directly with an empty object.
func callAll(ctx context.Context, o options, r ready, token string) []call {
	var list []call
	for _, route := range r.Routes {
		method := route.Method
		if method == "ANY" || method == "*" {
			method = http.MethodGet
		}
		path := "/" + strings.TrimPrefix(hole.ReplaceAllString(route.Path, "x1"), "/")
		c, _ := answer(ctx, o, method, r.Gateway+path, "")
		c.What = method + " " + path
		list = append(list, c)
	}
	for _, f := range r.Functions {
		c, body := answer(ctx, o, http.MethodPost, r.API+"/v1/functions/"+f.Name+"/invocations", token)
		var failed struct {
			ErrorType string `json:"errorType"`
		}
		_ = json.Unmarshal(body, &failed)
		c.What, c.Error = f.Name, failed.ErrorType
		list = append(list, c)
	}
	return list
}

func answer(ctx context.Context, o options, method, url, token string) (call, []byte) {
	ctx, cancel := context.WithTimeout(ctx, o.call)
	defer cancel()
	var body io.Reader
	if method != http.MethodGet && method != http.MethodHead {
		body = strings.NewReader("{}")
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return call{}, nil
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return call{}, nil
	}
	defer resp.Body.Close()
	all, _ := io.ReadAll(io.LimitReader(resp.Body, 6<<20))
	return call{Status: resp.StatusCode}, all
}
