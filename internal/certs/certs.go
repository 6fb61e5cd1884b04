// Package certs gives a server the certificates that it proves itself with.
//
// Main type: [Source], made from files ([FromFiles]), from a CA of the Node's own ([OpenOwn]) or by ACME ([OpenACME]).
//
// Guarantees:
//
//  1. Files that change are read again without a restart; while what is in them is not right, the certificate before serves on.
//  2. The own CA's key is made once, with mode 0600, and is on disk before anything is signed with it. One that others can read is refused.
//  3. What the own CA signs is for servers, for the names it was given, for 90 days; it is made anew before it ends.
//  4. TLS 1.2 is the least, with Go's choice of ciphers, and HTTP/2 is offered.
//
// It trusts nothing: what a client trusts is the client's part (package api).
package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Source is where certificates come from. It may be used concurrently.
type Source struct {
	get   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	ca    *x509.Certificate // nil where it is not ebb's own
	extra []string          // further protocols: how ACME proves the name
	close func()
}

// Config returns a server's settings.
func (s *Source) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: append([]string{"h2", "http/1.1"}, s.extra...), GetCertificate: s.get}
}

// CA is the own CA's certificate, or nil.
func (s *Source) CA() *x509.Certificate { return s.ca }

// Close ends what works in the background. It is idempotent.
func (s *Source) Close() error {
	if s.close != nil {
		s.close()
	}
	return nil
}

// Fingerprint names a certificate: the base64url form of the SHA-256 of its bytes.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// PEM is a certificate's text.
func PEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// lookAgain is how often files are looked at, at most.
const lookAgain = time.Second

// files is a pair of files that may change at any time.
type files struct {
	cert, key string
	log       *slog.Logger
	now       func() time.Time
	mu        struct {
		sync.Mutex
		pair   *tls.Certificate
		seen   [2]stamp // what pair was read from
		failed string   // why files could not be used: said once
		looked time.Time
	}
}

type stamp struct {
	changed time.Time
	size    int64
	mode    fs.FileMode
}

// FromFiles serves the certificate chain and key in two PEM files.
func FromFiles(cert, key string, log *slog.Logger) (*Source, error) {
	return fromFiles(cert, key, log, time.Now)
}

func fromFiles(cert, key string, log *slog.Logger, now func() time.Time) (*Source, error) {
	f := &files{cert: cert, key: key, log: log, now: now}
	f.mu.Lock()
	defer f.mu.Unlock()
	seen, err := f.stamps()
	if err == nil {
		f.mu.seen, f.mu.looked = seen, now()
		err = f.read()
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the certificate for TLS: %w", err).
			WithHint("--tls-cert wants the chain, the server's own first, and --tls-key its key, both PEM.")
	}
	return &Source{get: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.get(), nil }}, nil
}

// stamps is what tells a changed pair, symbolic links followed.
func (f *files) stamps() (out [2]stamp, err error) {
	for i, name := range []string{f.cert, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			return out, err
		}
		out[i] = stamp{info.ModTime(), info.Size(), info.Mode()}
	}
	if out[1].mode.Perm()&0o007 != 0 {
		return out, errs.New(errs.Forbidden, "everybody on this machine can read the key %s (mode %04o)", f.key, out[1].mode.Perm()).
			WithHint("Run: chmod 600 %s", f.key)
	}
	return out, nil
}

// read reads the pair. mu is held.
func (f *files) read() error {
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return err
	}
	f.mu.pair = &pair
	return nil
}

func (f *files) get() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if now.Sub(f.mu.looked) < lookAgain {
		return f.mu.pair
	}
	f.mu.looked = now
	seen, err := f.stamps()
	if err == nil && seen == f.mu.seen {
		return f.mu.pair
	}
	if err == nil {
		err = f.read()
	}
	if err == nil {
		f.mu.seen, f.mu.failed = seen, ""
		f.log.Info("the certificate for TLS was read again", "file", f.cert)
		return f.mu.pair
	}
	// Half of a change, or a mistake: what was right serves on, and the files are looked at again.
	if err.Error() != f.mu.failed {
		f.log.Error("the certificate for TLS changed and cannot be used; the one before serves on", "file", f.cert, "error", err)
	}
	f.mu.failed = err.Error()
	return f.mu.pair
}
