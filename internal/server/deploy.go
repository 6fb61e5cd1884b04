package server

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/gateway"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/policy"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/state"
)

// stackTable is what this Node serves, by Stack.
type stackTable struct {
	deploy sync.Mutex // one deploy at a time on this Node; other Nodes are kept out by compare-and-set
	mu     struct {
		sync.RWMutex
		serving map[state.StackKey]*serving
	}
}

// serving is one Stack as this Node serves it; immutable.
type serving struct {
	deployment string
	changed    time.Time
	functions  []api.FunctionInfo // URL is a path
	broken     string             // why it does not serve
	triggers   int                // that its App declares
	declared   int                // Resources that are something on the bus
	streams    int                // that it declares, and mappings
	buses      []string           // that its App declares
	rules      []string           // that its App declares, as their notes would be called
	roles      map[string]*role   // by the functions' full names

	shared map[thing]policy.Policy // what its App lets others do
}

func (t *stackTable) get(k state.StackKey) *serving {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.serving[k]
}

func (t *stackTable) set(k state.StackKey, s *serving) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.serving == nil {
		t.mu.serving = map[state.StackKey]*serving{}
	}
	if s == nil {
		delete(t.mu.serving, k)
	} else {
		t.mu.serving[k] = s
	}
}

func (t *stackTable) all() map[state.StackKey]*serving {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make(map[state.StackKey]*serving, len(t.mu.serving))
	for k, v := range t.mu.serving {
		out[k] = v
	}
	return out
}

func stackID(k state.StackKey) string { return k.Tenant + "/" + k.App + "/" + k.Stage }

// restore serves again what was current. A Stack that cannot be restored is reported and does not keep the others down.
func (s *Server) restore(ctx context.Context) error {
	keys, err := s.state.Stacks(ctx)
	if err != nil {
		return fmt.Errorf("restore deployments: %w", err)
	}
	for _, k := range keys {
		p, err := s.state.Current(ctx, k)
		if errs.CodeOf(err) == errs.NotFound {
			continue // written, and killed before it became current
		}
		if err == nil {
			err = s.restoreStack(ctx, k, p)
		}
		if err != nil {
			s.o.Log.Error("a deployment cannot be restored", "app", k.App, "stage", k.Stage, "error", err)
			s.stacks.set(k, &serving{deployment: p.Deployment, changed: p.Changed, broken: err.Error()})
		}
	}
	s.collectSoon()
	return nil
}

func (s *Server) restoreStack(ctx context.Context, k state.StackKey, p state.Pointer) error {
	d, err := s.state.Deployment(ctx, k, p.Deployment)
	if err != nil {
		return err
	}
	if err := s.checkLocal(d.App); err != nil {
		return err // deployed before it was refused
	}
	staged, err := s.engine.Stage(ctx, stackID(k), s.units(stored(d), d), false)
	if err != nil {
		return err
	}
	if err := s.serve(d, p, staged); err != nil {
		return err
	}
	s.poll(d)
	return nil
}

// serve swaps engine and gateway to a Deployment that is already durable.
func (s *Server) serve(d *state.Deployment, p state.Pointer, staged *engine.Staged) error {
	staged.Commit()
	if err := s.gateway.Mount(s.mount(d)); err != nil {
		return fmt.Errorf("mount routes: %w", err)
	}
	now := &serving{deployment: d.ID, changed: p.Changed, triggers: len(d.App.Triggers), declared: declaredOnBus(d.App), streams: declaredStreams(d.App), buses: s.declaredBuses(d), roles: s.resolver(d).roles(), shared: s.resolver(d).shared()}
	for _, r := range s.declaredRules(d) {
		now.rules = append(now.rules, r.NoteName())
	}
	for _, f := range d.App.Functions {
		info := api.FunctionInfo{Name: f.Name, Key: f.Key, Handler: f.Handler, Runtime: f.Runtime}
		for _, u := range d.Units {
			if u.Key == f.Key {
				info.Revision = u.Revision
			}
		}
		if f.URL != nil {
			info.URL = "/_url/" + f.Key + "/"
		}
		now.functions = append(now.functions, info)
	}
	s.stacks.set(d.Stack, now)
	s.overlayOld(d)
	s.trash.used(d)
	return nil
}

