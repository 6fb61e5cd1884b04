package api

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
)

// Remote says how to reach a Node on another machine.
type Remote struct {
	URL string // "https://host:port"
	Key identity.Secret
	// CA is the certificates, PEM, that the server's must come from. Without it the fingerprint in the key decides, and without one
	// in it the machine's own roots.
	CA []byte
	// SystemCA makes the machine's own roots decide whatever the key says.
	SystemCA bool
}

// ParseServer reads the URL of a server. A key is only sent over TLS, so no other scheme will do.
func ParseServer(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err == nil && u.Scheme == "http" && u.Host != "":
		return nil, errs.New(errs.Invalid, "%s is not https, and a key is never sent in clear", text).
			WithHint("Write https://%s; the server wants --tls-self-signed, --tls-cert and --tls-key, or --tls-domain.", u.Host)
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil:
		return nil, errs.New(errs.Invalid, "%q is not the URL of a server", text).WithHint("Write it as https://HOST:PORT.")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errs.New(errs.Invalid, "%q has more than a host and a port", text).WithHint("Write it as https://%s.", u.Host)
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host)}, nil
}

// NewRemoteClient returns a client that proves who it is with a key, and wants proof of who the server is.
func NewRemoteClient(r Remote) (*Client, error) {
	u, err := ParseServer(r.URL)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case len(r.CA) > 0:
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(r.CA) {
			return nil, errs.New(errs.Invalid, "the CA given holds no certificate").WithHint("Give --server-ca a PEM file, such as `ebb keys ca` prints on the server.")
		}
	case r.Key.Fingerprint != "" && !r.SystemCA:
		conf.InsecureSkipVerify = true // the next line verifies, against the one CA that the key names
		conf.VerifyConnection = pinned(u.Hostname(), r.Key.Fingerprint)
	}
	return &Client{base: u.String(), bearer: r.Key.Bearer(), remote: true, http: &http.Client{
		Transport: &http.Transport{
			// A proxy sees the server's name and bytes that it cannot read.
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 15 * time.Second,
			DialContext:         (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
			MaxIdleConnsPerHost: parallelUploads, IdleConnTimeout: 30 * time.Second,
			HTTP2: &http.HTTP2Config{SendPingTimeout: 20 * time.Second, PingTimeout: 20 * time.Second}, // a server that is gone is noticed
		},
		// The API redirects nowhere, and a key must not follow who does.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// wrongCA is a server whose certificate does not come from the CA that the key names.
type wrongCA struct{ want string }

func (e wrongCA) Error() string {
	return "the server's certificate does not come from the CA that the key names (" + e.want + ")"
}

// pinned verifies a server's chain against the one certificate in it that has the fingerprint.
func pinned(host, fingerprint string) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		o := x509.VerifyOptions{DNSName: host, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
		found := false
		for _, c := range cs.PeerCertificates[1:] {
			sum := sha256.Sum256(c.Raw)
			if base64.RawURLEncoding.EncodeToString(sum[:]) == fingerprint {
				o.Roots.AddCert(c)
				found = true
			}
			o.Intermediates.AddCert(c)
		}
		if !found {
			return wrongCA{fingerprint}
		}
		_, err := cs.PeerCertificates[0].Verify(o)
		return err
	}
}

// unreachable says in the caller's terms why a call came to nothing.
func (c *Client) unreachable(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var dns *net.DNSError
	var wrong wrongCA
	e := func(format string, a ...any) *errs.Error { return errs.New(errs.Unavailable, format, a...) }
	switch {
	case errors.As(err, &wrong):
		return e("%s: %s", c.base, wrong).WithHint("Compare with the fingerprint that `ebb keys ca` prints on the server. If its certificate now comes from elsewhere, " +
			"make a new key there, or give --server-ca FILE (--server-ca system: the CAs this machine trusts).")
	case errors.As(err, &unknown):
		return e("the certificate of %s comes from a CA that is not trusted", c.base).
			WithHint("Give the server's CA with --server-ca FILE (`ebb keys ca` prints it there). If it is the right file already, this is another server.")
	case errors.As(err, &name):
		return e("the certificate of %s is not for that name but for %s", c.base, strings.Join(namesOf(name.Certificate), ", ")).
			WithHint("Use one of those names in --server, or start the server with --tls-names %s.", name.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return e("the certificate of %s is not valid now: it is from %s to %s", c.base, invalid.Cert.NotBefore.Format(time.DateOnly), invalid.Cert.NotAfter.Format(time.DateOnly)).
			WithHint("See whether the clocks of both machines are right; else the server needs a new certificate.")
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return e("%s does not speak TLS: plain HTTP, or something else, is at that port", c.base).
			WithHint("See the address that `ebb serve` prints for its control API; is this its gateway's, or a port before a proxy?")
	case errors.As(err, &alert), strings.Contains(err.Error(), "tls: "):
		return e("TLS with %s failed: %w", c.base, tidy(err)).WithHint("See whether the port is that of ebb's control API, and what the server's log says.")
	case errors.As(err, &dns):
		return e("the name %s is not found", dns.Name).WithHint("See the spelling of --server.")
	case errors.Is(err, syscall.ECONNREFUSED) && c.remote:
		return e("nothing answers at %s", c.base).WithHint("Is `ebb serve --api-listen` running there, and the port open in its firewall?")
	case errors.Is(err, syscall.ECONNREFUSED):
		return e("no ebb answers at %s", c.base).WithHint("Start one with `ebb up` or `ebb serve`.")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return e("%s does not answer in time", c.base).WithHint("Is the port open in the server's firewall?")
	case c.remote:
		return e("call %s: %w", c.base, tidy(err)).WithHint("See whether the server still runs. What has arrived is kept: the same command goes on from there.")
	}
	return e("call control API: %w", err).WithHint("See whether ebb still runs; its own output may say why it went.")
}

// tidy leaves out what net/http puts before an error: method and URL.
func tidy(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func namesOf(c *x509.Certificate) []string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return []string{"no name"}
	}
	return names
}

// foreign says what an answer is that is none of the control API.
func (c *Client) foreign(resp *http.Response, body []byte) error {
	switch {
	case strings.Contains(string(body), "HTTP request to an HTTPS server"):
		return errs.New(errs.Invalid, "%s is plain HTTP, and TLS is at that port", c.base).
			WithHint("Write https:// in place of http://, and give a key.")
	case resp.StatusCode >= 300 && resp.StatusCode < 400, c.remote:
		return errs.New(errs.Unavailable, "what answers at %s is not ebb's control API (%s)", c.base, resp.Status).
			WithHint("See the address that `ebb serve` prints for its control API; is this its gateway's?")
	}
	return errs.New(errs.Internal, "the control API answered %s", resp.Status)
}

// String names the server, never the key.
func (c *Client) String() string { return fmt.Sprintf("client of %s", c.base) }
