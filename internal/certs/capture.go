package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
)

// maxLeaves bounds the certificates that are kept; guests choose their names.
const maxLeaves = 1000

// captured signs for names as they are asked for.
type captured struct {
	ca      *x509.Certificate
	key     *ecdsa.PrivateKey // the CA's
	leafKey *ecdsa.PrivateKey // of all that it signs
	domains []string
	now     func() time.Time
	mu      struct {
		sync.Mutex
		leaves map[string]*tls.Certificate
	}
}

// OpenCaptured serves certificates for every name below the domains, of a CA in dir that can sign for no others; it is made where it is missing. Its
// file is sealed by box; by none that is nil.
func OpenCaptured(dir string, domains []string, box *seal.Box) (*Source, error) {
	return openCaptured(dir, domains, box, time.Now)
}

func openCaptured(dir string, domains []string, box *seal.Box, now func() time.Time) (*Source, error) {
	c := &captured{domains: domains, now: now}
	c.mu.leaves = map[string]*tls.Certificate{}
	var err error
	if c.ca, c.key, err = loadCAFor(dir, domains, box, now()); err != nil {
		return nil, fmt.Errorf("open the CA of captured names: %w", err)
	}
	if c.leafKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	return &Source{get: c.get, ca: c.ca}, nil
}

func (c *captured) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if !c.covers(name) {
		return nil, errs.New(errs.Invalid, "there is no certificate for %q", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.mu.leaves[name]; l != nil && c.now().Before(l.Leaf.NotAfter.Add(-leafLife/3)) {
		return l, nil
	}
	leaf, err := c.sign(name)
	if err != nil {
		return nil, err
	}
	if len(c.mu.leaves) >= maxLeaves {
		clear(c.mu.leaves)
	}
	c.mu.leaves[name] = leaf
	return leaf, nil
}

func (c *captured) covers(name string) bool {
	for _, d := range c.domains {
		if strings.HasSuffix(name, "."+d) && len(name) < 254 {
			return true
		}
	}
	return false
}

func (c *captured) sign(name string) (*tls.Certificate, error) {
	now := c.now()
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "ebb"}, NotBefore: now.Add(-backdate), NotAfter: now.Add(leafLife), DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.ca, c.leafKey.Public(), c.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: c.leafKey, Leaf: leaf}, nil
}
