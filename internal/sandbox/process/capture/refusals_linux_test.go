package capture

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// packets sends UDP to each address, from a socket that is connected and from one that is not, and prints how that went.
func packets(to []string) error {
	for _, at := range to {
		addr, err := net.ResolveUDPAddr("udp", at)
		if err != nil {
			return err
		}
		loose, err := net.ListenUDP("udp", nil)
		if err != nil {
			return err
		}
		c, err := net.Dial("udp", at)
		if err != nil {
			return err
		}
		_, one := c.Write([]byte("x"))
		_, two := loose.WriteTo([]byte("x"), addr)
		fmt.Println(at, errors.Is(one, syscall.EPERM), errors.Is(two, syscall.EPERM))
		c.Close()
		loose.Close()
	}
	return ownPackets()
}

// ownPackets has a UDP server on each loopback.
func ownPackets() error {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "127.0.0.7:0"} {
		l, err := net.ListenPacket("udp", at)
		if err != nil {
			return err
		}
		go func() {
			b := make([]byte, 10)
			n, from, err := l.ReadFrom(b)
			if err == nil {
				l.WriteTo(b[:n], from)
			}
		}()
		c, err := net.Dial("udp", l.LocalAddr().String())
		if err != nil {
			return err
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 3)
		if _, err := io.WriteString(c, "own"); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

// lines collects what is told.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, text)
}

func (l *lines) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

func TestNet_RefusesUDPAndSaysSoOnce(t *testing.T) {
	both(t, func(t *testing.T, rootless bool) {
		var told lines
		n := as(t, setup{rootless: rootless, options: Options{Tell: told.add}}, &world{}, "packets", "198.51.100.7:123", "[2001:db8::7]:443", "time.example:123", "198.51.100.7:123", "127.0.0.1:9")
		out, ok := n.run(t)
		if !ok {
			t.Fatal(out)
		}
		wantLines(t, out, "198.51.100.7:123 true true", "[2001:db8::7]:443 true true", "time.example:123 true true", "198.51.100.7:123 true true", "127.0.0.1:9 false false")
		want := []string{
			"UDP to 198.51.100.7:123 is refused: a sandbox has TCP, DNS and its own loopback", "UDP to [2001:db8::7]:443 is refused: a sandbox has TCP, DNS and its own loopback",
			"UDP to time.example:123 is refused: a sandbox has TCP, DNS and its own loopback",
		}
		for end := time.Now().Add(10 * time.Second); len(told.list()) < len(want) && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // polling, not timing
		}
		n.net.Close()
		if got := told.list(); !slices.Equal(got, want) {
			t.Errorf("told:\n%s", strings.Join(got, "\n"))
		}
	})
}

func TestNet_TellsOfFewUDPDestinations(t *testing.T) {
	var told lines
	before := descriptors(t)
	n := as(t, setup{options: Options{Tell: told.add}}, &world{}, "scan")
	if out, ok := n.run(t); !ok {
		t.Fatal(out)
	}
	for end := time.Now().Add(10 * time.Second); len(told.list()) < mostTold && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // polling, not timing
	}
	n.net.Close()
	if got := len(told.list()); got != mostTold {
		t.Errorf("told of %d destinations", got)
	}
	n.line.Close()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
}

// scan sends UDP to many places.
func scan([]string) error {
	for i := range 2000 {
		c, err := net.Dial("udp", fmt.Sprintf("198.51.100.7:%d", 2000+i))
		if err != nil {
			return err
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("packet %d: %w", i, err)
		}
		c.Close()
	}
	return nil
}

func FuzzRefusedPackets(f *testing.F) {
	packet := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 198, 51, 100, 7, 1, 2, 0, 123, 0, 9, 0, 0, 'x'}
	var b builder
	b.message(logPacket, 0, func() {
		b.b = append(b.b, 2, 0, 0, refusals)
		b.attr(1, []byte{8, 0, 3, 0})
		b.attr(logPayload, packet)
	})
	for to := range refusedPackets(b.b) {
		if to.String() != "198.51.100.7:123" {
			f.Fatalf("read %v", to)
		}
	}
	f.Add(b.b)
	f.Add(append(slices.Clone(b.b), b.b[:30]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for to := range refusedPackets(b) {
			if !to.IsValid() {
				t.Error("an address that is none")
			}
			n++
		}
		if n > len(b)/16 {
			t.Errorf("%d packets in %d bytes", n, len(b))
		}
	})
}
