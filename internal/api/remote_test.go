package api_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/certs"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
)

// anyone lets every bearer in, as an admin.
type anyone struct{}

func (anyone) Authenticate(r *http.Request) (identity.Principal, error) {
	return identity.Principal{Key: "k", Name: r.Header.Get("Authorization"), Role: identity.Admin}, nil
}

// served serves h with certificates of a new CA for the names.
func served(t *testing.T, h http.Handler, names ...string) (url string, ca string, fingerprint string) {
	t.Helper()
	source, err := certs.OpenOwn(t.TempDir(), names, nil)
	if err != nil {
		t.Fatal(err)
	}
	url = secure(t, h, source.Config())
	return url, certs.PEM(source.CA()), certs.Fingerprint(source.CA())
}

// secure serves h over TLS. (httptest would add a certificate of its own.)
func secure(t *testing.T, h http.Handler, conf *tls.Config) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelDebug)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(tls.NewListener(l, conf))
	}()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return "https://" + l.Addr().String()
}

func TestRemoteClient_SaysWhyItTrustsOrNot(t *testing.T) {
	t.Parallel()
	handler := api.NewRemote(&backend{}, anyone{}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	good, ca, fp := served(t, handler, "127.0.0.1")
	_, otherCA, otherFP := served(t, handler, "127.0.0.1")
	misnamed, _, misnamedFP := served(t, handler, "ebb.example", "192.0.2.1")
	web := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "a page", http.StatusBadGateway) })
	foreign, _, foreignFP := served(t, web, "127.0.0.1")
	moved, _, movedFP := served(t, http.RedirectHandler("https://127.0.0.1:1/", http.StatusTemporaryRedirect), "127.0.0.1")
	plain := httptest.NewServer(web)
	t.Cleanup(plain.Close)
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = mute.Close()
	for name, row := range map[string]struct {
		url, ca, fingerprint string
		system               bool
		says, hint           string
	}{
		"fingerprint":           {url: good, fingerprint: fp},
		"file":                  {url: good, ca: ca},
		"file before the key":   {url: good, ca: ca, fingerprint: otherFP},
		"another fingerprint":   {url: good, fingerprint: otherFP, says: "does not come from the CA that the key names", hint: "ebb keys ca"},
		"another CA's file":     {url: good, ca: otherCA, says: "a CA that is not trusted", hint: "--server-ca"},
		"another, before right": {url: good, ca: otherCA, fingerprint: fp, says: "a CA that is not trusted"},
		"the machine's roots":   {url: good, says: "a CA that is not trusted", hint: "ebb keys ca"},
		"roots before the key":  {url: good, fingerprint: fp, system: true, says: "a CA that is not trusted"},
		"another name":          {url: misnamed, fingerprint: misnamedFP, says: "not for that name but for ebb.example, 192.0.2.1", hint: "--tls-names 127.0.0.1"},
		"plain HTTP there":      {url: strings.Replace(plain.URL, "http:", "https:", 1), fingerprint: fp, says: "does not speak TLS", hint: "its gateway's"},
		"nobody there":          {url: "https://" + mute.Addr().String(), fingerprint: fp, says: "nothing answers", hint: "firewall"},
		"no such name":          {url: "https://nowhere.invalid", fingerprint: fp, says: "nowhere.invalid", hint: ""},
		"not ebb":               {url: foreign, fingerprint: foreignFP, says: "is not ebb's control API (502", hint: "gateway"},
		"a redirect":            {url: moved, fingerprint: movedFP, says: "is not ebb's control API (307"},
		"a file without a PEM":  {url: good, ca: "nonsense", says: "holds no certificate", hint: "ebb keys ca"},
		"http":                  {url: "http://127.0.0.1:1", says: "never sent in clear", hint: "https://127.0.0.1:1"},
		"no scheme":             {url: "ebb.example:8443", says: "not the URL of a server", hint: "https://HOST:PORT"},
		"a path":                {url: good + "/v1", says: "more than a host and a port"},
		"a name and a password": {url: "https://a:b@127.0.0.1:1", says: "not the URL of a server"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, err := identity.ParseSecret(identity.NewSecret(row.fingerprint).Text())
			if err != nil {
				t.Fatal(err)
			}
			c, err := api.NewRemoteClient(api.Remote{URL: row.url, Key: key, CA: []byte(row.ca), SystemCA: row.system})
			if err == nil {
				defer c.CloseIdle()
				_, err = c.Info(t.Context())
			}
			if row.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(errs.HintOf(err), row.hint) || errs.HintOf(err) == "" {
				t.Errorf("error %v, hint %q", err, errs.HintOf(err))
			}
			if err != nil && (strings.Contains(err.Error()+errs.HintOf(err), strings.Split(key.Bearer(), ".")[2])) {
				t.Error("the key is in the message")
			}
		})
	}
}

func TestClient_SaysThatPlainHTTPMeetsTLS(t *testing.T) {
	t.Parallel()
	url, _, _ := served(t, http.NotFoundHandler(), "127.0.0.1")
	_, err := api.NewClient(strings.Replace(url, "https:", "http:", 1), token).Info(t.Context())
	if err == nil || !strings.Contains(err.Error(), "TLS is at that port") || errs.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

func TestRemoteClient_WillNotSpeakOldTLS(t *testing.T) {
	t.Parallel()
	source, err := certs.OpenOwn(t.TempDir(), []string{"127.0.0.1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	conf := source.Config()
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	url := secure(t, http.NotFoundHandler(), conf)
	c, err := api.NewRemoteClient(api.Remote{URL: url, Key: identity.NewSecret(certs.Fingerprint(source.CA()))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Info(t.Context()); err == nil || !strings.Contains(err.Error(), "TLS with") {
		t.Errorf("%v", err)
	}
}

func TestPutTree_StopsAtTheFirstFailureAndGoesOnLater(t *testing.T) {
	t.Parallel()
	b := &backend{blobs: map[string][]byte{}}
	inner := api.NewRemote(b, anyone{}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	var puts atomic.Int32
	var limit atomic.Int32
	limit.Store(40)
	url, _, fp := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" && puts.Add(1) > limit.Load() {
			panic(http.ErrAbortHandler)
		}
		inner.ServeHTTP(w, r)
	}), "127.0.0.1")
	var files []artifact.File
	for i := range 100 {
		files = append(files, artifact.File{Path: "f" + strings.Repeat("x", i), Mode: 0o644, Data: []byte(strings.Repeat("y", i+1))})
	}
	tree := artifact.FromFiles(files...)
	c, err := api.NewRemoteClient(api.Remote{URL: url, Key: identity.NewSecret(fp)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.PutTree(t.Context(), tree, nil)
	if errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "upload f") || !strings.Contains(errs.HintOf(err), "goes on") {
		t.Fatalf("%v, hint %q", err, errs.HintOf(err))
	}
	arrived := b.stored()
	if arrived == 0 || arrived > 40 {
		t.Fatalf("%d arrived", arrived)
	}
	limit.Store(1 << 20)
	var last api.Upload
	if _, err := c.PutTree(t.Context(), tree, func(u api.Upload) { last = u }); err != nil {
		t.Fatal(err)
	}
	// What was on its way when the first one failed may have arrived after the count.
	if last.Files > 100-arrived || last.Files < 50 || last.AllFiles != last.Files || last.Bytes != last.AllBytes || b.stored() != 100 {
		t.Errorf("then %+v, %d blobs, %d before", last, b.stored(), arrived)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.PutTree(ctx, tree, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
