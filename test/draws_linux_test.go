package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What functions draw by chance, at their init and later. SPACE tells Instances apart.
const drawsPython = `import json, os, random, secrets, ssl, tempfile, time, uuid
def draw():
    return {"random": random.random(), "own": random.Random().random(), "system": random.SystemRandom().random(), "uuid4": str(uuid.uuid4()), "uuid1": str(uuid.uuid1()),
            "secrets": secrets.token_hex(), "urandom": os.urandom(16).hex(), "openssl": ssl.RAND_bytes(16).hex(), "name": tempfile.mktemp()}
first = draw()
def handler(event, context):
    time.sleep(0.3)
    return {"statusCode": 200, "body": json.dumps({"space": os.readlink("/proc/self/ns/pid"), "init": first, "call": draw()})}
`

const drawsNode = `const crypto = require('crypto'), fs = require('fs');
const draw = () => ({ random: Math.random(), uuid: crypto.randomUUID(), bytes: crypto.randomBytes(16).toString('hex'), int: crypto.randomInt(2 ** 47), web: Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('hex'),
  key: crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' }).d });
const first = draw();
exports.handler = async () => {
  await new Promise((done) => setTimeout(done, 300));
  return { statusCode: 200, body: JSON.stringify({ space: fs.readlinkSync('/proc/self/ns/pid'), init: first, call: draw() }) };
};
`

// drawing is how many Instances have to be compared.
const drawing = 4

const rowDraws = "the same random state"

// testDraws has many Instances of a function at once, of which the later ones come from what is held ready, and compares what they draw.
func testDraws(t *testing.T, v *guestVerdicts) {
	var y strings.Builder
	y.WriteString("service: draws\nprovider: {name: aws, memorySize: 256, timeout: 20}\npackage: {patterns: ['!**', 'handler.*', bootstrap]}\nfunctions:\n")
	for _, r := range guestRuntimes {
		fmt.Fprintf(&y, "  %s: {runtime: %s, handler: %s.handler, events: [httpApi: GET /%s]}\n", r.name, r.runtime, strings.Replace(r.handler, "bootstrap", "handler", 1), r.name)
	}
	dir := project(t, map[string]string{"serverless.yml": y.String(), "bootstrap": canaryProvided, "handler.py": drawsPython, "handler.js": drawsNode})
	s := ebb.Start(t, dir, dir+"/.ebb", "up", "--listen", "127.0.0.1:0", "--no-watch")
	for _, r := range guestRuntimes {
		v.run(t, rowDraws, r.name, func(t *testing.T) {
			if _, err := exec.LookPath(r.program); err != nil {
				t.Skipf("needs %s", r.program)
			}
			d := drawn{by: map[string]string{}, spaces: map[string]string{}}
			// On a busy machine calls are answered by Instances that come free before others have started, so the last number is tried again.
			for _, atOnce := range append([]int{1, 4, 8}, slices.Repeat([]int{12}, 10)...) {
				if atOnce > 8 && d.instances() >= drawing {
					break
				}
				var all sync.WaitGroup
				for range atOnce {
					all.Go(func() { d.note(get(http.DefaultClient, s.Ready.Gateway+"/"+r.name)) })
				}
				all.Wait()
				for end := time.Now().Add(10 * time.Second); r.name != "provided" && templates(t, s.Ready.API, dir+"/.ebb") < 1 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				}
			}
			if len(d.spaces) < drawing || len(d.by) < 5*len(d.spaces) {
				t.Errorf("%d Instances drew %d times", len(d.spaces), len(d.by))
			}
			for _, twice := range d.twice {
				t.Error(twice)
			}
		})
	}
}

// templates is how many programs a server holds ready.
func templates(t *testing.T, api, data string) int {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(data, "token"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	m := regexp.MustCompile(`(?m)^ebb_templates_ready (\d+)`).FindSubmatch(text)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// drawn is what was drawn.
type drawn struct {
	mu     sync.Mutex
	by     map[string]string // Instance and time, by what it drew
	spaces map[string]string // what an Instance drew at its init
	twice  []string
}

func (d *drawn) instances() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.spaces)
}

func (d *drawn) note(status int, body string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var a struct {
		Space      string
		Init, Call map[string]any
	}
	if err := json.Unmarshal([]byte(body), &a); status != 200 || err != nil || len(a.Init) < 5 {
		d.twice = append(d.twice, fmt.Sprintf("got %d %s (%v)", status, body, err))
		return
	}
	if _, known := d.spaces[a.Space]; !known {
		d.spaces[a.Space] = body
		d.add(a.Space+" at its init", a.Init)
	}
	d.add(a.Space+" in a call", a.Call)
}

func (d *drawn) add(who string, all map[string]any) {
	for what, value := range all {
		key := fmt.Sprint(what, " ", value)
		if other, ok := d.by[key]; ok {
			d.twice = append(d.twice, fmt.Sprintf("%s and %s drew the same %s", other, who, key))
		}
		d.by[key] = who
	}
}