func (s *Server) mount(d *state.Deployment) gateway.Mount {
	r := s.resolver(d)
	return gateway.Mount{
		Tenant: d.Stack.Tenant, App: d.App, Account: s.o.Config.Account, Region: region(d.App),
		StageVars: func(v app.Value) (string, error) { return v.Resolve(r.values()) },
	}
}

// Deploy makes an App current: records first, then the first Instances, then one pointer, then the traffic.
func (s *Server) Deploy(ctx context.Context, req api.DeployRequest) (*api.Deployed, error) {
	out, err := s.deploy(ctx, req)
	if err != nil {
		s.metrics.Deploy("failed")
	}
	return out, err
}

func (s *Server) deploy(ctx context.Context, req api.DeployRequest) (*api.Deployed, error) {
	start := time.Now()
	d, warnings, err := s.newDeployment(ctx, req)
	if err != nil {
		return nil, err
	}
	s.stacks.deploy.Lock()
	defer s.stacks.deploy.Unlock()
	if err := s.checkNames(d); err != nil {
		return nil, err
	}
	// Routes that cannot be mounted are found before anything is written.
	if err := gateway.New(gateway.Options{Log: s.o.Log, Invoker: invoker{s}}).Mount(s.mount(d)); err != nil {
		return nil, err
	}
	before, err := s.state.Current(ctx, d.Stack)
	first := errs.CodeOf(err) == errs.NotFound
	if err != nil && !first {
		return nil, err
	}
	if now := s.stacks.get(d.Stack); !first && now != nil && now.broken == "" && now.deployment == before.Deployment {
		// Sending the same again changes nothing, and makes no history.
		if same, err := s.same(ctx, before, d); err != nil {
			return nil, err
		} else if same {
			d.ID = before.Deployment
			out := s.deployed(d, before.Deployment, []string{}, start)
			out.Warnings = append(warnings, s.followed(ctx, d, now)...) // the bus may not have followed it the first time
			return out, nil
		}
	}
	was := s.stacks.get(d.Stack)
	changed := changedUnits(was, d)
	// What does not start leaves no record: a rollback must only find what has served. Until the record is there, the
	// first Instances read the Deployment from memory.
	ref := &deploymentRef{}
	ref.held.Store(d)
	staged, err := s.engine.Stage(ctx, stackID(d.Stack), s.units(ref, d), !first)
	if err != nil {
		return nil, notStarted(err, d.Stack)
	}
	d.Parent = before.Deployment
	if err := s.state.Put(ctx, d); err != nil {
		staged.Abort()
		return nil, fmt.Errorf("keep deployment: %w", err)
	}
	ref.store(d)
	p, err := s.setCurrent(ctx, d.Stack, d.ID, before.Seq)
	if err != nil {
		staged.Abort()
		return nil, fmt.Errorf("make deployment current: %w", err)
	}
	if err := s.serve(d, p, staged); err != nil {
		return nil, err
	}
	warnings = append(warnings, s.followed(ctx, d, was)...)
	s.unpack(ctx, d)
	s.rehearse(d, changed)
	s.metrics.Deploy("ok")
	out := s.deployed(d, before.Deployment, changed, start)
	for _, fail := range staged.Failures() {
		first, _, _ := strings.Cut(notStarted(fail, d.Stack).Error(), "\n")
		warnings = append(warnings, first)
	}
	out.Warnings = warnings
	s.collectSoon()
	return out, nil
}

