package lambda_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/sandbox"
)

var captured = guest.Capture{
	URL: "http://127.0.0.1:4566", Domains: []string{"amazonaws.com", "api.aws"}, TLS: "127.0.0.1:1", Clear: "127.0.0.1:2", Proxy: "http://i:t@127.0.0.1:3",
	CA: "/c/ca.pem", Roots: "/c/roots.pem", Empty: "/c/empty",
}

// capturedEnv is the environment of a function with variables of its own, and its code's folder.
func capturedEnv(t *testing.T, p *lambda.Protocol, runtime string, c guest.Capture, env ...string) (map[string]string, string) {
	t.Helper()
	u := unit(runtime, "index.handler", write(t, map[string]string{"index.js": "", "bootstrap": "#!/bin/sh\n", "index.py": ""}))
	u.Interpreter, u.Capture, u.Env = []string{"/bin/node"}, &c, env
	if runtime == "provided.al2023" {
		u.Interpreter = nil
	}
	code, err := p.Code(u, "")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, kv := range code.Env {
		name, value, _ := strings.Cut(kv, "=")
		if _, twice := got[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		got[name] = value
	}
	for _, file := range []string{c.CA, c.Roots, c.Empty} {
		if file != "" && !slices.ContainsFunc(code.Mounts, func(m sandbox.Mount) bool { return m.Source == file }) {
			t.Errorf("%s is not shown", file)
		}
	}
	return got, u.Root
}

func TestCapture_LeadsEachRuntimeHere(t *testing.T) {
	t.Parallel()
	p := protocol(t)
	for _, runtime := range []string{"nodejs22.x", "python3.12", "provided.al2023"} {
		got, _ := capturedEnv(t, p, runtime, captured)
		dir := got["LAMBDA_RUNTIME_DIR"]
		for name, want := range map[string]string{
			"AWS_ENDPOINT_URL": captured.URL, "HTTPS_PROXY": captured.Proxy, "https_proxy": captured.Proxy, "HTTP_PROXY": captured.Proxy, "http_proxy": captured.Proxy,
			"NO_PROXY": "localhost,127.0.0.1,::1", "no_proxy": "localhost,127.0.0.1,::1", "AWS_CONFIG_FILE": captured.Empty, "AWS_SHARED_CREDENTIALS_FILE": captured.Empty,
			"AWS_EC2_METADATA_DISABLED": "true", "NODE_EXTRA_CA_CERTS": captured.CA, "AWS_CA_BUNDLE": captured.Roots, "SSL_CERT_FILE": captured.Roots, "REQUESTS_CA_BUNDLE": captured.Roots,
			"NODE_OPTIONS": `--require "` + dir + `/node-capture.cjs"`, "PYTHONPATH": dir + "/capture", "_EBB_CAPTURE": "127.0.0.1:1 127.0.0.1:2 amazonaws.com api.aws",
		} {
			if got[name] != want {
				t.Errorf("%s: %s=%s, want %s", runtime, name, got[name], want)
			}
		}
	}
}

func TestCapture_TakesOfTheProjectsWhatDoesNotLeadPastIt(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := t.TempDir()
	p := protocol(t)
	const own, none = "(the project's)", "(none)"
	for _, c := range []struct{ kv, want string }{
		{"HTTPS_PROXY=http://other:1", captured.Proxy},
		{"http_proxy=http://other:1", captured.Proxy},
		{"ALL_PROXY=socks5://other:1", none},
		{"NO_PROXY=example.org, 10.0.0.0/8,db:5432", "localhost,127.0.0.1,::1,example.org, 10.0.0.0/8,db:5432"},
		{"NO_PROXY=*", "localhost,127.0.0.1,::1"},
		{"no_proxy=a.example,.amazonaws.com,s3.amazonaws.com:443,com,aws,API.AWS,169.254.169.254,169.254.0.0/16,0.0.0.0/0,[fd00:ec2::254],b.example", "localhost,127.0.0.1,::1,a.example,b.example"},
		{"HOME=" + home, none},
		{"HOME=" + plain, own},
		{"HOME=here", none},
		{"AWS_CONFIG_FILE=" + home + "/.aws/config", captured.Empty},
		{"AWS_CONFIG_FILE=aws/config", own},
		{"AWS_CONFIG_FILE=../../aws/config", captured.Empty},
		{"AWS_SHARED_CREDENTIALS_FILE=/var/task/aws", "{root}/aws"},
		{"AWS_SHARED_CREDENTIALS_FILE=/var/task/../../root/.aws/credentials", captured.Empty},
		{"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.2/", none},
		{"AWS_CONTAINER_AUTHORIZATION_TOKEN=t", none},
		{"AWS_EC2_METADATA_DISABLED=false", "true"},
		{"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1", none},
		{"AWS_WEB_IDENTITY_TOKEN_FILE=/t", none},
		{"BOTO_CONFIG=/root/.boto", none},
		{"AWS_PROFILE=mine", own},
		{"AWS_ENDPOINT_URL=http://127.0.0.1:8000", own},
		{"AWS_CA_BUNDLE=/var/task/ca.pem", own},
		{"_EBB_CAPTURE=x", "127.0.0.1:1 127.0.0.1:2 amazonaws.com api.aws"},
		{"NODE_OPTIONS=--enable-source-maps", `--require "{boot}/node-capture.cjs" --enable-source-maps`},
		{"PYTHONPATH=/var/task/lib:/x", "{boot}/capture:/var/task/lib:/x"},
	} {
		got, root := capturedEnv(t, p, "nodejs22.x", captured, c.kv)
		name, value, _ := strings.Cut(c.kv, "=")
		want := strings.NewReplacer(own, value, none, "", "{root}", root, "{boot}", got["LAMBDA_RUNTIME_DIR"]).Replace(c.want)
		if have, ok := got[name]; have != want || ok == (c.want == none) {
			t.Errorf("%s became %q, want %q", c.kv, have, want)
		}
		said := slices.Contains(lambda.Withheld([]string{c.kv}, captured.Domains), name)
		kept := want == value || strings.HasSuffix(want, value) || strings.HasPrefix(c.want, "{root}")
		if said == kept {
			t.Errorf("%s is said to be withheld: %v", c.kv, said)
		}
	}
}

// places answers each connection with a name.
func places(t *testing.T) (c guest.Capture) {
	t.Helper()
	listen := func(name string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, name)
				_ = c.Close()
			}
		}()
		return l.Addr().String()
	}
	c = captured
	c.TLS, c.Clear = listen("tls"), listen("clear")
	c.CA, c.Roots = "", ""
	return c
}

