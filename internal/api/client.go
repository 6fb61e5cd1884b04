package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
)

// Client calls a Node's control API. It may be used concurrently.
type Client struct {
	base   string // "http://127.0.0.1:1234"
	bearer string // token or key
	remote bool   // on another machine, or as if
	http   *http.Client
}

// parallelUploads is how many files are on their way at once: one after the other, each would wait for the way there and back.
const parallelUploads = 8

// NewClient returns a client of this machine's Node, whose API is at the base URL.
func NewClient(base string, token identity.Token) *Client {
	return &Client{base: strings.TrimRight(base, "/"), bearer: string(token), http: &http.Client{Transport: &http.Transport{
		Proxy:               nil, // a proxy must never see the token
		MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second,
	}}}
}

// CloseIdle closes connections that no call uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// do sends a call and returns its answer, which the caller closes; an error answer becomes an error.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, size int64, header map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("call control API: %w", err)
	}
	if size >= 0 {
		req.ContentLength = size
		if size == 0 {
			req.Body = http.NoBody
		}
	}
	req.Header.Set("Authorization", "Bearer "+c.bearer)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, c.unreachable(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var out struct{ Error wireError }
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if json.Unmarshal(data, &out) != nil || out.Error.Code == "" {
		return nil, c.foreign(resp, data)
	}
	return nil, &errs.Error{Code: out.Error.Code, Msg: out.Error.Message, Hint: out.Error.Hint}
}

// call sends in as JSON (nil sends nothing) and reads the answer into out (nil reads nothing).
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	size := int64(-1)
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode call: %w", err)
		}
		body, size = bytes.NewReader(data), int64(len(data))
	}
	resp, err := c.do(ctx, method, path, body, size, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	return nil
}

// Info describes the Node.
func (c *Client) Info(ctx context.Context) (*Info, error) {
	var i Info
	err := c.call(ctx, "GET", "/v1/info", nil, &i)
	return &i, err
}

// Upload is how far a tree has come.
type Upload struct {
	Files, AllFiles int // that the Node did not have
	Bytes, AllBytes int64
}

// PutTree uploads what the Node does not have of the tree, several files at once, and returns its digest. told, where given, hears of
// each file that has arrived, one call at a time. What has arrived stays: after an error the next call sends the rest.
func (c *Client) PutTree(ctx context.Context, t *artifact.Tree, told func(Upload)) (string, error) {
	var need struct{ Missing []string }
	if err := c.call(ctx, "POST", "/v1/artifacts/missing", &t.Manifest, &need); err != nil {
		return "", err
	}
	want := make(map[string]bool, len(need.Missing))
	for _, sha := range need.Missing {
		want[sha] = true
	}
	var list []artifact.Entry
	for _, e := range t.Manifest.Entries {
		if e.SHA256 != "" && want[e.SHA256] {
			delete(want, e.SHA256)
			list = append(list, e)
		}
	}
	if err := c.putBlobs(ctx, t, list, told); err != nil {
		return "", err
	}
	var done struct{ Digest string }
	if err := c.call(ctx, "POST", "/v1/artifacts", &t.Manifest, &done); err != nil {
		return "", err
	}
	return done.Digest, nil
}

