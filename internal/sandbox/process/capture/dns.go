package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ebb-run/ebb/internal/sandbox"
)

const (
	ttl           = 10   // seconds; addresses do not change, but what is allowed may
	lookups       = 16   // at once, of the host's resolver
	question      = 4096 // bytes of a question at most
	packet        = 1232 // bytes of a UDP answer at most, as of DNS Flag Day 2020
	lookupTimeout = 5 * time.Second
	proofTimeout  = time.Second // until a name is taken to exist
	streamIdle    = 10 * time.Second
)

// servePackets answers DNS over UDP until the socket is closed.
func (n *Net) servePackets(c net.PacketConn) {
	in := make([]byte, packet) // questions are much shorter
	for {
		size, from, err := c.ReadFrom(in)
		if errors.Is(err, net.ErrClosed) || n.ctx.Err() != nil {
			return
		}
		if err != nil {
			n.pause()
			continue
		}
		q, ok := parse(in[:size])
		if !ok {
			continue
		}
		if !n.remote(&q) {
			c.WriteTo(q.bytes(n.local(&q), q.size), from)
			continue
		}
		select {
		case n.look <- struct{}{}:
			n.wg.Go(func() {
				defer func() { <-n.look }()
				c.WriteTo(q.bytes(n.lookup(&q), q.size), from)
			})
		default:
			c.WriteTo(q.bytes(n.unasked(&q), q.size), from)
		}
	}
}

// serveStream answers DNS over one TCP connection, one question after the other.
func (n *Net) serveStream(c net.Conn) {
	for {
		c.SetDeadline(time.Now().Add(streamIdle))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint16(size[:]))
		if length > question {
			return
		}
		in := make([]byte, length)
		if _, err := io.ReadFull(c, in); err != nil {
			return
		}
		q, ok := parse(in)
		if !ok {
			return
		}
		var r reply
		if !n.remote(&q) {
			r = n.local(&q)
		} else {
			select {
			case n.look <- struct{}{}:
				r = n.lookup(&q)
				<-n.look
			case <-n.ctx.Done():
				return
			}
		}
		out := q.bytes(r, 1<<16-1)
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// query is one question as it came.
type query struct {
	id       uint16
	desired  bool // recursion
	opcode   dnsmessage.OpCode
	question dnsmessage.Question
	code     dnsmessage.RCode // not success: what is wrong with the packet itself
	asked    bool             // question is set
	edns     bool
	version  byte // of EDNS
	size     int  // that the client takes by UDP
}

// reply is what is to be said.
type reply struct {
	code dnsmessage.RCode
	body []dnsmessage.ResourceBody
}

// parse reads a packet. It reports false for what must not be answered at all: fragments of a header, and answers.
func parse(b []byte) (query, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.Response {
		return query{}, false
	}
	q := query{id: h.ID, desired: h.RecursionDesired, opcode: h.OpCode, size: 512}
	if h.OpCode != 0 {
		q.code = dnsmessage.RCodeNotImplemented
		return q, true
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		q.code = dnsmessage.RCodeFormatError
		return q, true
	}
	q.question, q.asked = questions[0], true
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, true // the question is what matters
	}
	for {
		r, err := p.AdditionalHeader()
		if err != nil {
			break
		}
		if r.Type == dnsmessage.TypeOPT && !q.edns {
			q.edns, q.version = true, byte(r.TTL>>16)
			q.size = min(max(512, int(r.Class)), packet)
		}
		if p.SkipAdditional() != nil {
			break
		}
	}
	if q.version != 0 {
		q.code = 16 // BADVERS, RFC 6891, section 6.1.3
	}
	return q, true
}

// bytes builds the answer; where it has no room, one that says so, and the client asks again by TCP.
func (q *query) bytes(r reply, room int) []byte {
	if q.code != dnsmessage.RCodeSuccess {
		r = reply{code: q.code}
	}
	out, err := q.build(r, false)
	if err != nil {
		out, err = q.build(reply{code: dnsmessage.RCodeServerFailure}, false)
	}
	if err == nil && len(out) > room {
		out, err = q.build(reply{code: r.code}, true)
	}
	if err != nil {
		return nil
	}
	return out
}

