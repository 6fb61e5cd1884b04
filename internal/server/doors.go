package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/certs"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
)

// doors are what others reach the Node by.
type doors struct {
	gateway net.Listener
	local   net.Listener  // the control API for this machine: loopback, by the token
	remote  net.Listener  // the control API by keys, over TLS; nil without certificates
	certs   *certs.Source // nil without
	plain   bool          // the gateway has no TLS
	names   []string      // public names
}

// openDoors listens. What would let strangers listen in, or in, is refused before.
func (s *Server) openDoors() (err error) {
	cfg := s.o.Config
	if err := mayListen(cfg); err != nil {
		return err
	}
	d := &s.doors
	d.plain = !cfg.TLS() || cfg.PlainHTTP
	// Listen early: a port in use is the most likely mistake, and is told before the slower steps.
	if d.gateway, err = listen(cfg.Listen, "--listen"); err != nil {
		return err
	}
	s.closing(func() error { return ignoreClosed(d.gateway.Close()) })
	local := cfg.APIListen
	if cfg.TLS() {
		local = "127.0.0.1:0"
	}
	if d.local, err = listen(local, "--api-listen"); err != nil {
		return err
	}
	s.closing(func() error { return ignoreClosed(d.local.Close()) })
	if !cfg.TLS() {
		return nil
	}
	if d.remote, err = listen(cfg.APIListen, "--api-listen"); err != nil {
		return err
	}
	s.closing(func() error { return ignoreClosed(d.remote.Close()) })
	if d.certs, err = s.openCerts(); err != nil {
		return err
	}
	s.closing(d.certs.Close)
	conf := d.certs.Config()
	d.remote = secured(d.remote, conf)
	if !d.plain {
		d.gateway = secured(d.gateway, conf)
	}
	return nil
}

func (s *Server) openCerts() (*certs.Source, error) {
	cfg, d := s.o.Config, &s.doors
	dir := filepath.Join(cfg.Data, "tls")
	switch {
	case cfg.TLSOwn:
		return certs.OpenOwn(dir, ownNames(cfg), s.seal.Box("tls"))
	case cfg.TLSCert != "":
		return certs.FromFiles(cfg.TLSCert, cfg.TLSKey, s.o.Log)
	}
	d.names = cfg.TLSDomains
	proof := d.gateway // where the ACME server sees the name proved
	if d.plain {
		proof = d.remote
	}
	return certs.OpenACME(certs.ACMEOptions{
		Dir: filepath.Join(dir, "acme"), Domains: cfg.TLSDomains, Email: cfg.ACME.Email, Directory: cfg.ACME.URL, RootsFile: cfg.ACME.CA,
		Listen: proof.Addr(), Log: s.o.Log, Seal: s.seal.Box("acme"),
	})
}

// mayListen refuses addresses beyond loopback without what protects there.
func mayListen(cfg *config.Config) error {
	if cfg.TLS() {
		return nil
	}
	const ways = "--tls-self-signed, --tls-cert with --tls-key, or --tls-domain"
	if beyond(cfg.APIListen) {
		return errs.New(errs.Invalid, "the control API is served beyond this machine over TLS only, not in clear on %q", cfg.APIListen).
			WithHint("Give it a certificate: %s; callers then need a key (`ebb keys create`). For this machine alone: --api-listen 127.0.0.1:0.", ways)
	}
	if beyond(cfg.Listen) && !cfg.PlainHTTP {
		return errs.New(errs.Invalid, "the gateway would be served in clear beyond this machine on %q", cfg.Listen).
			WithHint("Give it a certificate: %s; or, where a proxy in front has TLS, --plain-http.", ways)
	}
	return nil
}

// beyond says whether others than this machine reach an address; what is none cannot be listened on, and that is said then.
func beyond(addr string) bool {
	_, _, err := net.SplitHostPort(addr)
	return err == nil && !OnThisMachine(addr)
}

// OnThisMachine says whether an address "host:port" is one that this machine alone reaches.
func OnThisMachine(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// ownNames are what the own CA certifies: the names and addresses that this machine may be called by.
func ownNames(cfg *config.Config) []string {
	names := []string{"localhost", "*.localhost", "127.0.0.1", "::1"}
	if h, err := os.Hostname(); err == nil && h != "" {
		names = append(names, strings.ToLower(h))
	}
	for _, addr := range []string{cfg.Listen, cfg.APIListen} {
		host, _, err := net.SplitHostPort(addr)
		ip := net.ParseIP(host)
		switch {
		case err != nil:
		case host == "" || ip != nil && ip.IsUnspecified():
			names = append(names, ownAddresses()...)
		default:
			names = append(names, strings.ToLower(host))
		}
	}
	names = append(names, cfg.TLSNames...)
	slices.Sort(names)
	return slices.Compact(names)
}

func ownAddresses() (list []string) {
	addrs, _ := net.InterfaceAddrs() // without them the certificate has fewer names
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			list = append(list, n.IP.String())
		}
	}
	return list
}

// tlsListener speaks TLS on what it accepts, and else is the listener of the system that the gateway's stop needs.
type tlsListener struct {
	*net.TCPListener
	conf *tls.Config
}

func secured(l net.Listener, conf *tls.Config) net.Listener {
	return tlsListener{l.(*net.TCPListener), conf} // listen opens no other
}

// Accept returns the next connection; its handshake comes with its first read.
func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(c, l.conf), nil
}

// apiServers are the control API's, one for each door.
func (s *Server) apiServers() map[net.Listener]*http.Server {
	serve := func(h http.Handler) *http.Server {
		srv := &http.Server{
			Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug), Protocols: new(http.Protocols),
		}
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetHTTP2(true)
		return srv
	}
	out := map[net.Listener]*http.Server{s.doors.local: serve(api.NewServer(s, s.token, s.o.Log).Take(s.intake))}
	if s.doors.remote != nil {
		out[s.doors.remote] = serve(api.NewRemote(s, s, s.o.Log).Take(s.intake))
	}
	return out
}

// serveAPI serves every door until stop is called, which waits for calls that run, as long as its context lasts.
func (s *Server) serveAPI(wg *sync.WaitGroup, broken func(error)) (stop func(context.Context)) {
	servers := s.apiServers()
	for l, srv := range servers {
		wg.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				broken(fmt.Errorf("serve control API: %w", err))
			}
		})
	}
	return func(ctx context.Context) {
		for _, srv := range servers {
			if srv.Shutdown(ctx) != nil {
				_ = srv.Close()
			}
		}
	}
}

// GatewayURL is where functions answer.
func (s *Server) GatewayURL() string { return s.doors.url(s.doors.gateway, !s.doors.plain) }

// APIURL is where the control API answers this machine's user.
func (s *Server) APIURL() string { return s.doors.url(s.doors.local, false) }

// RemoteURL is where the control API answers keys, or empty.
func (s *Server) RemoteURL() string {
	if s.doors.remote == nil {
		return ""
	}
	return s.doors.url(s.doors.remote, true)
}

func (d *doors) url(l net.Listener, secure bool) string {
	addr := l.Addr().(*net.TCPAddr)
	host, scheme := addr.IP.String(), "http"
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	if secure {
		scheme = "https"
		if len(d.names) > 0 {
			host = d.names[0]
			if addr.Port == 443 {
				return "https://" + host
			}
		}
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(addr.Port))
}
