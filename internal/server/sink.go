package server

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/audit"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/policy"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/state"
)

const (
	// sinkHost is where functions publish events, from within a sandbox whose connections ebb answers.
	sinkHost = "events.ebb.internal"
	sinkPort = 80
	// sinkTurns is how many publishes of one Instance are in memory at once, sinkAtOnce those of all.
	sinkTurns, sinkAtOnce = 4, 128
	// sinkConns is how many connections to it an Instance may have open.
	sinkConns = 64
)

// sink is where functions publish events. An Instance runs one Invocation at a time: what it publishes, that one or the last has caused.
type sink struct {
	s    *Server
	http *http.Server
	line *line
	door net.Listener // for guests that share this machine's network; nil where there are none
	key  [32]byte     // makes the tokens in the addresses of those
	all  chan struct{}
	wait sync.WaitGroup // for what serves

	notes     notes
	instances sync.Map // ID → *origin
}

// origin is an Instance, as far as it publishes events.
type origin struct {
	instance string
	stack    state.StackKey
	unit     string // ID of the engine's Unit, whose egress it has
	function string // full name
	turns    chan struct{}

	mu struct {
		sync.Mutex
		conns     int
		cause     cause
		published bool         // by the cause
		noted     bool         // that it did is written
		ended     *engineEnded // the cause's end
	}
}

// cause is an Invocation, as far as it causes events.
type cause struct {
	id, trace string
	hops      int
	direct    bool // its caller waits: nothing but its events tells of it in the event log
	began     time.Time
}

type engineEnded struct {
	took   time.Duration
	failed string
}

// openSink makes the place; nothing is published before the bus is open.
func (s *Server) openSink() {
	k := &s.sink
	k.s, k.line, k.all = s, newLine(), make(chan struct{}, sinkAtOnce)
	_, _ = rand.Read(k.key[:]) // never fails; see crypto/rand
	door := &api.Sink{Log: s.o.Log, Enter: k.enter, Publish: k.publish, Intake: s.intake}
	k.http = &http.Server{
		Handler: k.known(door), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		IdleTimeout: -1, // a guest that was frozen meanwhile would write to a closed connection; what it may hold open is bounded
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if v, ok := c.(*call); ok {
				return context.WithValue(ctx, originKey{}, v.from)
			}
			return ctx
		},
	}
	s.closing(k.close)
	k.serve(k.line)
}

// openDoor makes the way for guests that share this machine's network, where there are any.
func (k *sink) openDoor() error {
	if k.s.driver.Traits().Mounts {
		return nil
	}
	var err error
	if k.door, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return errs.New(errs.Unavailable, "listen for events of functions: %w", err)
	}
	k.serve(k.door)
	return nil
}

func (k *sink) serve(l net.Listener) {
	k.wait.Go(func() {
		if err := k.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			k.s.o.Log.Error("functions cannot publish events", "error", err)
		}
	})
}

func (k *sink) close() error {
	err := k.http.Close()
	k.wait.Wait()
	return err
}

// env tells the Instances of a driver where they publish.
func (k *sink) env(d sandbox.Driver) func(instance string) []string {
	return func(instance string) []string {
		at := "http://" + sinkHost
		if !d.Traits().Mounts { // it shares this machine's network
			if k.door == nil {
				return nil
			}
			at = "http://" + k.door.Addr().String() + "/i/" + instance + "/" + k.token(instance)
		}
		return []string{"K_SINK=" + at, "EBB_EVENTS_URL=" + at}
	}
}

func (k *sink) token(instance string) string {
	h := hmac.New(sha256.New, k.key[:])
	_, _ = h.Write([]byte(instance))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:24])
}

type originKey struct{}

func originOf(ctx context.Context) *origin {
	o, _ := ctx.Value(originKey{}).(*origin)
	return o
}

// known finds out who calls: by the connection, or where that came in over the machine's network by a token in the path.
func (k *sink) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if originOf(r.Context()) != nil {
			next.ServeHTTP(w, r)
			return
		}
		rest, ok := strings.CutPrefix(r.URL.Path, "/i/")
		instance, rest, more := strings.Cut(rest, "/")
		token, rest, _ := strings.Cut(rest, "/")
		v, found := k.instances.Load(instance)
		if !ok || !more || !hmac.Equal([]byte(token), []byte(k.token(instance))) || !found || !loopbackHost(r.Host) {
			w.Header().Set("Connection", "close")
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), originKey{}, v))
		u := *r.URL
		u.Path, u.RawPath = "/"+rest, ""
		r.URL = &u
		next.ServeHTTP(w, r)
	})
}