// unpack puts everything that Instances run from on disk, which of a large node_modules takes seconds, so that no first Invocation
// waits for it. One that comes meanwhile does; what fails is tried again, and told, when an Instance starts.
func (s *Server) unpack(ctx context.Context, d *state.Deployment) {
	for _, u := range d.Units {
		opt, _ := s.opt(u)
		for _, digest := range []string{u.Code, opt, u.Supplied} {
			if digest != "" {
				_, _ = s.artifacts.Materialise(ctx, digest)
			}
		}
	}
}

// setCurrent moves the pointer. When the answer got lost it may have moved all the same: then the pointer itself says.
func (s *Server) setCurrent(ctx context.Context, k state.StackKey, id string, expect uint64) (state.Pointer, error) {
	p, err := s.state.SetCurrent(ctx, k, id, expect)
	if code := errs.CodeOf(err); err == nil || code == errs.Conflict || code == errs.NotFound {
		return p, err
	}
	if now, readErr := s.state.Current(ctx, k); readErr == nil && now.Deployment == id {
		return now, nil
	}
	return p, err
}

// notStarted names Functions as people know them, where the engine names Units.
func notStarted(err error, k state.StackKey) error {
	hint := errs.HintOf(err)
	if hint == "" {
		hint = "Mend it and deploy again; the deployment before it stays current."
	}
	return &errs.Error{Code: errs.CodeOf(err), Msg: strings.ReplaceAll(err.Error(), stackID(k)+"/", "function "), Hint: hint}
}

// same says whether d is what the pointer leads to.
func (s *Server) same(ctx context.Context, p state.Pointer, d *state.Deployment) (bool, error) {
	cur, err := s.state.Deployment(ctx, d.Stack, p.Deployment)
	if err != nil {
		return false, err
	}
	type content struct {
		App   *app.App
		Units []state.Unit
	}
	a, errA := json.Marshal(content{cur.App, cur.Units})
	b, errB := json.Marshal(content{d.App, d.Units})
	return bytes.Equal(a, b), errors.Join(errA, errB)
}

func (s *Server) deployed(d *state.Deployment, previous string, changed []string, start time.Time) *api.Deployed {
	now := s.stacks.get(d.Stack)
	return &api.Deployed{
		App: d.Stack.App, Stage: d.Stack.Stage, Deployment: d.ID, Previous: previous, Changed: changed, Gateway: s.stackURL(d.Stack),
		Functions: s.functions(d.Stack, now, s.kept()), Routes: s.routes(d.Stack), DurationMS: time.Since(start).Milliseconds(),
	}
}