// hooked runs a program of an interpreter in the environment of a captured function, which prints a JSON object.
func hooked(t *testing.T, command []string, name, text string, more ...string) map[string]string {
	t.Helper()
	c := places(t)
	env, _ := capturedEnv(t, protocol(t), "nodejs22.x", c, more...)
	file := filepath.Join(write(t, map[string]string{name: text}), name)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], file)...)
	for _, name := range []string{"_EBB_CAPTURE", "NODE_OPTIONS", "PYTHONPATH"} {
		cmd.Env = append(cmd.Env, name+"="+env[name])
	}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	got := map[string]string{}
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, said.String())
	}
	return got
}

const nodeConnects = `
const net = require('net'), dns = require('dns'), http = require('http'), http2 = require('http2'), wt = require('worker_threads'), cp = require('child_process');
const host = 'SQS.eu-west-1.amazonaws.com.';
const read = (s) => new Promise((done) => { let all = ''; s.on('data', (b) => { all += b; }).on('end', () => done(all)).on('error', (e) => done(e.code)); });
const ways = {
  'options': () => read(net.connect({ host, port: 443, family: 6, lookup: () => { throw new Error('asked'); } })),
  'port and host': () => read(net.connect(80, host)),
  'port as text': () => read(net.createConnection('443', host)),
  'socket': () => read(new net.Socket().connect({ port: 443, host })),
  'socket by port': () => read(new net.Socket().connect(80, host, () => {})),
  'raw': () => new Promise((done) => http.get({ host, port: 80 }).on('error', (e) => done(e.code))),
  'http2': () => new Promise((done) => http2.connect('http://x.api.aws').on('connect', (h, s) => done(s.remoteAddress)).on('error', (e) => done(e.code))),
  'lookup': async () => read(net.connect(443, (await dns.promises.lookup(host)).address)),
  'lookup back': () => new Promise((done) => dns.lookup(host, (e, a, f) => done(e || a + ' ' + f))),
  'lookup all': () => new Promise((done) => dns.lookup(host, { all: true }, (e, a) => done(JSON.stringify(e || a)))),
  'lookup 6': () => dns.promises.lookup(host, 6).catch((e) => e.code),
  'resolve': async () => String(await new dns.promises.Resolver().resolve4(host)),
  'resolve back': () => new Promise((done) => new dns.Resolver().resolve(host, (e, a) => done(String(e || a)))),
  'resolve 6': () => dns.promises.resolve6(host).catch((e) => e.code),
  'module': async () => read((await import('node:net')).createConnection(443, host)),
  'named': async () => (await (await import('node:dns/promises')).lookup(host)).address,
  'worker': () => new Promise((done) => new wt.Worker("require('net').connect(443, 'a.api.aws').on('data', (b) => require('worker_threads').parentPort.postMessage(String(b)))", { eval: true }).once('message', done)),
  'child': () => cp.execFileSync(process.execPath, ['-e', "require('net').connect(80, 'a.api.aws').on('data', (b) => process.stdout.write(b))"]).toString(),
  'other port': () => read(net.connect(8443, host)),
  'metadata': () => read(net.connect(80, '169.254.169.254')),
  'metadata 6': () => read(net.connect(80, 'fd00:ec2::254')),
  'local': () => new Promise((done, failed) => { const l = net.createServer((c) => c.end('local')).listen(0, '127.0.0.1', () => read(net.connect(l.address().port, 'localhost')).then((a) => { l.close(); done(a); }, failed)); }),
  'path': () => read(net.connect('/nowhere.sock')),
  'path option': () => read(net.connect({ path: '/nowhere.sock', host })),
  'none': () => { try { net.connect(); return 'connected'; } catch (e) { return e.code; } },
};
(async () => {
  const out = {};
  for (const [name, way] of Object.entries(ways)) { process.stderr.write(name + '\n'); out[name] = await way(); }
  console.log(JSON.stringify(out));
})();
`

