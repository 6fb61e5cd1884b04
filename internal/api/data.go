package api

import (
	"context"
	"io"
	"net/http"

	"github.com/ebb-run/ebb/internal/errs"
)

// DataBackend is what the control API needs for all data of a Node.
type DataBackend interface {
	// Backup writes everything that the Node keeps to w, as package backup has it: what was acknowledged before the call is in it. An error
	// before the first byte leaves w alone.
	Backup(ctx context.Context, w io.Writer) error
}

func (s *Server) backup(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-tar")
	return s.backend.Backup(r.Context(), w)
}

// Backup gives everything that the Node keeps as a stream that package backup reads; the caller closes it.
func (c *Client) Backup(ctx context.Context) (io.ReadCloser, error) {
	resp, err := c.do(ctx, "GET", "/v1/backup", nil, -1, nil)
	if errs.CodeOf(err) == errs.NotFound {
		return nil, errs.New(errs.Unsupported, "the server is of an ebb without backups: %w", err).WithHint("Start it with this ebb.")
	}
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