// newDeployment checks what a client sent and gives each Function its Revision.
func (s *Server) newDeployment(ctx context.Context, req api.DeployRequest) (*state.Deployment, []string, error) {
	if faults := req.App.Validate(); len(faults) > 0 {
		return nil, nil, errs.New(errs.Invalid, "%s", strings.Join(faults, "; "))
	}
	if err := s.checkStrong(ctx, req.App); err != nil {
		return nil, nil, err
	}
	if err := s.checkLocal(req.App); err != nil {
		return nil, nil, err
	}
	d := &state.Deployment{
		Stack:   state.StackKey{Tenant: tenant, App: req.App.Name, Stage: req.App.Stage},
		Created: time.Now().UTC(), By: req.By, Message: req.Message, App: req.App,
	}
	for i := range req.App.Functions {
		f := &req.App.Functions[i]
		j := slices.IndexFunc(req.Units, func(u api.Unit) bool { return u.Key == f.Key })
		if j < 0 {
			return nil, nil, errs.New(errs.Invalid, "no code was sent for function %q", f.Key)
		}
		u := req.Units[j]
		for _, digest := range append([]string{u.Code, u.Supplied}, u.Layers...) {
			if digest == "" && digest != u.Code {
				continue
			}
			if _, err := s.artifacts.Manifest(digest); err != nil {
				return nil, nil, fmt.Errorf("function %s: %w", f.Key, err)
			}
		}
		su := state.Unit{Key: u.Key, Code: u.Code, Layers: u.Layers, Supplied: u.Supplied, Runtime: u.Runtime, Handler: u.Handler}
		var err error
		if su.Opt, err = s.overlay(su); err != nil {
			return nil, nil, fmt.Errorf("function %s: %w", f.Key, err)
		}
		d.Units = append(d.Units, su)
	}
	warnings := s.declareSecrets(ctx, d) // before the variables that show them
	r := s.resolver(d)
	noted := map[string]bool{}
	var unsets []unset
	lacking := map[unset][]string{} // keys of Functions
	for i := range req.App.Functions {
		env, left := r.env(&req.App.Functions[i])
		for _, u := range left {
			if !slices.Contains(unsets, u) {
				unsets = append(unsets, u)
			}
			lacking[u] = append(lacking[u], req.App.Functions[i].Key)
		}
		d.Units[i].Revision = s.revision(&req.App.Functions[i], d.Units[i], env, region(d.App))
		// What cannot run at all is said when it is called: the App's other Functions may well run.
		found, err := s.runtimes.Resolve(ctx, d.Units[i].Runtime)
		note := found.Note
		if err != nil {
			note = fmt.Sprintf("function %s will not run: %v", req.App.Functions[i].Key, err)
		}
		if note != "" && !noted[note] {
			noted[note] = true
			warnings = append(warnings, note)
		}
	}
	warnings = append(append(warnings, s.unreachable(d)...), s.withheld(d)...)
	for _, u := range unsets {
		warnings = append(warnings, fmt.Sprintf("variable %s of %s is left unset: %s", u.name, strings.Join(lacking[u], ", "), u.why))
	}
	return d, append(warnings, s.unkept(req.App)...), nil
}

// revision is the digest of code and configuration: what makes an Instance of one Function differ from another. What its
// variables resolve to is part of it, so it is keyed: a digest must not help to guess a secret.
func (s *Server) revision(f *app.Function, u state.Unit, env []string, region string) string {
	conf := *f
	conf.Description, conf.Package, conf.Tags, conf.Async, conf.URL = "", app.Package{}, nil, nil, nil
	conf.Provisioned, conf.Schedule = 0, nil // Instances outlive a change of their number
	mac := hmac.New(sha256.New, s.key)
	if err := json.NewEncoder(mac).Encode(struct {
		Function        app.Function
		Unit            state.Unit
		Env             []string
		Region, Account string
	}{conf, u, env, region, s.o.Config.Account}); err != nil { // plain data always encodes
		panic(fmt.Sprintf("encode revision: %v", err))
	}
	return hex.EncodeToString(mac.Sum(nil)[:12])
}

func changedUnits(before *serving, d *state.Deployment) []string {
	old := map[string]string{}
	if before != nil {
		for _, f := range before.functions {
			old[f.Key] = f.Revision
		}
	}
	changed := []string{}
	for _, u := range d.Units {
		if old[u.Key] != u.Revision {
			changed = append(changed, u.Key)
		}
	}
	return changed
}

// checkNames refuses a Function name that another Stack has: names are addresses.
func (s *Server) checkNames(d *state.Deployment) error {
	taken := map[string]state.StackKey{}
	for k, v := range s.stacks.all() {
		for _, f := range v.functions {
			taken[f.Name] = k
		}
	}
	for _, f := range d.App.Functions {
		if k, ok := taken[f.Name]; ok && k != d.Stack {
			return errs.New(errs.Exists, "function name %s belongs to app %s, stage %s", f.Name, k.App, k.Stage).
				WithHint("Give the function or the app another name, or remove the other with `ebb rm %s --stage %s`.", k.App, k.Stage)
		}
	}
	return nil
}