// loopbackHost says whether a Host header is an address of this machine itself, which a name that was made to lead here is not.
func loopbackHost(host string) bool {
	h, _, err := net.SplitHostPort(host)
	if err != nil {
		h = host
	}
	ip := net.ParseIP(h)
	return ip != nil && ip.IsLoopback()
}

// enter waits until there is room for what an Instance publishes.
func (k *sink) enter(ctx context.Context) (func(), error) {
	o := originOf(ctx)
	full := errs.New(errs.Throttled, "too much is being published at once").WithHint("Try again in a moment, or send several events in one call.")
	select {
	case o.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, full
	}
	select {
	case k.all <- struct{}{}:
	case <-ctx.Done():
		<-o.turns
		return nil, full
	}
	return func() { <-k.all; <-o.turns }, nil
}

// publish takes the events of a function.
func (k *sink) publish(ctx context.Context, name string, events []*event.Event) error {
	o, s := originOf(ctx), k.s
	if name == "" {
		name = defaultBus
	}
	if !busRE.MatchString(name) {
		return errs.New(errs.Invalid, "%q is no name of an event bus", name).WithHint("Letters, digits and . _ / - are allowed.")
	}
	if err := s.mayPublish(ctx, o, name); err != nil {
		return err
	}
	if err := s.foreign(events); err != nil {
		return err
	}
	return k.put(ctx, o, name, events)
}

// put publishes what an Instance may, as caused by the Invocation that it runs.
func (k *sink) put(ctx context.Context, o *origin, name string, events []*event.Event) error {
	s, c := k.s, o.current()
	trace, _ := bus.ParseTrace(c.trace)
	for _, e := range events {
		e.SetExtension(bus.Publisher, o.function)
		if c.id == "" { // in Init, before the first Invocation
			continue
		}
		e.SetExtension(bus.Parent, c.id)
		e.SetExtension(bus.Hops, int32(c.hops+1))
		if own, ok := bus.ParseTrace(e.Extension(bus.TraceParent)); !ok || own != trace {
			e.SetExtension(bus.TraceParent, c.trace)
		}
	}
	s.stamp(name, events)
	if s.events.bus == nil {
		return errs.New(errs.Unavailable, "starting")
	}
	if _, err := s.events.bus.Publish(ctx, events...); err != nil {
		return err
	}
	k.told(o, c.id)
	return nil
}

// mayPublish says whether a Function may publish on an event bus.
func (s *Server) mayPublish(ctx context.Context, o *origin, name string) error {
	if s.o.Config.IAM == config.IAMOff {
		return nil
	}
	var r *role
	if now := s.stacks.get(o.stack); now != nil {
		r = now.roles[o.function]
	}
	t := thing{"events", "event-bus/" + name}
	v, err := s.across(ctx, s.asking(o.stack, r), t, policy.Request{Action: "events:PutEvents", Resource: t.arn()})
	if err != nil || v.owner == "" || v.allowed {
		return err
	}
	err = errs.New(errs.Forbidden, "the event bus %s belongs to %s", name, stackName(v.owner))
	s.audit.denials.Deny(audit.Record{Who: "function " + o.function, What: "events:PutEvents", On: t.arn(), App: o.stack.App, Text: err.Error()})
	return errs.New(errs.Forbidden, "%w", err).
		WithHint("Publish on the default bus, on one that this app declares, or give the function's role a statement that names this one.")
}

// declaredBuses are the names of the event buses that an App declares.
func (s *Server) declaredBuses(d *state.Deployment) (names []string) {
	r := s.resolver(d)
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		if res.Kind != app.EventBus {
			continue
		}
		if name, err := r.physicalName(res); err == nil && name != defaultBus {
			names = append(names, name)
		}
	}
	return names
}

// current is what causes the events that are published now.
func (o *origin) current() cause {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.mu.cause
	if _, ok := bus.ParseTrace(c.trace); !ok && c.id != "" {
		c.trace = bus.TraceOfInvocation(c.id)
	}
	return c
}

