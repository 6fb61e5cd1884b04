package api_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"testing"
	"testing/iotest"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/export"
	"github.com/ebb-run/ebb/internal/identity"
)

func (b *backend) Backup(_ context.Context, w io.Writer) error {
	if b.fault != nil {
		return b.fault
	}
	_, err := io.WriteString(w, "all of it")
	return errors.Join(err, b.later)
}

func (b *backend) Export(_ context.Context, _ export.Choice, w io.Writer) error {
	_, err := io.WriteString(w, "tables")
	return err
}

func (b *backend) Import(_ context.Context, _ export.Options, r io.Reader, told func(export.Result)) (export.Result, error) {
	told(export.Result{Items: export.Count{Written: 1}})
	if b.fault != nil { // with the body unread
		return export.Result{Items: export.Count{Written: 1}}, b.fault
	}
	n, err := io.Copy(io.Discard, r)
	return export.Result{Items: export.Count{Written: n}}, err
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestImport_AnswersWhileTheBodyIsOnItsWay(t *testing.T) {
	t.Parallel()
	b := &backend{}
	local := httptest.NewServer(api.NewServer(b, token, slog.New(slog.DiscardHandler)))
	t.Cleanup(local.Close)
	url, _, fp := served(t, api.NewRemote(b, anyone{}, slog.New(slog.DiscardHandler)), "127.0.0.1")
	remote, err := api.NewRemoteClient(api.Remote{URL: url, Key: identity.NewSecret(fp)})
	if err != nil {
		t.Fatal(err)
	}
	const size = 30 << 20
	clients := map[string]*api.Client{"here": api.NewClient(local.URL, token), "elsewhere": remote}
	for name, c := range clients {
		var told int
		got, err := c.Import(t.Context(), export.Options{}, io.LimitReader(zeros{}, size), func(export.Result) { told++ })
		if err != nil || got.Items.Written != size || told != 1 {
			t.Errorf("%s: %+v, %v, told %d times", name, got, err, told)
		}
	}
	broken := errors.New("the folder is gone")
	for name, c := range clients {
		if _, err := c.Import(t.Context(), export.Options{}, io.MultiReader(io.LimitReader(zeros{}, size), iotest.ErrReader(broken)), nil); !errors.Is(err, broken) {
			t.Errorf("%s: what cannot be read: %v", name, err)
		}
	}
	// What is wrong is told at once, whatever else would come.
	b.fault = errs.New(errs.Invalid, "tables/x:7: no item").WithHint("Mend it.")
	for name, c := range clients {
		got, err := c.Import(t.Context(), export.Options{}, zeros{}, nil)
		if errs.CodeOf(err) != errs.Invalid || err.Error() != "tables/x:7: no item" || errs.HintOf(err) != "Mend it." || got.Items.Written != 1 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestBackup_OfAServerThatRefusesIsAnError(t *testing.T) {
	t.Parallel()
	b := &backend{fault: errs.New(errs.Unsupported, "not here").WithHint("There.")}
	srv := httptest.NewServer(api.NewServer(b, token, slog.New(slog.DiscardHandler)))
	t.Cleanup(srv.Close)
	c := api.NewClient(srv.URL, token)
	if _, err := c.Backup(t.Context()); errs.CodeOf(err) != errs.Unsupported || errs.HintOf(err) != "There." {
		t.Errorf("got %v", err)
	}
	b.fault = nil
	in, err := c.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	if data, err := io.ReadAll(in); err != nil || string(data) != "all of it" {
		t.Errorf("got %q, %v", data, err)
	}
	// What a stream says before it breaks off arrives.
	b.later = errors.New("the disk is gone")
	broken, err := c.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = broken.Close() }()
	if data, err := io.ReadAll(broken); err == nil || string(data) != "all of it" {
		t.Errorf("of one that breaks off %q, %v", data, err)
	}
}