func (q *query) build(r reply, truncated bool) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, 512), dnsmessage.Header{
		ID: q.id, Response: true, OpCode: q.opcode, RecursionDesired: q.desired, RecursionAvailable: true, Truncated: truncated, RCode: r.code & 0xf,
	})
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if q.asked {
		if err := b.Question(q.question); err != nil {
			return nil, err
		}
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	for _, body := range r.body {
		if err := answer(&b, dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: ttl}, body); err != nil {
			return nil, err
		}
	}
	if q.edns {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(packet, r.code, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

func answer(b *dnsmessage.Builder, h dnsmessage.ResourceHeader, body dnsmessage.ResourceBody) error {
	switch r := body.(type) {
	case *dnsmessage.AResource:
		return b.AResource(h, *r)
	case *dnsmessage.AAAAResource:
		return b.AAAAResource(h, *r)
	case *dnsmessage.PTRResource:
		return b.PTRResource(h, *r)
	case *dnsmessage.SRVResource:
		return b.SRVResource(h, *r)
	case *dnsmessage.TXTResource:
		return b.TXTResource(h, *r)
	case *dnsmessage.MXResource:
		return b.MXResource(h, *r)
	}
	return errors.New("no such record")
}

// remote reports whether the answer is the host's resolver's to know.
func (n *Net) remote(q *query) bool {
	if q.code != dnsmessage.RCodeSuccess || q.question.Class != dnsmessage.ClassINET {
		return false
	}
	switch {
	case records(q):
		return true
	case q.question.Type == dnsmessage.TypeA || q.question.Type == dnsmessage.TypeAAAA:
		name, ok := normal(q.question.Name.String())
		return ok && !isLocalhost(name) && !n.names.has(name) && n.resolves(name)
	}
	return false
}

// unasked answers where too many lookups run already: nobody proves then that a name does not exist.
func (n *Net) unasked(q *query) reply {
	if records(q) {
		return reply{code: dnsmessage.RCodeServerFailure}
	}
	return n.local(q)
}

// records reports whether a question is for what has no substitute here.
func records(q *query) bool {
	switch q.question.Type {
	case dnsmessage.TypeSRV, dnsmessage.TypeTXT, dnsmessage.TypeMX:
		return true
	}
	return false
}

// local answers what needs nobody else.
func (n *Net) local(q *query) reply {
	if q.code != dnsmessage.RCodeSuccess {
		return reply{}
	}
	if q.question.Class != dnsmessage.ClassINET {
		return reply{code: dnsmessage.RCodeRefused}
	}
	name, ok := normal(q.question.Name.String())
	if !ok {
		return reply{code: dnsmessage.RCodeNameError}
	}
	if q.question.Type == dnsmessage.TypePTR {
		return n.reverse(name)
	}
	if isLocalhost(name) {
		return addresses(q.question.Type, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	}
	if !n.resolves(name) {
		return reply{code: dnsmessage.RCodeNameError}
	}
	place, first := n.names.index(name)
	if place == 0 {
		if first {
			n.o.Log.Warn("a guest has looked up too many names; more are refused", "owner", n.o.Owner, "sandbox", n.o.Sandbox, "limit", n.o.Names)
		}
		return reply{code: dnsmessage.RCodeRefused}
	}
	if !n.ipv6 {
		return addresses(q.question.Type, place4(place), netip.Addr{})
	}
	return addresses(q.question.Type, place4(place), place6(place))
}

func (n *Net) resolves(name string) bool {
	return n.o.Egress.Resolves(sandbox.Destination{Owner: n.o.Owner, Sandbox: n.o.Sandbox, Host: name})
}

// addresses answers with those of the type asked for; with nothing for any other type, because the name exists.
func addresses(t dnsmessage.Type, v4, v6 netip.Addr) reply {
	switch {
	case t == dnsmessage.TypeA:
		return reply{body: []dnsmessage.ResourceBody{&dnsmessage.AResource{A: v4.As4()}}}
	case t == dnsmessage.TypeAAAA && v6.IsValid():
		return reply{body: []dnsmessage.ResourceBody{&dnsmessage.AAAAResource{AAAA: v6.As16()}}}
	}
	return reply{}
}

// reverse answers a question for the name of an address: those given out here, and loopback.
func (n *Net) reverse(name string) reply {
	a, ok := fromReverse(name)
	if !ok {
		return reply{code: dnsmessage.RCodeNameError}
	}
	host := "localhost"
	if !a.IsLoopback() {
		if host, ok = n.names.name(a); !ok {
			return reply{code: dnsmessage.RCodeNameError}
		}
	}
	target, err := dnsmessage.NewName(host + ".")
	if err != nil {
		return reply{code: dnsmessage.RCodeServerFailure}
	}
	return reply{body: []dnsmessage.ResourceBody{&dnsmessage.PTRResource{PTR: target}}}
}

// fromReverse reads a normal name below in-addr.arpa (RFC 1035, section 3.5) or ip6.arpa (RFC 3596, section 2.5).
func fromReverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		part := strings.Split(rest, ".")
		if len(part) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(part[3] + "." + part[2] + "." + part[1] + "." + part[0])
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	part := strings.Split(rest, ".")
	if !ok || len(part) != 32 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i, p := range part {
		digit, err := strconv.ParseUint(p, 16, 4)
		if err != nil {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(digit) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}

// lookup asks the host's resolver: for SRV, TXT or MX records, else whether the name exists at all. One that does gets its address here and is
// not asked for again.
func (n *Net) lookup(q *query) reply {
	if !records(q) {
		return n.proven(q)
	}
	name, ok := normal(q.question.Name.String())
	if !ok || isLocalhost(name) || !n.resolves(name) {
		return reply{code: dnsmessage.RCodeNameError}
	}
	ctx, cancel := context.WithTimeout(n.ctx, lookupTimeout)
	defer cancel()
	var r reply
	var err error
	switch q.question.Type {
	case dnsmessage.TypeSRV:
		r.body, err = n.services(ctx, name)
	case dnsmessage.TypeMX:
		r.body, err = n.exchangers(ctx, name)
	default:
		r.body, err = n.texts(ctx, name)
	}
	var missing *net.DNSError
	switch {
	case errors.As(err, &missing) && missing.IsNotFound:
		return reply{} // the name has an address here, so it exists
	case err != nil:
		return reply{code: dnsmessage.RCodeServerFailure}
	}
	return r
}

// proven answers with an address unless the name is known not to exist.
func (n *Net) proven(q *query) reply {
	name, _ := normal(q.question.Name.String())
	ctx, cancel := context.WithTimeout(n.ctx, proofTimeout)
	defer cancel()
	if n.o.Egress.Missing(ctx, sandbox.Destination{Owner: n.o.Owner, Sandbox: n.o.Sandbox, Host: name}) {
		return reply{code: dnsmessage.RCodeNameError}
	}
	return n.local(q)
}

func (n *Net) services(ctx context.Context, name string) ([]dnsmessage.ResourceBody, error) {
	_, list, err := n.o.Resolver.LookupSRV(ctx, "", "", name+".")
	var all []dnsmessage.ResourceBody
	for _, s := range list {
		target, err := dnsmessage.NewName(s.Target)
		if err != nil {
			continue
		}
		all = append(all, &dnsmessage.SRVResource{Priority: s.Priority, Weight: s.Weight, Port: s.Port, Target: target})
	}
	if len(all) > 0 {
		return all, nil // one bad record beside good ones
	}
	return nil, err
}

// exchangers matter to those who check the addresses of their users: mail itself is seldom sent from a function.
func (n *Net) exchangers(ctx context.Context, name string) ([]dnsmessage.ResourceBody, error) {
	list, err := n.o.Resolver.LookupMX(ctx, name+".")
	var all []dnsmessage.ResourceBody
	for _, m := range list {
		if target, err := dnsmessage.NewName(m.Host); err == nil {
			all = append(all, &dnsmessage.MXResource{Pref: m.Pref, MX: target})
		}
	}
	if len(all) > 0 {
		return all, nil // one bad record beside good ones
	}
	return nil, err
}

func (n *Net) texts(ctx context.Context, name string) ([]dnsmessage.ResourceBody, error) {
	list, err := n.o.Resolver.LookupTXT(ctx, name+".")
	var all []dnsmessage.ResourceBody
	for _, s := range list {
		r := &dnsmessage.TXTResource{}
		for len(s) > 255 { // the resolver joins the strings of a record; one holds 255 bytes at most
			r.TXT, s = append(r.TXT, s[:255]), s[255:]
		}
		r.TXT = append(r.TXT, s)
		all = append(all, r)
	}
	return all, err
}
