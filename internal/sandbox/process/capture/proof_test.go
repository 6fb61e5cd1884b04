package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// undecided is an Egress whose resolver does not answer.
type undecided struct{ asked chan time.Duration }

func (undecided) Dial(context.Context, sandbox.Destination) (net.Conn, error) {
	return nil, errors.New("no")
}
func (undecided) Resolves(sandbox.Destination) bool { return true }

func (u undecided) Missing(ctx context.Context, _ sandbox.Destination) bool {
	by, _ := ctx.Deadline()
	u.asked <- time.Until(by)
	<-ctx.Done()
	return false
}

// A resolver that does not answer holds up a name for a second, other names not at all, and nothing for ever.
func TestDNS_ASlowResolverHoldsUpNobody(t *testing.T) {
	t.Parallel()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	at := c.LocalAddr().String()
	c.Close()
	u := undecided{make(chan time.Duration, lookups)}
	n, err := Open(Options{Egress: u, Sockets: []Socket{{Role: DNSPackets, Addr: netip.MustParseAddrPort(at)}}, Files: []*os.File{f}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	guest, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	ask := func(name string) {
		t.Helper()
		if _, err := guest.Write(pack(t, name, dnsmessage.TypeA, 0)); err != nil {
			t.Fatal(err)
		}
	}
	n.names.index("known.example")
	for i := range lookups {
		ask(fmt.Sprintf("slow%d.example.", i))
	}
	for range lookups {
		if left := <-u.asked; left <= 0 || left > proofTimeout {
			t.Errorf("the resolver has %v", left)
		}
	}
	// All lookups are taken: what comes now is answered without one.
	answers := map[string]string{}
	for _, name := range []string{"known.example.", "more.example."} {
		ask(name)
	}
	b := make([]byte, 1500)
	for range 2 + lookups {
		size, err := guest.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(b[:size]); err != nil {
			t.Fatal(err)
		}
		answers[m.Questions[0].Name.String()] = describe(t, b[:size])
	}
	if len(answers) != 2+lookups || answers["known.example."] != "Success 198.18.0.1" || answers["more.example."] != "Success 198.18.0.2" {
		t.Errorf("answers are %v", answers)
	}
}

func (undecided) Declared(string) []sandbox.Destination { return nil }
