// Package server composes a Node: it opens every part, hands each what it needs, and closes them in reverse.
//
// Main type: [Server].
//
// Guarantees:
//
//  1. One data directory is used by one Node at a time; a second one is refused and told who holds it.
//  2. A Node that comes back, also after kill -9, serves the Deployments that were current, and nothing
//     of the previous Node's guests survives.
//  3. A Deployment is durable before it serves. If its first Instances cannot start, the old one keeps serving.
//
// It holds no semantics of its own: engine, gateway, state and the others do.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/slots"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/gateway"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/runtimes"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/all"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
	"github.com/ebb-run/ebb/internal/telemetry"
)

// tenant is the only Tenant until more exist.
const tenant = "default"

// Where stores are in a data directory.
const (
	tablesFile      = "tables.db"
	objectsFolder   = "objects"
	artifactsFolder = "artifacts"
)

// Options are what a Node is made of.
type Options struct {
	Config  *config.Config // Data must be set
	Version string
	Log     *slog.Logger
	Env     func(string) (string, bool)
	Access  func(gateway.Access) // told of every request; may be nil
	RealAWS *RealAWS             // how the real AWS is reached; for tests, else nil
	Passing func(bus.Point)      // told of each message's way, and may end the process; for tests, else nil
}

// Server is one Node.
type Server struct {
	o          Options
	started    time.Time
	lock       *dataLock
	seal       *seal.Sealer // nil where the data directory is not sealed
	working    string       // folder of what is in clear while functions run; the data directory where that is not sealed
	token      identity.Token
	nats       *nats.Conn
	state      *state.Store
	tableStore store.Tables
	tablesIn   string // where they are, for people
	relays     relays
	artifacts  *artifact.Store
	objects    *fs.Store       // what buckets hold
	watching   sync.Mutex      // held while it is settled whether a bucket's changes are kept
	logs       *telemetry.Logs // of functions
	logEvents  *telemetry.Logs // that clients put into log groups
	metrics    *telemetry.Metrics
	runtimes   *runtimes.Finder
	egress     *egress.Egress
	sink       sink
	wires      wires
	whose      whose
	audit      audits
	capture    capture
	intake     *api.Intake    // what all callers publish
	slots      *slots.Slots   // nil where this Node is alone
	turns      sync.Map       // of mappings with a maximum concurrency, by name → *turns
	driver     sandbox.Driver // of functions that ask for nothing else
	drivers    all.Set
	checks     []api.Check
	protocol   *lambda.Protocol
	observer   *observer
	engine     *engine.Engine
	gateway    *gateway.Gateway
	stacks     stackTable
	rehearsals rehearsals
	events     events
	pollers    pollers
	webhooks   webhooks
	trash      trash
	backups    sync.Mutex // one at a time
	key        []byte     // seals records, and keys Revisions
	ready      atomic.Bool
	following  context.Context // ends when followers of logs are to end

	stopFollowers context.CancelFunc

	doors     doors
	keyring   keyring
	closers   []func() error // in the order they were opened
	closeOnce sync.Once
	closeErr  error
}

// Open acquires everything and restores what was deployed. The caller closes the Server also when Open failed half-way
// (Open then returns nil and has closed it).
func Open(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{o: o, started: time.Now()}
	s.following, s.stopFollowers = context.WithCancel(context.Background())
	s.closing(func() error { s.stopFollowers(); return nil })
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	dir := o.Config.Data
	sealKey, err := s.readSealKey()
	if err != nil {
		return nil, err
	}
	if err := makeDataDir(dir, sealKey != nil); err != nil {
		return nil, err
	}
	// Before anything is touched: nobody else may be using this directory.
	if s.lock, err = lockData(dir); err != nil {
		return nil, err
	}
	s.closing(s.lock.Release)
	if err := os.RemoveAll(filepath.Join(dir, backupFolder)); err != nil { // of a Node that was killed
		return nil, dataDirError(dir, err)
	}
	if err := s.openSeal(sealKey); err != nil {
		return nil, err
	}
	if s.token, err = identity.EnsureToken(filepath.Join(dir, "token")); err != nil {
		return nil, err
	}
	if err := s.openDoors(); err != nil {
		return nil, err
	}
	if err := s.openStores(ctx); err != nil {
		return nil, err
	}
	if err := s.openKeys(ctx); err != nil {
		return nil, err
	}
	if err := s.openEngine(ctx); err != nil {
		return nil, err
	}
	if err := s.openEvents(ctx); err != nil {
		return nil, err
	}
	if err := s.serveWires(); err != nil {
		return nil, err
	}
	if err := s.restore(ctx); err != nil {
		return nil, err
	}
	// From here on commands find it; what they ask waits in the listener until Run.
	if err := s.lock.Announce(RunFile{PID: os.Getpid(), API: s.APIURL(), Gateway: s.GatewayURL(), Started: s.started, Version: s.o.Version}); err != nil {
		return nil, err
	}
	return s, nil
}