// changed follows the life of an Instance.
func (k *sink) changed(u *engine.Unit, instance string, st engine.State) {
	switch {
	case k == nil:
	case st == engine.Starting:
		part := strings.SplitN(u.ID, "/", 4)
		if len(part) != 4 {
			return
		}
		k.instances.Store(instance, &origin{
			instance: instance, stack: state.StackKey{Tenant: part[0], App: part[1], Stage: part[2]}, unit: u.ID, function: u.Functions[0].Name, turns: make(chan struct{}, sinkTurns),
		})
	case st == engine.Stopped:
		k.instances.Delete(instance)
	}
}

func (k *sink) origin(instance string) *origin {
	if k == nil {
		return nil
	}
	v, ok := k.instances.Load(instance)
	if !ok {
		return nil
	}
	return v.(*origin)
}

// began notes which Invocation an Instance runs.
func (k *sink) began(instance string, inv *invocation.Invocation) {
	o := k.origin(instance)
	if o == nil {
		return
	}
	_, batch := inv.Payload.(*invocation.Batch)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.cause = cause{id: inv.ID, trace: inv.Trace, hops: inv.Hops, direct: inv.Mode == invocation.ModeRequest && !batch, began: time.Now()}
	o.mu.published, o.mu.noted, o.mu.ended = false, false, nil
}

// ended notes how it went.
func (k *sink) ended(r *engine.Report) {
	o := k.origin(r.Instance)
	if o == nil {
		return
	}
	o.mu.Lock()
	if o.mu.cause.id == r.InvocationID && o.mu.cause.direct {
		e := &engineEnded{took: r.Duration}
		switch {
		case r.Error != nil:
			e.failed = failure(r.Error)
		case r.Err != nil:
			e.failed = r.Err.Error()
		}
		o.mu.ended = e
	}
	o.mu.Unlock()
	k.note(o)
}

// told notes that the Invocation has published events.
func (k *sink) told(o *origin, id string) {
	o.mu.Lock()
	o.mu.published = o.mu.published || o.mu.cause.id == id
	o.mu.Unlock()
	k.note(o)
}

// note writes of an Invocation that has published events, once it has ended, where nothing else in the event log tells how it went.
func (k *sink) note(o *origin) {
	o.mu.Lock()
	c, end := o.mu.cause, o.mu.ended
	due := c.direct && o.mu.published && end != nil && !o.mu.noted
	o.mu.noted = o.mu.noted || due
	o.mu.Unlock()
	if due {
		k.s.record(bus.Work{ID: c.id, Name: o.function, Trace: c.trace, Start: c.began, Took: end.took, Error: end.failed})
	}
}

// running lists Invocations that have published events and of which is not written yet how they went, and messages that such took.
func (k *sink) running() map[string]bool {
	out := map[string]bool{}
	k.instances.Range(func(_, v any) bool {
		o := v.(*origin)
		o.mu.Lock()
		defer o.mu.Unlock()
		if c := o.mu.cause; c.direct && (o.mu.ended == nil || o.mu.published && !o.mu.noted) {
			out[c.id] = true
		}
		return true
	})
	k.notes.add(out)
	return out
}

// outward is the way of guests to the world, with what ebb itself answers on it.
type outward struct {
	*egress.Egress
	sink  *sink
	wires *wires
}

func toSink(d sandbox.Destination) bool { return strings.EqualFold(d.Host, sinkHost) }

// Dial connects, to ebb itself where the name is its own.
func (o outward) Dial(ctx context.Context, d sandbox.Destination) (net.Conn, error) {
	if toAWS(d) {
		return o.wires.dial(ctx, d)
	}
	if !toSink(d) {
		return o.Egress.Dial(ctx, d)
	}
	if d.Port != sinkPort {
		return nil, errs.New(errs.Forbidden, "connection to %s:%d: it answers at port %d, without TLS", sinkHost, d.Port, sinkPort)
	}
	from := o.sink.origin(d.Sandbox)
	if from == nil {
		return nil, errs.New(errs.Forbidden, "connection to %s: only functions publish there", sinkHost)
	}
	return o.sink.line.dial(ctx, from)
}

// Resolves says that ebb's own names are there.
func (o outward) Resolves(d sandbox.Destination) bool {
	return toSink(d) || toAWS(d) || o.Egress.Resolves(d)
}

// Missing says the same.
func (o outward) Missing(ctx context.Context, d sandbox.Destination) bool {
	return !toSink(d) && !toAWS(d) && o.Egress.Missing(ctx, d)
}

// Declared names what every guest may connect to.
func (o outward) Declared(owner string) []sandbox.Destination {
	return append(o.Egress.Declared(owner), sandbox.Destination{Owner: owner, Host: sinkHost, Port: sinkPort})
}
