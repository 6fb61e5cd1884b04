package lambda

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// extensionsDir is where Layers have the programs that run beside the runtime.
const extensionsDir = "extensions"

// extensions names the external extensions of a Unit, in order. None run where the Sandbox has no files of its own, as they look for theirs
// below /opt, nor beside a runtime that speaks net/rpc.
func (p *Protocol) extensions(u *guest.Unit) []string {
	if u.Layers == "" || !u.Mounts {
		return nil
	}
	dir := filepath.Join(u.Layers, extensionsDir)
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if isFile(filepath.Join(dir, e.Name())) {
			names = append(names, e.Name())
		}
	}
	if len(names) > 0 && p.Transport(u) == sandbox.Dial {
		return nil
	}
	return names
}

// accompany adds the Unit's external extensions to the code.
func (p *Protocol) accompany(u *guest.Unit, c *sandbox.Code) error {
	names := p.extensions(u)
	if len(names) > maxExtensions {
		return initFault(u, "Extension.LaunchError", fmt.Sprintf("the layers have %d extensions (%s), at most %d can run", len(names), strings.Join(names, ", "), maxExtensions)).
			WithHint("what is no extension does not belong into a layer's folder extensions/")
	}
	for _, name := range names {
		file := filepath.Join(u.Layers, extensionsDir, name)
		if err := checkProgram(u, file); err != nil {
			var e *guest.InitError
			if !errors.As(err, &e) {
				return err
			}
			return initFault(u, "Extension.LaunchError", "extension /opt/extensions/"+name+" cannot run: "+e.Message).WithHint("%s", errs.HintOf(err))
		}
		c.Beside = append(c.Beside, sandbox.Program{Command: p.script(u, file), Env: extensionEnv(c.Env)})
	}
	return nil
}

// runtimesOwn are the variables that extensions do not get, as all that begin with an underscore: AWS, "Using the Lambda Extensions API to
// create extensions", "Environment variables".
var runtimesOwn = map[string]bool{
	"AWS_EXECUTION_ENV": true, "AWS_LAMBDA_LOG_GROUP_NAME": true, "AWS_LAMBDA_LOG_STREAM_NAME": true, "AWS_XRAY_CONTEXT_MISSING": true,
	"AWS_XRAY_DAEMON_ADDRESS": true, "LAMBDA_RUNTIME_DIR": true, "LAMBDA_TASK_ROOT": true,
}

func extensionEnv(all []string) []string {
	var env []string
	for _, kv := range all {
		if name, _, _ := strings.Cut(kv, "="); !runtimesOwn[name] && name[0] != '_' {
			env = append(env, kv)
		}
	}
	return env
}

// openExtended takes a Unit with external extensions through Init: they register, then the runtime starts, then all are ready.
func openExtended(ctx context.Context, c sandbox.Conn, u *guest.Unit, stream bool, names []string, pool *sync.Pool) (guest.Session, error) {
	api := newAPI(c.Listener(), u, pool)
	api.alone, api.mu.ext.names = stream, names
	api.wg.Go(api.accept)
	api.wg.Go(func() { api.attend(c.Beside()) })
	session, err := api.accompanied(ctx, c)
	if err == nil {
		return session, nil
	}
	api.Close()
	if fault := extensionFault(err); fault != nil {
		return nil, fault
	}
	return nil, err
}