// openStores opens what is durable.
func (s *Server) openStores(ctx context.Context) (err error) {
	dir := s.o.Config.Data
	keyFile := filepath.Join(dir, "seal.key")
	if s.seal == nil {
		if err := keyThere(keyFile, filepath.Join(dir, "nats")); err != nil {
			return err
		}
		if s.key, err = state.LoadKey(keyFile); err != nil {
			return err
		}
	} else {
		keyFile, s.key = filepath.Join(dir, sealFile), s.seal.Key("state")
	}
	if err := s.openTables(ctx); err != nil {
		return err
	}
	if err := s.openObjects(ctx); err != nil {
		return err
	}
	// A Node that may not join leaves nothing with the others.
	if err := s.checkShared(ctx); err != nil {
		return err
	}
	if s.nats, err = nats.Open(ctx, nats.Options{Dir: filepath.Join(dir, "nats"), URL: s.o.Config.NATS, Name: "ebb", Key: s.seal.Key("nats"), Log: s.o.Log}); err != nil {
		return err
	}
	s.closing(s.nats.Close)
	if s.state, err = state.Open(ctx, s.nats.JetStream(), state.Options{Key: s.key, Replicas: s.replicas()}); err != nil {
		return s.oneCopy(fmt.Errorf("open deployments with %s: %w", keyFile, err))
	}
	if err := s.openAudit(ctx); err != nil {
		return s.oneCopy(err)
	}
	if s.artifacts, err = artifact.OpenSealed(filepath.Join(dir, artifactsFolder), filepath.Join(s.working, "trees"), s.seal.Box("artifacts")); err != nil {
		return err
	}
	s.closing(s.trash.close)
	if err := s.openLogs(filepath.Join(dir, "logs"), filepath.Join(dir, "logevents")); err != nil {
		return err
	}
	s.metrics = telemetry.NewMetrics()
	s.metrics.SetBuild(s.o.Version)
	s.metrics.SetLogDrops(s.logs.Dropped)
	s.metrics.SetAudit(s.auditCounts)
	return nil
}

// replicas is how many copies the store is to keep.
func (s *Server) replicas() int {
	if s.o.Config.NATS == "" {
		return 1
	}
	return s.o.Config.NATSReplicas
}

// oneCopy adds the mend where a NATS server may be no cluster.
func (s *Server) oneCopy(err error) error {
	if s.replicas() < 2 || errs.HintOf(err) != "" {
		return err
	}
	return errs.New(errs.CodeOf(err), "%w", err).WithHint("A NATS server that is no cluster keeps one copy: --nats-replicas 1.")
}

// openEngine makes what runs functions, and sweeps what a killed Node left.
func (s *Server) openEngine(ctx context.Context) error {
	dir := s.o.Config.Data
	var err error
	if s.egress, err = s.openEgress(); err != nil {
		return err
	}
	s.intake = api.NewIntake(s.maxEvent())
	s.openSink()
	if err := s.openWires(); err != nil {
		return err
	}
	out := outward{s.egress, &s.sink, &s.wires}
	if err := s.openDrivers(ctx, out); err != nil {
		return err
	}
	if err := s.sink.openDoor(); err != nil {
		return err
	}
	if err := s.openCapture(out); err != nil {
		return err
	}
	swept, err := s.drivers.Sweep(ctx)
	if err != nil {
		return fmt.Errorf("sweep guests of the previous run: %w", err)
	}
	if swept > 0 {
		s.o.Log.Warn("ended guests that a previous run left", "sandboxes", swept)
	}
	if s.protocol, err = lambda.New(filepath.Join(dir, "bootstrap")); err != nil {
		return err
	}
	s.runtimes = runtimes.New(s.o.Env)
	s.observer = &observer{logs: s.logs, metrics: s.metrics, sink: &s.sink}
	o := engine.Options{
		MemoryMB: s.declarable(), Queue: s.o.Config.Queue, QueueTimeout: s.o.Config.QueueTimeout,
		FreezeAfter: s.o.Config.FreezeAfter, Observer: s.observer, Log: s.o.Log,
	}
	if o.Sharer, err = s.openSlots(ctx); err != nil {
		return err
	}
	if q := openRunQueue(); q != nil {
		s.closing(q.close)
		o.Saturated = q.saturated
	}
	s.engine = engine.New(o)
	s.closing(s.engine.Close)
	s.openRehearsals()
	s.gateway = gateway.New(gateway.Options{
		Log: s.o.Log, Invoker: invoker{s}, AllowUnprotected: s.o.Config.AllowUnprotected,
		MaxBody: int64(s.o.Config.MaxBodyMB) << 20, Access: s.access,
	})
	s.metrics.SetInstances(s.instanceCounts)
	s.metrics.SetProvisioned(s.provisionedCounts)
	s.metrics.SetEgress(s.egressCounts)
	s.metrics.SetTemplates(func() telemetry.TemplateCounts {
		ready, bytes, started := s.drivers.Process().Templates()
		return telemetry.TemplateCounts{Ready: ready, Bytes: bytes, Started: uint64(started)}
	})
	return nil
}

