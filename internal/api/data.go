package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/export"
)

// DataBackend is what the control API needs for all data of a Node.
type DataBackend interface {
	// Backup writes everything that the Node keeps to w, as package backup has it: what was acknowledged before the call is in it. An error
	// before the first byte leaves w alone.
	Backup(ctx context.Context, w io.Writer) error
	// Export writes tables, buckets and parameters to w, as package export has them. An error before the first byte leaves w alone.
	Export(ctx context.Context, c export.Choice, w io.Writer) error
	// Import reads an export. What was read before an error stays.
	Import(ctx context.Context, o export.Options, r io.Reader, told func(export.Result)) (export.Result, error)
}

func (s *Server) backup(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-tar")
	err := s.backend.Backup(r.Context(), w)
	if a, ok := w.(*answer); ok && err != nil && a.begun {
		_ = a.FlushError() // the stream says why it ends, and the connection is cut after it
	}
	return err
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

// importLine is a line of the answer to an import: how far it is, at the end with done, or why it ended.
type importLine struct {
	*export.Result
	Done  bool       `json:"done,omitempty"`
	Error *wireError `json:"error,omitempty"`
}

func (s *Server) exportData(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	w.Header().Set("Content-Type", "application/x-tar")
	return s.backend.Export(r.Context(), export.Choice{App: v.Get("app"), Tables: v["table"], Buckets: v["bucket"], Secrets: v.Get("secrets") == "true"}, w)
}

// tellEvery is between two lines of an answer that tell how far an import is.
const tellEvery = 200 * time.Millisecond

// importData reads an export from the body, and tells meanwhile how far it is: the answer begins before the body has ended.
func (s *Server) importData(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	on := strings.Join(append(v["table"], v["bucket"]...), " ")
	if on == "" {
		on = "all of an export"
	}
	control := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	var result export.Result
	begun := false
	err := s.recorded(r, "data:import", on, "", func() (err error) {
		_ = control.EnableFullDuplex() // HTTP/2 has no need of it, and says so by an error
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(200)
		begun = true
		if err := control.Flush(); err != nil {
			return err
		}
		var last time.Time
		result, err = s.backend.Import(r.Context(), export.Options{Tables: v["table"], Buckets: v["bucket"], Overwrite: v.Get("overwrite") == "true"}, r.Body, func(at export.Result) {
			if time.Since(last) > tellEvery {
				last = time.Now()
				_ = enc.Encode(importLine{Result: &at}) // who does not listen any more is found by reading
				_ = control.Flush()
			}
		})
		return err
	})
	if !begun {
		return err
	}
	line := importLine{Result: &result, Done: err == nil}
	if err != nil {
		line.Error = s.wired(r, err)
	}
	return errors.Join(enc.Encode(line), control.Flush())
}

// Export gives tables, buckets and parameters as a stream that package export reads; the caller closes it.
func (c *Client) Export(ctx context.Context, o export.Choice) (io.ReadCloser, error) {
	v := url.Values{"table": o.Tables, "bucket": o.Buckets}
	if o.App != "" {
		v.Set("app", o.App)
	}
	if o.Secrets {
		v.Set("secrets", "true")
	}
	resp, err := c.do(ctx, "GET", "/v1/data?"+v.Encode(), nil, -1, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// noted keeps the error of its reader, which the transport gives another.
type noted struct {
	r   io.Reader
	err atomic.Pointer[error]
}

func (n *noted) Read(p []byte) (int, error) {
	m, err := n.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err.Store(&err)
	}
	return m, err
}

// Import sends an export. told, where given, hears now and then how far the Node is. What was read before an error stays.
func (c *Client) Import(ctx context.Context, o export.Options, body io.Reader, told func(export.Result)) (export.Result, error) {
	in := &noted{r: body}
	result, err := c.importFrom(ctx, o, in, told)
	if own := in.err.Load(); own != nil && err != nil && ctx.Err() == nil {
		err = fmt.Errorf("read what is to be imported: %w", *own)
	}
	return result, err
}

func (c *Client) importFrom(ctx context.Context, o export.Options, body io.Reader, told func(export.Result)) (export.Result, error) {
	v := url.Values{"table": o.Tables, "bucket": o.Buckets}
	if o.Overwrite {
		v.Set("overwrite", "true")
	}
	resp, err := c.do(ctx, "POST", "/v1/data?"+v.Encode(), body, -1, map[string]string{"Content-Type": "application/x-tar"})
	if err != nil {
		return export.Result{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	dec := json.NewDecoder(resp.Body)
	for {
		var line importLine
		if err := dec.Decode(&line); err != nil || line.Result == nil {
			if ctx.Err() != nil {
				return export.Result{}, ctx.Err()
			}
			return export.Result{}, errs.New(errs.Unavailable, "the server ended the import: %w", errors.Join(err)).WithHint("Its log says why. What was read stays; import again, what is there already is passed over.")
		}
		switch {
		case line.Error != nil:
			return *line.Result, &errs.Error{Code: line.Error.Code, Msg: line.Error.Message, Hint: line.Error.Hint}
		case line.Done:
			return *line.Result, nil
		case told != nil:
			told(*line.Result)
		}
	}
}
