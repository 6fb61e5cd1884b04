package process

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"sync"
)

// notices adds lines to an isolated guest's output that say what it cannot know: why a connection was reset, and whose localhost it tried.
// Its methods may be called concurrently; w is written to by one at a time.
type notices struct {
	w io.Writer

	mu struct {
		sync.Mutex      // held while writing to w: that is its purpose
		partial    bool // the last line has not ended
		ports      map[string]bool
	}
}

func newNotices(w io.Writer) *notices {
	n := &notices{w: w}
	n.mu.ports = map[string]bool{}
	return n
}

// Write takes output of the guest.
func (n *notices) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	size, err := n.w.Write(p)
	if len(p) > 0 {
		n.mu.partial = p[len(p)-1] != '\n'
	}
	for _, port := range refusedPorts(p) {
		if len(n.mu.ports) < mostPorts && !n.mu.ports[port] {
			n.mu.ports[port] = true
			n.sayLocked("localhost:" + port + " is the function's own, inside its sandbox, and nothing listens there. " +
				"A server of this machine is reached where --egress names it: --egress anything,localhost:" + port)
		}
	}
	return size, err
}

// Say adds a line.
func (n *notices) Say(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sayLocked(text)
}

func (n *notices) sayLocked(text string) {
	line := "ebb: " + strings.ReplaceAll(text, "\n", " ") + "\n"
	if n.mu.partial {
		line = "\n" + line
	}
	n.mu.partial = false
	_, _ = io.WriteString(n.w, line)
}

// mostPorts bounds what is said of ports of one guest.
const mostPorts = 5

// refusals are what clients say when nobody listens.
var refusals = [][]byte{[]byte("efused"), []byte("EFUSED"), []byte("Could not connect")}

var (
	loopbacks = strings.NewReplacer("127.0.0.1", "localhost", "::1", "localhost")
	localPort = regexp.MustCompile(`localhost[^0-9A-Za-z]{1,5}(?:localhost[^0-9A-Za-z]{1,5})?(?:port\W{1,2})?([0-9]{2,5})\b`)
)

// refusedPorts are the ports of the loopback that a guest says it was refused at.
func refusedPorts(p []byte) []string {
	var all []string
	for _, r := range refusals {
		if !bytes.Contains(p, r) {
			continue
		}
		for line := range bytes.Lines(p) {
			if !bytes.Contains(line, r) {
				continue
			}
			for _, m := range localPort.FindAllSubmatch([]byte(loopbacks.Replace(string(line))), -1) {
				all = append(all, string(m[1]))
			}
		}
	}
	return all
}
