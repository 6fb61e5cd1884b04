package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// pebble is the ACME server that Let's Encrypt tests with; its DNS answers 127.0.0.1 for every name.
type pebble struct {
	url  string // of the directory
	ca   string // PEM file: what its own certificate comes from
	mgmt string
	http *http.Client
}

// startPebble installs and starts one that sees names proved at the port.
func startPebble(t *testing.T, port int) *pebble {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "go", "install", "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1", "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv@v2.10.1")
	install.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("needs pebble, which cannot be installed: %v\n%s", err, out)
	}
	own, err := OpenOwn(t.TempDir(), []string{"127.0.0.1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := own.get(nil)
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	p := &pebble{ca: filepath.Join(dir, "ca.pem")}
	put(t, p.ca, []byte(PEM(own.CA())))
	put(t, filepath.Join(dir, "cert.pem"), []byte(PEM(leaf.Leaf)))
	put(t, filepath.Join(dir, "key.pem"), pemOf("PRIVATE KEY", key))
	// The two want their ports told; these were free a moment ago.
	ports := freePorts(t, 3)
	p.url, p.mgmt = fmt.Sprintf("https://127.0.0.1:%d/dir", ports[0]), fmt.Sprintf("https://127.0.0.1:%d", ports[1])
	conf, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", ports[0]), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", ports[1]),
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"), "httpPort": 1, "tlsPort": port,
	}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "conf.json"), conf)
	dns := fmt.Sprintf("127.0.0.1:%d", ports[2])
	run(t, nil, filepath.Join(dir, "pebble-challtestsrv"), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", dns, "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", "")
	run(t, []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"}, filepath.Join(dir, "pebble"), "-config", filepath.Join(dir, "conf.json"), "-dnsserver", dns)
	p.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(own.CA())}}}
	eventually(t, "pebble answers", func() bool {
		resp, err := p.http.Get(p.url)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	return p
}

// root is what its certificates come from.
func (p *pebble) root(t *testing.T) *x509.CertPool {
	t.Helper()
	resp, err := p.http.Get(p.mgmt + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(data) {
		t.Fatal(err, string(data))
	}
	return roots
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func run(t *testing.T, env []string, path string, args ...string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	said := &lockedText{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(path), said)
		}
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) { // polling, not timing
		if time.Now().After(end) {
			t.Fatalf("not within 60 s: %s", what)
		}
	}
}

type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestACME_GetsACertificateProvesTheNameAndKeepsIt(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := startPebble(t, l.Addr().(*net.TCPAddr).Port)
	log := &lockedText{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	o := ACMEOptions{Dir: filepath.Join(t.TempDir(), "acme"), Domains: []string{"api.ebb.example"}, Directory: p.url, RootsFile: p.ca, Listen: l.Addr(),
		Log: slog.New(slog.NewTextHandler(log, nil))}
	s, err := OpenACME(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelDebug)}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(tls.NewListener(l, s.Config())) }()
	t.Cleanup(func() { _ = srv.Close(); <-served })
	shakes := func(s *Source) error {
		_, err := shake(t, s, &tls.Config{RootCAs: p.root(t), ServerName: "api.ebb.example"})
		return err
	}
	eventually(t, "the certificate is there", func() bool { return shakes(s) == nil })
	if !strings.Contains(log.String(), "a certificate was obtained") {
		t.Errorf("log: %s", log)
	}
	if _, err := shake(t, s, &tls.Config{RootCAs: p.root(t), ServerName: "other.example"}); err == nil {
		t.Error("a name that was not asked for is served")
	}
	// A restart asks for nothing again.
	_ = s.Close()
	list, _ := filepath.Glob(filepath.Join(o.Dir, "certificates", "*", "*", "*.key"))
	if len(list) != 1 {
		t.Fatalf("kept: %v", list)
	}
	if info, err := os.Stat(list[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kept key: %v %v", info.Mode(), err)
	}
	again, err := OpenACME(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	eventually(t, "the kept certificate is served", func() bool { return shakes(again) == nil })
	if n := strings.Count(log.String(), "a certificate was obtained"); n != 1 {
		t.Errorf("obtained %d times", n)
	}
}

func TestACME_RefusesWhatIsNoDomain(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"10.0.0.1", "::1", "a b"} {
		_, err := OpenACME(ACMEOptions{Dir: t.TempDir(), Domains: []string{name}, Listen: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, Log: quiet})
		if errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}