func (s *Server) access(a gateway.Access) {
	s.metrics.GatewayRequest(a.Status, a.Duration)
	if s.o.Access != nil {
		s.o.Access(a)
	}
}

// Run serves until ctx ends, then lets what runs end and stops. It returns nil after a clean stop.
func (s *Server) Run(ctx context.Context) error {
	// The engine outlives the front doors, so that what they let in can end.
	engineCtx, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.engine.Run(engineCtx); err != nil && engineCtx.Err() == nil {
			cancel(fmt.Errorf("engine: %w", err))
		}
	})
	s.runAudit(engineCtx, &wg)
	s.runKeys(engineCtx, &wg)
	s.runEvents(engineCtx, &wg, func(err error) { cancel(err) })
	s.runObjects(engineCtx, &wg)
	s.runTables(engineCtx, &wg)
	pollCtx, stopPolling := context.WithCancel(engineCtx)
	defer stopPolling()
	s.pollers.run(pollCtx, s)
	stopAPI := s.serveAPI(&wg, func(err error) { cancel(err) })
	gatewayDone := make(chan struct{})
	wg.Go(func() {
		defer close(gatewayDone)
		if err := s.gateway.Serve(runCtx, s.doors.gateway); err != nil && runCtx.Err() == nil {
			cancel(fmt.Errorf("serve gateway: %w", err))
		}
	})
	s.ready.Store(true)
	<-runCtx.Done()
	s.ready.Store(false)
	s.events.bus.Pause()
	stopPolling()
	<-gatewayDone // it answers what it let in
	drainCtx, done := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer done()
	err := s.engine.Drain(drainCtx)
	s.pollers.end(drainCtx) // what has run is settled while the bus can still write
	s.stopFollowers()       // they have seen the last lines, and would never end by themselves
	stopAPI(drainCtx)
	stopEngine()
	wg.Wait()
	if cause := context.Cause(runCtx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// drainTimeout bounds how long a stop waits for running Invocations.
const drainTimeout = 30 * time.Second

// Close releases everything. It is idempotent.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		for i := len(s.closers) - 1; i >= 0; i-- {
			s.closeErr = errors.Join(s.closeErr, s.closers[i]())
		}
	})
	return s.closeErr
}

func (s *Server) closing(f func() error) { s.closers = append(s.closers, f) }

// Token is the control API's key.
func (s *Server) Token() identity.Token { return s.token }

// Checks says what this machine protects.
func (s *Server) Checks() []api.Check { return s.checks }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func listen(addr, flag string) (net.Listener, error) {
	// Without multipath: only on plain sockets can the gateway empty the accept queue at a stop without resetting a client.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err == nil {
		return l, nil
	}
	if isInUse(err) {
		return nil, errs.New(errs.Unavailable, "%s is in use by another program", addr).
			WithHint("Stop that program, or choose another port with %s 127.0.0.1:PORT (port 0 picks a free one).", flag)
	}
	return nil, errs.New(errs.Invalid, "listen on %s: %w", addr, err).WithHint("Give an address of this machine with %s HOST:PORT.", flag)
}

// checkProtections notes what protects functions here, and says aloud when they are not isolated.
func (s *Server) checkProtections(d *process.Driver) error {
	var missing []string
	for _, p := range d.Protections() {
		c := Check(p)
		s.checks = append(s.checks, c)
		if !c.OK {
			missing = append(missing, c.Name)
		}
	}
	if len(missing) > 0 && s.o.Config.RequireIsolation {
		return errs.New(errs.Unavailable, "this machine does not give all protections: %s", strings.Join(missing, ", ")).
			WithHint("See ebb doctor for what mends each, or start without --require-isolation.")
	}
	if ok, why := d.Isolated(); !ok && d.Confined() {
		s.o.Log.Warn("functions are kept to their own files, but not isolated: they share this machine's network and user; see ebb doctor", "because", why)
	} else if !ok {
		s.o.Log.Warn("functions are not isolated: they can do what ebb's user can; run only code that you trust", "because", why)
	}
	return nil
}

// Check gives a driver's Protection in the control API's words.
func Check(p process.Protection) api.Check {
	detail := p.Mechanism
	if p.Note != "" {
		detail += "; " + p.Note
	}
	return api.Check{Name: p.Name, OK: p.Strong, Detail: detail, Mend: p.Mend}
}

// invoker counts what the engine refuses.
type invoker struct{ s *Server }

// Invoke runs the Invocation.
func (i invoker) Invoke(ctx context.Context, inv *invocation.Invocation, sink invocation.Sink) error {
	err := i.s.engine.Invoke(ctx, inv, sink)
	if errs.CodeOf(err) == errs.Throttled {
		i.s.throttled(inv.Function)
	}
	return err
}

func (s *Server) throttled(function string) {
	for k, v := range s.stacks.all() {
		for _, f := range v.functions {
			if f.Name == function {
				s.metrics.Function(k.Tenant, k.App, k.Stage, function).Throttled()
			}
		}
	}
}
