package egress

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

const (
	proofs     = 4096             // names that are remembered; guests choose them
	missingFor = 5 * time.Second  // a name may be about to be made
	thereFor   = 60 * time.Second // Dial looks it up anew in any case
)

// proofsOfNames remember whether names exist, for as long as it is of use.
type proofsOfNames struct {
	mu struct {
		sync.Mutex
		known map[string]proof
	}
}

type proof struct {
	missing bool
	until   time.Time
}

func (p *proofsOfNames) get(name string) (missing, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.mu.known[name]
	return x.missing, ok && time.Now().Before(x.until)
}

func (p *proofsOfNames) put(name string, missing bool) {
	last := thereFor
	if missing {
		last = missingFor
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.known == nil || len(p.mu.known) >= proofs {
		p.mu.known = map[string]proof{}
	}
	p.mu.known[name] = proof{missing, time.Now().Add(last)}
}

// Missing reports whether the resolver says that a name does not exist, or has no address. A name is asked for only where an entry or the mode
// names it: what a guest writes into other names goes to no server. That is no more than Dial would look up for the same guest. A resolver that
// fails, or has not answered when ctx ends, is not asked for the name again for a minute, and the name is not missing.
func (e *Egress) Missing(ctx context.Context, d sandbox.Destination) bool {
	h, err := parseHost(d.Host)
	if err != nil || h.addr.IsValid() || e.o.Policy(d.Owner).permitsName(h.name, anyPort) == unnamed {
		return false
	}
	if missing, ok := e.proofs.get(h.name); ok {
		return missing
	}
	_, err = e.o.Resolve(ctx, absolute(h.name))
	var unknown *net.DNSError
	missing := errors.As(err, &unknown) && unknown.IsNotFound
	if missing || !errors.Is(ctx.Err(), context.Canceled) { // a Sandbox that ends has asked nobody
		e.proofs.put(h.name, missing)
	}
	return missing
}