func TestCapture_NodeConnectsHere(t *testing.T) {
	t.Parallel()
	got := hooked(t, interpreter(t, "EBB_TEST_NODE", "node"), "a b.js", nodeConnects)
	for name, want := range map[string]string{
		"options": "tls", "port and host": "clear", "port as text": "tls", "socket": "tls", "socket by port": "clear", "raw": "HPE_INVALID_CONSTANT", "http2": "127.0.0.1", "lookup": "tls",
		"lookup back": "198.18.0.1 4", "lookup all": `[{"address":"198.18.0.1","family":4}]`, "lookup 6": "ENOTFOUND", "resolve": "198.18.0.1", "resolve back": "198.18.0.1",
		"resolve 6": "ENODATA", "module": "tls", "named": "198.18.0.1", "worker": "tls", "child": "clear", "other port": "ECONNREFUSED", "metadata": "EHOSTUNREACH",
		"metadata 6": "EHOSTUNREACH", "local": "local", "path": "ENOENT", "path option": "ENOENT", "none": "ERR_MISSING_ARGS",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

const pythonConnects = `
import asyncio, json, os, socket, subprocess, sys, threading
HOST = "SQS.eu-west-1.amazonaws.com."
def read(s):
    with s:
        return s.makefile().read()
def plain(host, port):
    s = socket.socket()
    s.connect((host, port))
    return read(s)
def connect_ex(host, port):
    s = socket.socket()
    return str(s.connect_ex((host, port)) or read(s))
async def stream(host, port):
    r, w = await asyncio.open_connection(host, port)
    data = await r.read()
    w.close()
    return data.decode()
def local():
    l = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: (lambda c: (c.sendall(b"local"), c.close()))(l.accept()[0])).start()
    return read(socket.create_connection(l.getsockname()))
def child():
    return subprocess.run([sys.executable, "-c", "import socket; print(socket.create_connection(('a.api.aws', 80)).recv(9).decode(), end='')"], stdout=subprocess.PIPE).stdout.decode()
def udp():
    a, b = socket.socketpair(socket.AF_UNIX)
    a.sendall(b"pair")
    return b.recv(9).decode()
ways = {
    "create": lambda: read(socket.create_connection((HOST, 443))),
    "bytes": lambda: socket.gethostbyname(HOST.encode().decode()),
    "connect": lambda: plain(HOST, 80),
    "connect_ex": lambda: connect_ex(HOST, 443),
    "address": lambda: read(socket.create_connection(socket.getaddrinfo(HOST.encode(), 443, type=socket.SOCK_STREAM)[0][4])),
    "by name ex": lambda: str(socket.gethostbyname_ex(HOST)),
    "six": lambda: socket.getaddrinfo(HOST, 443, socket.AF_INET6),
    "asyncio": lambda: asyncio.new_event_loop().run_until_complete(stream(HOST, 443)),
    "child": child,
    "other port": lambda: plain(HOST, 8443),
    "other port ex": lambda: connect_ex(HOST, 8443),
    "metadata": lambda: plain("169.254.169.254", 80),
    "local": local,
    "pair": udp,
    "own": lambda: str(sys.modules["sitecustomize"].own),
    "path": lambda: str([p for p in sys.path if p.endswith("/capture")]),
}
out = {}
for name, f in ways.items():
    try:
        out[name] = f()
    except Exception as e:
        out[name] = type(e).__name__
print(json.dumps(out))
`

func TestCapture_PythonConnectsHere(t *testing.T) {
	t.Parallel()
	own := write(t, map[string]string{"sitecustomize.py": "import socket\nown = 'the project'"})
	got := hooked(t, interpreter(t, "EBB_TEST_PYTHON", "python3"), "a.py", pythonConnects, "PYTHONPATH="+own)
	for name, want := range map[string]string{
		"create": "tls", "bytes": "198.18.0.1", "connect": "clear", "connect_ex": "tls", "address": "tls", "by name ex": "('SQS.eu-west-1.amazonaws.com.', [], ['198.18.0.1'])",
		"six": "gaierror", "asyncio": "tls", "child": "clear", "other port": "ConnectionRefusedError", "other port ex": "111", "metadata": "OSError", "local": "local", "pair": "pair",
		"own": "the project", "path": "[]",
	} {
		if got[name] != want && (name != "other port ex" || got[name] == "") {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}
