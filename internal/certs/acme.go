package certs

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
)

// ACMEOptions say how to get certificates by ACME (RFC 8555). Names are proved by the tls-alpn-01 challenge (RFC 8737): the ACME
// server connects to port 443 of the name, which must lead to Listen.
type ACMEOptions struct {
	Dir       string   // account, certificates and their keys
	Domains   []string // public names
	Email     string   // told to the ACME server, for its warnings; may be empty
	Directory string   // URL of the ACME server's directory; empty means Let's Encrypt
	RootsFile string   // PEM file of the CA of the ACME server's own certificate; empty means the machine's roots
	Listen    net.Addr // of a listener that serves with this Source
	Log       *slog.Logger
	Seal      *seal.Box // what the files in Dir are sealed by; nil for none
}

// sealedStorage is certmagic's folder with sealed files.
type sealedStorage struct {
	*certmagic.FileStorage
	box *seal.Box
}

// Store writes a file.
func (s sealedStorage) Store(ctx context.Context, key string, value []byte) error {
	return s.FileStorage.Store(ctx, key, s.box.Seal(nil, value, key))
}

// Load reads one.
func (s sealedStorage) Load(ctx context.Context, key string) ([]byte, error) {
	data, err := s.FileStorage.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	return s.box.OpenFile(key, key, data)
}

// OpenACME serves certificates that an ACME server gives for public names. It returns at once; until the first certificate is there,
// connections fail and the log says why. Certificates are renewed when a third of their life is left.
func OpenACME(o ACMEOptions) (*Source, error) {
	for _, d := range o.Domains {
		if !certmagic.SubjectQualifiesForCert(d) || net.ParseIP(d) != nil {
			return nil, errs.New(errs.Invalid, "%q is not a domain that a certificate can be for", d).WithHint("Give --tls-domain names such as api.example.com.")
		}
	}
	host, port, err := net.SplitHostPort(o.Listen.String())
	if err != nil {
		return nil, fmt.Errorf("open ACME: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("open ACME: %w", err)
	}
	template := certmagic.ACMEIssuer{
		CA: o.Directory, Email: o.Email, Agreed: true, DisableHTTPChallenge: true, ListenHost: host, AltTLSALPNPort: n, Logger: zap.NewNop(),
	}
	if template.CA == "" {
		template.CA = certmagic.LetsEncryptProductionCA
	} else {
		template.TestCA = template.CA // its own is that of Let's Encrypt
	}
	if o.RootsFile != "" {
		data, err := os.ReadFile(o.RootsFile)
		if err != nil {
			return nil, errs.New(errs.Invalid, "read --acme-ca: %w", err)
		}
		template.TrustedRoots = x509.NewCertPool()
		if !template.TrustedRoots.AppendCertsFromPEM(data) {
			return nil, errs.New(errs.Invalid, "--acme-ca %s holds no certificate", o.RootsFile).WithHint("It must be a PEM file.")
		}
	}
	var conf *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return conf, nil }, Logger: zap.NewNop(),
	})
	conf = certmagic.New(cache, certmagic.Config{Storage: sealedStorage{&certmagic.FileStorage{Path: o.Dir}, o.Seal}, Logger: zap.NewNop(), OnEvent: events(o.Log)})
	conf.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(conf, template)}
	ctx, cancel := context.WithCancel(context.Background())
	if err := conf.ManageAsync(ctx, o.Domains); err != nil {
		cancel()
		cache.Stop()
		return nil, fmt.Errorf("manage certificates: %w", err)
	}
	return &Source{get: conf.GetCertificate, extra: []string{"acme-tls/1"}, close: sync.OnceFunc(func() { cancel(); cache.Stop() })}, nil
}

// events tells the log what matters of what certmagic does.
func events(log *slog.Logger) func(context.Context, string, map[string]any) error {
	return func(_ context.Context, event string, data map[string]any) error {
		switch event {
		case "cert_obtained":
			log.Info("a certificate was obtained", "name", data["identifier"], "renewal", data["renewal"])
		case "cert_failed":
			log.Error("a certificate was not obtained; it is tried again. Port 443 of the name must lead to this server", "name", data["identifier"], "error", data["error"])
		}
		return nil
	}
}