// units are the engine's view of a Deployment. They hold no code and no environment; both are fetched when an Instance starts.
func (s *Server) units(ref *deploymentRef, d *state.Deployment) []*engine.Unit {
	units := make([]*engine.Unit, 0, len(d.Units))
	for _, u := range d.Units {
		f := d.App.Function(u.Key)
		reserved := f.Reserved
		if reserved != nil {
			n := *reserved // a pointer into the App would keep all of it
			reserved = &n
		}
		unit := &engine.Unit{
			ID: stackID(d.Stack) + "/" + u.Key, Revision: u.Revision, Tenant: d.Stack.Tenant,
			Functions: []engine.Function{{Name: f.Name, Timeout: time.Duration(f.TimeoutSec) * time.Second, Reserved: reserved}},
			MemoryMB:  s.declares(f), KeepAlive: s.o.Config.KeepAlive, Learned: s.o.Config.LearnKeepAlive, Driver: s.driverOf(f), Protocol: s.protocol,
			Limits: s.limits(f), MaxAge: s.o.Config.MaxAge,
		}
		unit.Provisioned = provisioned(f)
		unit.Env, unit.Own, unit.Given = s.sink.env(unit.Driver), s.own, s.sink.began
		key := u.Key
		unit.Guest = func(ctx context.Context) (*guest.Unit, error) {
			d, err := ref.load(ctx, s.state)
			if err != nil {
				return nil, err
			}
			return s.guest(ctx, d, key)
		}
		units = append(units, unit)
	}
	return units
}

// limits bound an Instance of a Function.
func (s *Server) limits(f *app.Function) sandbox.Limits {
	l := sandbox.Limits{MemoryBytes: int64(f.MemoryMB) << 20, TmpBytes: int64(tmpMB(f)) << 20, Processes: maxProcesses}
	switch s.o.Config.CPULimits {
	case config.CPUShared:
		l.ShareCPU = milliCPU(f.MemoryMB)
	case config.CPUProportional:
		l.ShareCPU = milliCPU(f.MemoryMB)
		l.MilliCPU = l.ShareCPU
	}
	return l
}

// tmpMB is the size of a Function's /tmp in MB, on Lambda 512 at least.
func tmpMB(f *app.Function) int { return max(f.TmpMB, 512) }

// tmpCounts is the part of a /tmp in memory that counts against the Node's budget: hardly a function fills it, and with all of it a
// small machine would hold a fifth of the Instances.
const tmpCounts = 8

// declares is what an Instance of a Function takes of the Node's memory budget, in MB.
func (s *Server) declares(f *app.Function) int {
	t := s.driverOf(f).Traits()
	mb := f.MemoryMB + int(t.OwnBytes>>20)
	if t.Mounts {
		mb += tmpMB(f) / tmpCounts
	}
	return mb
}

const (
	// processorMB is the memory that buys one processor: Lambda guide, "Configure Lambda function memory".
	processorMB = 1769
	// leastMilliCPU is what the smallest function on AWS has, 128 MB.
	leastMilliCPU = 72
)

// milliCPU is what memory buys, in thousandths of a processor.
func milliCPU(memoryMB int) int64 { return max(int64(memoryMB)*1000/processorMB, leastMilliCPU) }

// deploymentRef leads to a Deployment without keeping it, and its environment values, in memory.
type deploymentRef struct {
	held atomic.Pointer[state.Deployment] // until it is in the store
	key  state.StackKey
	id   string // valid once held is nil
}

func stored(d *state.Deployment) *deploymentRef { return &deploymentRef{key: d.Stack, id: d.ID} }

// store says that the Deployment is in the store now.
func (r *deploymentRef) store(d *state.Deployment) {
	r.key, r.id = d.Stack, d.ID
	r.held.Store(nil) // publishes key and id
}

func (r *deploymentRef) load(ctx context.Context, st *state.Store) (*state.Deployment, error) {
	if d := r.held.Load(); d != nil {
		return d, nil
	}
	return st.Deployment(ctx, r.key, r.id)
}

// maxProcesses bounds processes and threads of an Instance: Lambda quotas, "Execution processes/threads".
const maxProcesses = 1024