func (s *apiSession) accompanied(ctx context.Context, c sandbox.Conn) (guest.Session, error) {
	if err := s.wait(ctx, s.registeredLocked); err != nil {
		return nil, fmt.Errorf("wait until the extensions have registered: %w", err)
	}
	if err := c.Proceed(); err != nil {
		return nil, fmt.Errorf("start the runtime: %w", err)
	}
	if !s.alone {
		return s.open(ctx)
	}
	line := c.Stream()
	s.onFault(func() { _ = line.SetDeadline(past) })
	opened, err := openStream(ctx, line, s.unit, s.pool)
	if fault := s.faulted(); fault != nil {
		return nil, fault
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.mu.ready = true
	s.mu.Unlock()
	if err := s.wait(ctx, s.readyLocked); err != nil {
		return nil, fmt.Errorf("wait for the init of the extensions: %w", err)
	}
	return &extendedSession{streamSession: opened.(*streamSession), ext: s}, nil
}

// registeredLocked says that every extension that was started has registered.
func (s *apiSession) registeredLocked() bool {
	n := 0
	for _, x := range s.mu.ext.order {
		if x.external {
			n++
		}
	}
	return n == len(s.mu.ext.names)
}

// attend takes note of extensions that end.
func (s *apiSession) attend(ends <-chan sandbox.End) {
	for {
		select {
		case e := <-ends:
			s.ended(s.mu.ext.names[e.Program], e.Exit)
		case <-s.done:
			return
		}
	}
}

// ended is the end of an external extension's process. One that was not asked to end takes the Instance with it.
func (s *apiSession) ended(name string, exit sandbox.Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.mu.ext.order {
		if x.name == name {
			x.done = true
		}
	}
	if s.mu.ext.ending != nil {
		s.notify()
		return
	}
	how := fmt.Sprintf("exit status %d", exit.Code)
	if exit.Signal != "" {
		how = "signal: " + exit.Signal
	}
	s.faultLocked(&guest.InitError{Type: "Extension.Crash", Message: "the extension " + name + " has ended: " + how})
}

// faultLocked ends what the session does. The first fault counts.
func (s *apiSession) faultLocked(e *guest.InitError) {
	if s.mu.ext.fault == nil {
		s.mu.ext.fault = e
		if s.mu.ext.broke != nil {
			s.mu.ext.broke()
		}
	}
	if s.mu.lent != nil {
		s.recallLocked(past)
	}
	s.notify()
}

func (s *apiSession) faulted() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.ext.fault
}

// onFault has f called, which must not block, with the first fault; now if there is one.
func (s *apiSession) onFault(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.ext.broke = f
	if s.mu.ext.fault != nil {
		f()
	}
}

// extendedSession is a Node.js or Python guest with external extensions beside it. An Invocation lasts until all have done their part.
type extendedSession struct {
	*streamSession
	ext *apiSession
}

var _ guest.Shutter = (*extendedSession)(nil)

// Invoke tells the extensions, has the runtime answer, and waits until the extensions ask for the next event.
func (s *extendedSession) Invoke(ctx context.Context, inv *invocation.Invocation, sink invocation.Sink) error {
	if err := s.ext.wait(ctx, s.ext.readyLocked); err != nil {
		s.spent = true
		return fmt.Errorf("wait until the extensions ask for an event: %w: %w", guest.ErrUnseen, err)
	}
	s.ext.tellExtensions(invoked(s.unit, inv), func(x *extension) bool { return x.invoke })
	err := s.streamSession.Invoke(ctx, inv, sink)
	if fault := s.ext.faulted(); fault != nil {
		s.spent = true
		return fault
	}
	if err != nil && !isCut(err) {
		return err
	}
	late := s.ext.wait(ctx, s.ext.readyLocked)
	if _, fault := late.(*guest.InitError); fault || errors.Is(late, context.DeadlineExceeded) {
		s.spent = true
		return fmt.Errorf("wait for the end of the extensions' work: %w", late)
	}
	return err
}

// Shutdown tells the extensions.
func (s *extendedSession) Shutdown(ctx context.Context, why guest.Reason) { s.ext.Shutdown(ctx, why) }

// Close lets go of the line and of the extensions' connections.
func (s *extendedSession) Close() error {
	err := s.streamSession.Close()
	if closed := s.ext.Close(); !errors.Is(closed, net.ErrClosed) {
		err = errors.Join(err, closed)
	}
	return err
}
