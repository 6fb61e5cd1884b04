package process

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"sync"
)

// insideHome is where the user of every Sandbox would have its home.
const insideHome = "/home/sbx_user1051"

// notices adds lines to an isolated guest's output that say what it cannot know: why a connection was reset, and whose localhost it tried.
// Its methods may be called concurrently; w is written to by one at a time.
type notices struct {
	w io.Writer

	mu struct {
		sync.Mutex                 // held while writing to w: that is its purpose
		partial    bool            // the last line has not ended
		told       map[string]bool // ports and paths
	}
}

func newNotices(w io.Writer) *notices {
	n := &notices{w: w}
	n.mu.told = map[string]bool{}
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
		n.explainLocked(port, "localhost:"+port+" is the function's own, inside its sandbox, and nothing listens there. "+
			"A server of this machine is reached where --egress names it: --egress anything,localhost:"+port)
	}
	for _, path := range missingPaths(p) {
		n.explainLocked(path, path+" is not inside the function's sandbox, which has this machine's programs and libraries in /usr "+
			"and the code in /var/task. Package it with the code; --isolation none runs functions without a sandbox")
	}
	return size, err
}

// explainLocked says something of a port or path for the first time.
func (n *notices) explainLocked(what, text string) {
	if len(n.mu.told) < mostTold && !n.mu.told[what] {
		n.mu.told[what] = true
		n.sayLocked(text)
	}
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

// mostTold bounds the ports and paths of one guest that are explained.
const mostTold = 10

// refusals are what clients say when nobody listens.
var refusals = [][]byte{[]byte("efused"), []byte("EFUSED"), []byte("Could not connect")}

var (
	loopbacks = strings.NewReplacer("127.0.0.1", "localhost", "::1", "localhost")
	localPort = regexp.MustCompile(`localhost[^0-9A-Za-z]{1,5}(?:localhost[^0-9A-Za-z]{1,5})?(?:port\W{1,2})?([0-9]{2,5})\b`)
)

// absences are what programs say of a file that is not there, once as Node, once as the C library has it.
var absences = [][]byte{[]byte("ENOENT"), []byte("o such file"), []byte("Cannot find module")}

// outsidePath is a path of places of which a Sandbox has nothing, whatever is there on the host: it is not looked whether the file exists,
// since who may read a function's log need not know that.
var outsidePath = regexp.MustCompile(`(?:^|[\s'"(=:])(/(?:home|root|srv|mnt|media|run|var/run|var/lib)/[^\s'":,;)\\]+)`)

// missingPaths are such paths that a guest says it did not find.
func missingPaths(p []byte) []string {
	var all []string
	for _, a := range absences {
		if !bytes.Contains(p, a) {
			continue
		}
		for line := range bytes.Lines(p) {
			if !bytes.Contains(line, a) {
				continue
			}
			for _, m := range outsidePath.FindAllSubmatch(line, -1) {
				if path := string(m[1]); !strings.HasPrefix(path, insideHome) {
					all = append(all, path)
				}
			}
		}
	}
	return all
}

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
