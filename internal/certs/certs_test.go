package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"encoding/pem"

	"github.com/caddyserver/certmagic"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// shake connects over a pipe and returns what the client sees.
func shake(t *testing.T, s *Source, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Server(a, s.Config()).Handshake()
		_ = a.Close()
	}()
	c := tls.Client(b, client)
	err := c.Handshake()
	_ = b.Close()
	<-done
	return c.ConnectionState(), err
}

func pool(c *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c)
	return p
}

func TestOwn_ServesItsNamesAndKeepsItsCA(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	s, err := OpenOwn(dir, []string{"localhost", "127.0.0.1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"localhost": true, "127.0.0.1": true, "other.example": false, "::1": false} {
		cs, err := shake(t, s, &tls.Config{RootCAs: pool(s.CA()), ServerName: name, NextProtos: []string{"h2"}})
		if (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (cs.NegotiatedProtocol != "h2" || len(cs.PeerCertificates) != 2) {
			t.Errorf("%s: %s, %d certificates", name, cs.NegotiatedProtocol, len(cs.PeerCertificates))
		}
	}
	if _, err := shake(t, s, &tls.Config{RootCAs: pool(s.CA()), ServerName: "localhost", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	again, err := OpenOwn(dir, []string{"localhost"}, nil)
	if err != nil || Fingerprint(again.CA()) != Fingerprint(s.CA()) {
		t.Errorf("a restart has another CA: %v", err)
	}
	other, err := OpenOwn(t.TempDir(), []string{"localhost"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shake(t, other, &tls.Config{RootCAs: pool(s.CA()), ServerName: "localhost"}); err == nil {
		t.Error("another CA is taken for it")
	}
	if b, _ := pem.Decode([]byte(PEM(s.CA()))); b == nil || !slices.Equal(b.Bytes, s.CA().Raw) {
		t.Error("PEM is not the certificate")
	}
}

func TestOwn_RenewsBeforeTheEnd(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s, err := openOwn(t.TempDir(), []string{"localhost"}, nil, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first, _ := s.get(nil)
	now = now.Add(59 * 24 * time.Hour)
	if l, _ := s.get(nil); l != first {
		t.Error("made anew too early")
	}
	now = now.Add(2 * 24 * time.Hour)
	if l, err := s.get(nil); err != nil || l == first || l.Leaf.NotAfter.Before(now.Add(89*24*time.Hour)) {
		t.Error("not made anew", err)
	}
}

func TestOwn_RefusesAKeyThatIsOpenOrDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := OpenOwn(dir, nil, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, caFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenOwn(dir, nil, nil); errs.CodeOf(err) != errs.Forbidden || errs.HintOf(err) == "" {
		t.Errorf("readable by all: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 10, len(data) / 2, len(data) - 40} {
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenOwn(dir, nil, nil); errs.CodeOf(err) != errs.Invalid || errs.HintOf(err) == "" {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".ca-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOwn_TwoAtOnceAgreeOnOneCA(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var wg sync.WaitGroup
	prints := make([]string, 8)
	for i := range prints {
		wg.Go(func() {
			s, err := OpenOwn(dir, nil, nil)
			if err != nil {
				t.Error(err)
				return
			}
			prints[i] = Fingerprint(s.CA())
		})
	}
	wg.Wait()
	if slices.Sort(prints); len(slices.Compact(prints)) != 1 {
		t.Errorf("%d CAs", len(slices.Compact(prints)))
	}
}

// pair writes a certificate of a new CA, and its key.
func pair(t *testing.T, dir string) (cert, key []byte) {
	t.Helper()
	s, err := OpenOwn(t.TempDir(), []string{"localhost"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := s.get(nil)
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if dir != "" {
		put(t, filepath.Join(dir, "cert"), cert)
		put(t, filepath.Join(dir, "key"), key)
	}
	return cert, key
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFiles_AreReadAgainWhenTheyChangeAndKeptWhenTheyAreWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair(t, dir)
	now := time.Now()
	var log strings.Builder
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	s, err := fromFiles(cert, key, slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	serves := func() string {
		now = now.Add(2 * time.Second)
		c, err := s.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(c.Certificate[0])
	}
	stampAs := func(at time.Time) { // file systems tell times coarsely
		for _, f := range []string{cert, key} {
			_ = os.Chtimes(f, at, at)
		}
	}
	first := serves()
	newCert, newKey := pair(t, "")
	put(t, cert, newCert) // half of a change
	stampAs(now.Add(time.Minute))
	once, again := serves(), serves()
	if once != first || again != first || strings.Count(log.String(), "cannot be used") != 1 {
		t.Errorf("half of a change: %s", &log)
	}
	put(t, key, newKey)
	stampAs(now.Add(2 * time.Minute))
	second := serves()
	if second == first {
		t.Error("the change is not served")
	}
	for name, spoil := range map[string]func() error{
		"gone": func() error { return os.Remove(key) }, "empty": func() error { return os.WriteFile(cert, nil, 0o600) },
		"open to all": func() error { return os.Chmod(key, 0o644) },
	} {
		put(t, cert, newCert)
		put(t, key, newKey)
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		stampAs(now.Add(3 * time.Minute))
		if serves() != second {
			t.Errorf("%s: something else is served", name)
		}
		_ = os.Chmod(key, 0o600)
	}
}

func TestFiles_ThatAreWrongAtTheStartAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair(t, dir)
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	_, other := pair(t, "")
	put(t, filepath.Join(dir, "other"), other)
	for name, files := range map[string][2]string{
		"no file": {cert, filepath.Join(dir, "none")}, "swapped": {key, cert}, "another's key": {cert, filepath.Join(dir, "other")},
	} {
		if _, err := FromFiles(files[0], files[1], quiet); errs.CodeOf(err) != errs.Invalid || errs.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpen_SealedKeysAreNotInClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box := seal.New().Box("tls")
	for name, open := range map[string]func(dir string, box *seal.Box) (*Source, error){
		"own": func(dir string, box *seal.Box) (*Source, error) { return OpenOwn(dir, []string{"localhost"}, box) },
		"captured": func(dir string, box *seal.Box) (*Source, error) {
			return OpenCaptured(dir, []string{"example.com"}, box)
		},
	} {
		dir := filepath.Join(dir, name)
		s, err := open(dir, box)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, caFile))
		if err != nil || bytes.Contains(data, []byte("PRIVATE")) || bytes.Contains(data, []byte("CERTIFICATE")) {
			t.Errorf("%s: in clear: %v", name, err)
		}
		again, err := open(dir, box)
		if err != nil || !again.CA().Equal(s.CA()) {
			t.Errorf("%s, again: %v", name, err)
		}
		for _, other := range []*seal.Box{nil, seal.New().Box("tls")} {
			if _, err := open(dir, other); errs.CodeOf(err) != errs.Invalid || errs.HintOf(err) == "" {
				t.Errorf("%s by another key: %v", name, err)
			}
		}
	}
	st := sealedStorage{&certmagic.FileStorage{Path: filepath.Join(dir, "acme")}, box}
	if err := st.Store(t.Context(), "a/key", []byte("PRIVATE")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "acme", "a", "key"))
	if err != nil || bytes.Contains(data, []byte("PRIVATE")) {
		t.Errorf("acme: in clear: %v", err)
	}
	if got, err := st.Load(t.Context(), "a/key"); err != nil || string(got) != "PRIVATE" {
		t.Errorf("acme: %q %v", got, err)
	}
	if err := os.Rename(filepath.Join(dir, "acme", "a", "key"), filepath.Join(dir, "acme", "a", "other")); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Load(t.Context(), "a/other"); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("acme, moved: %v", err)
	}
	if _, err := st.Load(t.Context(), "a/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("acme, missing: %v", err)
	}
}
