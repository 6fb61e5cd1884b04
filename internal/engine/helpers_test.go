package engine_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

// lab is an Engine over a fake Driver, with everything the Observer was told. Its methods may be called concurrently.
type lab struct {
	t      testing.TB
	e      *engine.Engine
	driver *fake.Driver
	stop   context.CancelFunc
	ran    sync.WaitGroup

	mu      sync.Mutex
	states  map[string][]engine.State // by Instance
	started map[string]int            // by Invocation
	reports []engine.Report
	ended   map[string]bool
	lines   []line
	busy    map[string]string // where an Invocation that has not ended was started
	most    int               // Invocations on one Instance
	after   []string          // Output labelled with an Invocation that had ended
}

type line struct{ instance, invocation, text string }

func newLab(t testing.TB, o engine.Options) *lab {
	l := &lab{
		t: t, driver: &fake.Driver{}, states: map[string][]engine.State{}, started: map[string]int{}, busy: map[string]string{}, ended: map[string]bool{},
	}
	o.Observer = l
	l.e = engine.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.ran.Go(func() { _ = l.e.Run(ctx) })
	return l
}

// bubble runs f with a fake clock and checks at the end that nothing is left.
func bubble(t *testing.T, o engine.Options, f func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, o)
		f(t, l)
		l.close()
	})
}

func (l *lab) close() {
	if err := l.e.Close(); err != nil {
		l.t.Errorf("Close: %v", err)
	}
	l.stop()
	l.ran.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.driver.Live.Load(); n != 0 {
		l.t.Errorf("%d sandboxes were never stopped", n)
	}
	for id, instance := range l.busy {
		l.t.Errorf("invocation %s never ended on %s", id, instance)
	}
	for id, s := range l.states {
		if s[len(s)-1] != engine.Stopped {
			l.t.Errorf("instance %s ended as %v", id, s)
		}
	}
	for _, r := range l.reports {
		if l.started[r.InvocationID] != 1 {
			l.t.Errorf("invocation %s was started %d times and ended", r.InvocationID, l.started[r.InvocationID])
		}
	}
	if len(l.reports) != len(l.started) {
		l.t.Errorf("%d invocations started and %d ended", len(l.started), len(l.reports))
	}
	for _, s := range l.after {
		l.t.Errorf("output after its invocation: %s", s)
	}
}

func (l *lab) InvocationStarted(_ *engine.Unit, instance string, inv *invocation.Invocation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started[inv.ID]++
	l.busy[inv.ID] = instance
	n := 0
	for _, other := range l.busy {
		if other == instance {
			n++
		}
	}
	l.most = max(l.most, n)
}

func (l *lab) Output(_ *engine.Unit, instance, id string, _ time.Time, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line{instance, id, string(text)})
	if l.ended[id] {
		l.after = append(l.after, string(text))
	}
}

func (l *lab) InvocationEnded(_ *engine.Unit, r engine.Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reports = append(l.reports, r)
	l.ended[r.InvocationID] = true
	delete(l.busy, r.InvocationID)
}

func (l *lab) InstanceChanged(_ *engine.Unit, instance string, s engine.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states[instance] = append(l.states[instance], s)
}

// unit is a Unit with one Function of the same name.
func (l *lab) unit(name, revision string, p *fake.Program) *engine.Unit {
	return &engine.Unit{
		ID: "default/app/dev/" + name, Revision: revision, Tenant: "default",
		Functions: []engine.Function{{Name: name, Timeout: 3 * time.Second}},
		MemoryMB:  128, Driver: l.driver, Protocol: fake.Protocol{Program: p},
		Guest: func(context.Context) (*guest.Unit, error) { return &guest.Unit{Function: name}, nil },
	}
}

func (l *lab) deploy(units ...*engine.Unit) {
	l.t.Helper()
	s, err := l.e.Stage(context.Background(), "app-dev", units, true)
	if err != nil {
		l.t.Fatalf("Stage: %v", err)
	}
	s.Commit()
}

var ids struct {
	sync.Mutex
	n int
}

func newID() string {
	ids.Lock()
	defer ids.Unlock()
	ids.n++
	return fmt.Sprintf("inv-%d", ids.n)
}

// result is what one Invoke came to.
type result struct {
	invocation.Buffer
	id  string
	err error
}

func (l *lab) invoke(ctx context.Context, function string) *result {
	r := &result{id: newID()}
	r.err = l.e.Invoke(ctx, &invocation.Invocation{
		ID: r.id, Tenant: "default", Function: function, Mode: invocation.ModeRequest, Payload: invocation.Raw("{}"),
	}, &r.Buffer)
	return r
}

// burst makes n calls at once and waits for all.
func (l *lab) burst(n int, function string) []*result {
	out := make([]*result, n)
	var wg sync.WaitGroup
	for k := range out {
		wg.Go(func() { out[k] = l.invoke(context.Background(), function) })
	}
	wg.Wait()
	return out
}

func (l *lab) good(r *result) {
	l.t.Helper()
	if r.err != nil || r.Head.Error != nil || !r.Started {
		l.t.Errorf("%s = %q, %+v, %v; want an answer", r.id, r.Body.String(), r.Head.Error, r.err)
	}
}

func (l *lab) cause(r *result, want invocation.Cause) {
	l.t.Helper()
	if r.err != nil || r.Head.Error == nil || r.Head.Error.Cause != want {
		l.t.Errorf("%s = %q, %+v, %v; want cause %s", r.id, r.Body.String(), r.Head.Error, r.err, want)
	}
}

func (l *lab) report(id string) engine.Report {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.reports {
		if r.InvocationID == id {
			return r
		}
	}
	l.t.Fatalf("no report of %s", id)
	return engine.Report{}
}

// output gives the lines labelled with the Invocation.
func (l *lab) output(id string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, n := range l.lines {
		if n.invocation == id {
			out = append(out, n.text)
		}
	}
	return out
}

func answer(d time.Duration) func(*fake.Guest, *invocation.Invocation) fake.Answer {
	return func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
		g.Sleep(d)
		return fake.Answer{Body: "ok"}
	}
}