// putBlobs sends files; the first failure ends the others.
func (c *Client) putBlobs(parent context.Context, t *artifact.Tree, list []artifact.Entry, told func(Upload)) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var at Upload
	for _, e := range list {
		at.AllFiles, at.AllBytes = at.AllFiles+1, at.AllBytes+e.Size
	}
	next := make(chan artifact.Entry)
	var mu sync.Mutex // of at, and calls of told
	var wg sync.WaitGroup
	for range min(parallelUploads, len(list)) {
		wg.Go(func() {
			for e := range next {
				if err := c.putBlob(ctx, t, e); err != nil {
					cancel(fmt.Errorf("upload %s: %w", e.Path, err)) // the first one counts
					continue
				}
				mu.Lock()
				at.Files, at.Bytes = at.Files+1, at.Bytes+e.Size
				if told != nil {
					told(at)
				}
				mu.Unlock()
			}
		})
	}
	for _, e := range list {
		if ctx.Err() != nil {
			break
		}
		next <- e
	}
	close(next)
	wg.Wait()
	if err := parent.Err(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (c *Client) putBlob(ctx context.Context, t *artifact.Tree, e artifact.Entry) error {
	r, err := t.Open(e)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	resp, err := c.do(ctx, "PUT", "/v1/blobs/"+e.SHA256, r, e.Size, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Deploy makes an App current.
func (c *Client) Deploy(ctx context.Context, r DeployRequest) (*Deployed, error) {
	var d Deployed
	return &d, c.call(ctx, "POST", "/v1/deployments", r, &d)
}

func stackPath(app, stage, rest string) string {
	return "/v1/stacks/" + url.PathEscape(app) + "/" + url.PathEscape(stage) + rest
}

// Rollback makes an earlier Deployment current: the one named, or with to empty the one before.
func (c *Client) Rollback(ctx context.Context, app, stage, to string) (*Deployed, error) {
	var d Deployed
	return &d, c.call(ctx, "POST", stackPath(app, stage, "/rollback"), map[string]string{"to": to}, &d)
}

// Remove takes a Stack away.
func (c *Client) Remove(ctx context.Context, app, stage string) error {
	return c.call(ctx, "DELETE", stackPath(app, stage, ""), nil, nil)
}

// Stacks lists what is deployed.
func (c *Client) Stacks(ctx context.Context) ([]Stack, error) {
	var out struct{ Stacks []Stack }
	err := c.call(ctx, "GET", "/v1/stacks", nil, &out)
	return out.Stacks, err
}

// History lists a Stack's Deployments, newest first.
func (c *Client) History(ctx context.Context, app, stage string) ([]Deployment, error) {
	var out struct{ Deployments []Deployment }
	err := c.call(ctx, "GET", stackPath(app, stage, "/deployments"), nil, &out)
	return out.Deployments, err
}

// Answer is what a direct Invocation gave.
type Answer struct {
	ID      string // Invocation ID
	Payload []byte
	Cause   string // why the function failed, or ""
	Message string // type and message of the failure
}

// Invoke runs a Function with the payload, byte for byte.
func (c *Client) Invoke(ctx context.Context, function string, payload []byte, clientContext string) (*Answer, error) {
	header := map[string]string{"Content-Type": "application/octet-stream"}
	if clientContext != "" {
		header[HeaderClientContext] = clientContext
	}
	resp, err := c.do(ctx, "POST", "/v1/functions/"+url.PathEscape(function)+"/invocations", bytes.NewReader(payload), int64(len(payload)), header)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	a := &Answer{ID: resp.Header.Get(HeaderInvocation), Payload: data, Cause: resp.Header.Get(HeaderFunctionError)}
	_ = json.Unmarshal([]byte(resp.Header.Get(HeaderErrorMessage)), &a.Message)
	return a, nil
}

// Logs calls each for every record; with q.Follow until ctx ends. ready, where given, is called once the Node has begun.
func (c *Client) Logs(ctx context.Context, q LogQuery, ready func(), each func(LogRecord) error) error {
	v := url.Values{}
	for k, s := range map[string]string{"app": q.App, "stage": q.Stage, "function": q.Function, "invocation": q.Invocation} {
		if s != "" {
			v.Set(k, s)
		}
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.Tail > 0 {
		v.Set("tail", strconv.Itoa(q.Tail))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	resp, err := c.do(ctx, "GET", "/v1/logs?"+v.Encode(), nil, -1, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if ready != nil {
		ready()
	}
	return eachLine(ctx, resp.Body, "logs", each)
}

// eachLine reads a stream of JSON documents until its end, or that of ctx.
func eachLine[T any](ctx context.Context, r io.Reader, what string, each func(T) error) error {
	dec := json.NewDecoder(r)
	for {
		var v T
		if err := dec.Decode(&v); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read %s: %w", what, err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
}
