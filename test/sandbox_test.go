package test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

const sandboxYAML = `service: boxed
provider:
  name: aws
  runtime: nodejs20.x
functions:
  try:
    handler: handler.try
    events: [httpApi: GET /try]
  packet:
    handler: handler.packet
    events: [httpApi: GET /packet]
  machine:
    handler: handler.machine
    events: [httpApi: GET /machine]
`

const sandboxJS = `
const os = require('os'), fs = require('fs'), cp = require('child_process')
// Not by fetch: that of Node 20 leaves its promise open, now and then, where a connection is reset as soon as it stands.
exports.try = async e => new Promise(done => {
  require('http').get(e.queryStringParameters.url, r => {
    let text = ''
    r.on('data', d => { text += d }).on('end', () => done(text))
  }).on('error', err => { console.log(err); done('refused') })
})
exports.packet = async () => new Promise(done => {
  const s = require('dgram').createSocket('udp4')
  s.send('x', 123, '198.51.100.7', err => { s.close(); done(err ? err.code : 'sent') })
})
exports.machine = async () => {
  let home = 'written'
  try { fs.mkdirSync(os.homedir()) } catch (err) { home = err.code }
  fs.writeFileSync('/tmp/own', 'tmp')
  return [os.homedir(), home, String(process.env.HOME), fs.readFileSync('/tmp/own', 'utf8'), fs.existsSync('/etc/os-release'),
    cp.execFileSync('sh', ['-c', 'echo child']).toString().trim()].join(' ')
}
`

// needIsolation skips where functions are not isolated.
func needIsolation(t *testing.T) {
	t.Helper()
	if r := ebb.Run(t, t.TempDir(), "doctor"); !strings.Contains(r.Stdout, "ok    network: loopback alone") {
		t.Skipf("functions have no network of their own on this machine:\n%s", r.Stdout)
	}
}

func TestSandbox_SaysWhyAConnectionFailedAndHowToAllowIt(t *testing.T) {
	t.Parallel()
	needIsolation(t)
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("this machine")) }))
	t.Cleanup(own.Close)
	_, port, err := net.SplitHostPort(own.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dir := project(t, map[string]string{"serverless.yml": sandboxYAML, "handler.js": sandboxJS})
	data := t.TempDir()
	s := ebb.Start(t, dir, data, "up", "--no-watch", "--listen", "127.0.0.1:0")
	missing := "ebb: connection to no-such-name.invalid:80: "
	var unknown *net.DNSError
	if _, err := net.DefaultResolver.LookupHost(t.Context(), "no-such-name.invalid."); errors.As(err, &unknown) && unknown.IsNotFound {
		missing = "ENOTFOUND no-such-name.invalid" // as the client says it: this machine's resolver knows
	}
	for url, want := range map[string]string{
		"http://169.254.169.254/": "ebb: connection to 169.254.169.254:80 is not allowed: 169.254.169.254 is a link-local address, where clouds keep their metadata; " +
			"allow it with --egress anything,169.254.169.254:80",
		"http://no-such-name.invalid/": missing,
		"http://localhost:" + port:     "A server of this machine is reached where --egress names it: --egress anything,localhost:" + port,
	} {
		if status, body := get(http.DefaultClient, s.Ready.Gateway+"/try?url="+url); status != 200 || body != "refused" {
			t.Errorf("%s: got %d %s\n%s", url, status, body, s.Stderr())
		}
		eventually(t, want, func() bool { return strings.Contains(ebb.Run(t, dir, "logs", "--data", data).Stdout, want) })
	}
	s.Interrupt(t)
	s = ebb.Start(t, dir, data, "up", "--no-watch", "--listen", "127.0.0.1:0", "--egress", "anything,localhost:"+port)
	for _, host := range []string{"localhost", "127.0.0.1"} {
		if status, body := get(http.DefaultClient, s.Ready.Gateway+"/try?url=http://"+host+":"+port); status != 200 || body != "this machine" {
			t.Errorf("%s, allowed: got %d %s", host, status, body)
		}
	}
}

func TestSandbox_SaysThatUDPIsRefused(t *testing.T) {
	t.Parallel()
	needIsolation(t)
	dir := project(t, map[string]string{"serverless.yml": sandboxYAML, "handler.js": sandboxJS})
	data := t.TempDir()
	s := ebb.Start(t, dir, data, "up", "--no-watch", "--listen", "127.0.0.1:0")
	for range 2 {
		if status, body := get(http.DefaultClient, s.Ready.Gateway+"/packet"); status != 200 || body != "EPERM" {
			t.Fatalf("got %d %s", status, body)
		}
	}
	logs := ""
	eventually(t, "the log says so", func() bool {
		logs = ebb.Run(t, dir, "logs", "--data", data).Stdout
		return strings.Contains(logs, "ebb: UDP to 198.51.100.7:123 is refused")
	})
	if n := strings.Count(logs, "ebb: UDP to "); n != 1 {
		t.Errorf("it says so %d times:\n%s", n, logs)
	}
}

func TestSandbox_SaysWhichInterpreterItHasNot(t *testing.T) {
	t.Parallel()
	needIsolation(t)
	tools := project(t, map[string]string{"interpreter": "#!/bin/sh\nexit 1\n"})
	dir := project(t, map[string]string{"serverless.yml": "service: script\nprovider: {name: aws, runtime: provided.al2023}\nfunctions: {script: {handler: none}}\n", "bootstrap": "#!" + tools + "/interpreter\n"})
	ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--no-watch", "--listen", "127.0.0.1:0")
	r := ebb.Run(t, dir, "invoke", "script")
	if r.Code == 0 || !strings.Contains(r.Stderr, "its interpreter "+tools+"/interpreter is on this machine, but not inside the sandbox") || !strings.Contains(r.Stderr, "--isolation none") {
		t.Errorf("got %d, %s", r.Code, r.Stderr)
	}
}

func TestSandbox_LooksLikeLambdas(t *testing.T) {
	t.Parallel()
	needIsolation(t)
	dir := project(t, map[string]string{"serverless.yml": sandboxYAML, "handler.js": sandboxJS})
	s := ebb.Start(t, dir, t.TempDir(), "up", "--no-watch", "--listen", "127.0.0.1:0")
	want := "/home/sbx_user1051 EROFS undefined tmp true child"
	if status, body := get(http.DefaultClient, s.Ready.Gateway+"/machine"); status != 200 || body != want {
		t.Errorf("got %d %q, want %q", status, body, want)
	}
}
