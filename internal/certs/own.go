package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
)

const (
	caLife   = 20 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	backdate = time.Hour // clocks differ
	caFile   = "ca.pem"  // certificate and key together: one file is there or not
)

// own signs what it serves.
type own struct {
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	names []string
	now   func() time.Time
	mu    struct {
		sync.Mutex
		leaf *tls.Certificate
	}
}

// OpenOwn serves certificates of the CA in dir, which is made where it is missing, for the names and addresses. Its file is sealed by box;
// by none that is nil.
func OpenOwn(dir string, names []string, box *seal.Box) (*Source, error) {
	return openOwn(dir, names, box, time.Now)
}

func openOwn(dir string, names []string, box *seal.Box, now func() time.Time) (*Source, error) {
	o := &own{names: names, now: now}
	var err error
	if o.ca, o.key, err = loadCAFor(dir, nil, box, now()); err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	if _, err := o.get(nil); err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &Source{get: o.get, ca: o.ca}, nil
}

func (o *own) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.mu.leaf; l != nil && o.now().Before(l.Leaf.NotAfter.Add(-leafLife/3)) {
		return l, nil
	}
	leaf, err := o.sign()
	if err != nil {
		return nil, err
	}
	o.mu.leaf = leaf
	return leaf, nil
}

func (o *own) sign() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := o.now()
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "ebb"}, NotBefore: now.Add(-backdate), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, n := range o.names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, o.ca, key.Public(), o.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The CA goes along, though a client that trusts it has it: one that knows its fingerprint alone has not.
	return &tls.Certificate{Certificate: [][]byte{der, o.ca.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

// loadCAFor loads the CA in dir, which is made where it is missing; names are the domains that it may sign for, nil for any.
func loadCAFor(dir string, names []string, box *seal.Box, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, caFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := makeCA(dir, path, names, box, now); err != nil {
			return nil, nil, err
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, nil, errs.New(errs.Forbidden, "the CA's key in %s can be read by others (mode %04o)", path, info.Mode().Perm()).WithHint("Run: chmod 600 %s", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	damaged := errs.New(errs.Invalid, "%s is damaged", path).
		WithHint("Put back a backup, or delete it: ebb then makes a new CA, and who trusts the old one needs the new one or a new key.")
	if data, err = box.Open(nil, data, caFile); err != nil {
		return nil, nil, damaged
	}
	certBlock, rest := pem.Decode(data)
	keyBlock, _ := pem.Decode(rest)
	if certBlock == nil || keyBlock == nil {
		return nil, nil, damaged
	}
	ca, err := x509.ParseCertificate(certBlock.Bytes)
	key, keyErr := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil || keyErr != nil || !key.PublicKey.Equal(ca.PublicKey) || !ca.IsCA {
		return nil, nil, damaged
	}
	if !now.Before(ca.NotAfter) {
		return nil, nil, errs.New(errs.Invalid, "the CA in %s ended at %s", path, ca.NotAfter.Format(time.DateOnly)).
			WithHint("Delete it: ebb then makes a new one, and who trusts the old one needs the new one or a new key.")
	}
	return ca, key, nil
}

func makeCA(dir, path string, names []string, box *seal.Box, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "ebb on " + host}, NotBefore: now.Add(-backdate), NotAfter: now.Add(caLife),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, // whoever trusts it trusts it with no more
	}
	if len(names) > 0 {
		t.Subject.CommonName += " for " + names[0]
		t.PermittedDNSDomains, t.PermittedDNSDomainsCritical = names, true
		_, v4, _ := net.ParseCIDR("0.0.0.0/0") // addresses are none of them
		_, v6, _ := net.ParseCIDR("::/0")
		t.ExcludedIPRanges = []*net.IPNet{v4, v6}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".ca-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})...)
	_, err = f.Write(box.Seal(nil, text, caFile))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// A link, not a rename: of two processes that come here at once, one CA wins and both use it.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
