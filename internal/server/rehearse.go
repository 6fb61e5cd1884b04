package server

import (
	"context"
	"io"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/state"
)

// A rehearsal is an Init that nobody waits for. The first Init of a Function compiles its code, which the others load; so after a deploy each
// Function that brings much code has one in a Sandbox of its own, which reaches nothing, answers nobody, writes no log and gives way to all that
// runs otherwise. An Init that cannot do without the network fails there, and the first Instance compiles.

const (
	// rehearsalPause lies between a deploy and the first rehearsal: who deploys often, and calls what was deployed, is not held up.
	rehearsalPause = time.Second
	// rehearsalTimeout bounds one, as Lambda does an Init.
	rehearsalTimeout = 10 * time.Second
	// worthRehearsing is how many bytes of source a Function has that starts noticeably faster.
	worthRehearsing = 64 << 10
	// rehearsalShare is what a rehearsal is due of the processors, in thousandths of one.
	rehearsalShare = 10
)

// sources end the names of what is compiled.
var sources = []string{".js", ".mjs", ".cjs", ".py"}

// rehearsals are those to come, one after the other.
type rehearsals struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu struct {
		sync.Mutex
		queue []rehearsal
		busy  bool
		over  bool
	}
}

type rehearsal struct {
	d   *state.Deployment
	key string
}

func (s *Server) openRehearsals() {
	s.rehearsals.ctx, s.rehearsals.cancel = context.WithCancel(context.Background())
	s.closing(func() error {
		r := &s.rehearsals
		r.mu.Lock()
		r.mu.over, r.mu.queue = true, nil
		r.mu.Unlock()
		r.cancel()
		r.wg.Wait()
		return nil
	})
}

// rehearse has the Functions of a Deployment rehearsed that are new in it.
func (s *Server) rehearse(d *state.Deployment, changed []string) {
	if s.o.Config.CompileAhead == config.Off || !s.drivers.Process().Traits().Mounts {
		return
	}
	var worth []rehearsal
	known := map[string]int64{}
	for _, u := range d.Units {
		if slices.Contains(changed, u.Key) && s.worthwhile(u, known) {
			worth = append(worth, rehearsal{d, u.Key})
		}
	}
	r := &s.rehearsals
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.over {
		return
	}
	// Those of the Deployment before it are of no use any more.
	r.mu.queue = slices.DeleteFunc(r.mu.queue, func(q rehearsal) bool { return q.d.Stack == d.Stack })
	r.mu.queue = append(r.mu.queue, worth...)
	if !r.mu.busy && len(r.mu.queue) > 0 {
		r.mu.busy = true
		r.wg.Go(s.rehearseAll)
	}
}

func (s *Server) rehearseAll() {
	r := &s.rehearsals
	select {
	case <-time.After(rehearsalPause):
	case <-r.ctx.Done():
	}
	for {
		r.mu.Lock()
		if len(r.mu.queue) == 0 {
			r.mu.busy, r.mu.queue = false, nil
			r.mu.Unlock()
			return
		}
		next := r.mu.queue[0]
		r.mu.queue = r.mu.queue[1:]
		r.mu.Unlock()
		begun := time.Now()
		if did, err := s.rehearseOne(r.ctx, next); did {
			s.o.Log.Debug("rehearsed a function", "function", next.d.App.Function(next.key).Name, "took", time.Since(begun), "error", err)
		}
	}
}

// rehearseOne reports whether there was something to rehearse.
func (s *Server) rehearseOne(ctx context.Context, r rehearsal) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, rehearsalTimeout)
	defer cancel()
	f, driver := r.d.App.Function(r.key), sandbox.Driver(s.drivers.Process())
	if s.driverOf(f) != driver {
		return false, nil
	}
	g, err := s.guest(ctx, r.d, r.key)
	if err != nil {
		return false, err
	}
	if p := guest.Protocol(s.protocol); !p.(guest.Compiler).Compiles(g) || p.Beside(g) > 0 {
		return false, nil
	}
	limits := s.limits(f)
	limits.ShareCPU = rehearsalShare
	sb, err := driver.Prepare(ctx, sandbox.Spec{
		ID: "rehearsal-" + newID(), Owner: f.Name, Transport: s.protocol.Transport(g), Offline: true, Limits: limits, Output: io.Discard,
	})
	if err != nil {
		return true, err
	}
	defer sb.Stop(0)
	code, err := s.protocol.Code(g, sb.Addr())
	if err != nil {
		return true, err
	}
	code.Patient = true
	if t := code.Template; t != nil && t.Kind == sandbox.Waiting {
		code.Template = nil // or more of its kind would be readied, without a network
	} else if t != nil {
		own := *t
		own.Ahead = nil
		code.Template = &own
	}
	conn, err := sb.Start(ctx, code)
	if err != nil {
		return true, err
	}
	defer conn.Close()
	session, err := s.protocol.Open(ctx, conn, g)
	if err != nil {
		return true, err
	}
	return true, session.Close()
}

// worthwhile says whether a Unit brings so much source, its layers and SDKs included, that it is worth a rehearsal. known has what Artifacts bring.
func (s *Server) worthwhile(u state.Unit, known map[string]int64) bool {
	opt, err := s.opt(u)
	if err != nil {
		return false // the start of an Instance tells it, as what follows
	}
	var size int64
	for _, digest := range []string{u.Code, opt, u.Supplied} {
		if _, ok := known[digest]; !ok && digest != "" {
			m, err := s.artifacts.Manifest(digest)
			if err != nil {
				return false
			}
			for _, e := range m.Entries {
				if slices.Contains(sources, path.Ext(e.Path)) {
					known[digest] += e.Size
				}
			}
		}
		size += known[digest]
	}
	return size >= worthRehearsing
}
