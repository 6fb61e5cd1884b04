package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// StreamInfo describes an ordered stream.
type StreamInfo struct {
	Name           string    `json:"name"`
	Shards         int       `json:"shards"`           // open ones
	Closed         int       `json:"closed,omitempty"` // shards that others have followed, and whose records are there yet
	Records        int       `json:"records"`
	RetentionHours int       `json:"retentionHours"`
	Created        time.Time `json:"created"`
}

// StreamRecord is a record of a stream. Shard, Sequence and Arrived are not given where it is put.
type StreamRecord struct {
	Shard    string    `json:"shard,omitempty"`
	Sequence string    `json:"sequence,omitempty"`
	Arrived  time.Time `json:"arrived,omitzero"`
	Key      string    `json:"key"`               // its partition key
	HashKey  string    `json:"hashKey,omitempty"` // chooses the shard in place of the key's MD5; decimal
	Data     []byte    `json:"data"`              // in base64
}

// PutRecord says that a record is durable, or why it is not.
type PutRecord struct {
	Shard    string    `json:"shard,omitempty"`
	Sequence string    `json:"sequence,omitempty"`
	Error    string    `json:"error,omitempty"`
	Code     errs.Code `json:"code,omitempty"`
}

// RecordQuery selects records of a stream.
type RecordQuery struct {
	Stream string
	Shard  string    // empty means all
	From   time.Time // zero means the oldest or, where Follow is set, now
	Follow bool      // go on with what is put
	Limit  int       // after as many it ends; 0 means no limit
}

// StreamBackend is what the control API needs for streams.
type StreamBackend interface {
	Streams(ctx context.Context) ([]StreamInfo, error)
	// PutRecords returns when the records are durable, with an answer for each.
	PutRecords(ctx context.Context, stream string, records []StreamRecord) ([]PutRecord, error)
	// Records gives the records of each shard in their order.
	Records(ctx context.Context, q RecordQuery, begun func(), each func(StreamRecord) error) error
}

func (s *Server) streams(w http.ResponseWriter, r *http.Request) error {
	list, err := s.backend.Streams(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string][]StreamInfo{"streams": list})
	return nil
}

func (s *Server) putRecords(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Records []StreamRecord `json:"records"`
	}
	leave, err := s.intake.readJSON(w, r, s.intake.calls(), &req)
	if err != nil {
		return err
	}
	defer leave()
	if len(req.Records) == 0 {
		return errs.New(errs.Invalid, "there are no records")
	}
	// Whether they were accepted must not be left open by a caller that hangs up while the disk writes.
	got, err := s.backend.PutRecords(context.WithoutCancel(r.Context()), r.PathValue("name"), req.Records)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusAccepted, map[string][]PutRecord{"records": got})
	return nil
}

func (s *Server) readRecords(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := RecordQuery{Stream: r.PathValue("name"), Shard: v.Get("shard"), Follow: v.Get("follow") == "true"}
	var err error
	if q.From, err = moment(v, "from"); err != nil {
		return err
	}
	if n := v.Get("limit"); n != "" {
		if q.Limit, err = strconv.Atoi(n); err != nil || q.Limit < 1 {
			return errs.New(errs.Invalid, "limit: %q is not a number above 0", n)
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	flush := http.NewResponseController(w)
	begun := func() {
		if q.Follow {
			_ = flush.Flush() // the caller learns that following has begun
		}
	}
	return s.backend.Records(r.Context(), q, begun, func(rec StreamRecord) error {
		if err := enc.Encode(rec); err != nil {
			return err
		}
		if q.Follow {
			return flush.Flush()
		}
		return nil
	})
}

// Streams lists ordered streams.
func (c *Client) Streams(ctx context.Context) ([]StreamInfo, error) {
	var out struct{ Streams []StreamInfo }
	err := c.call(ctx, "GET", "/v1/streams", nil, &out)
	return out.Streams, err
}

// PutRecords puts records into a stream; when it returns, those without an error are durable.
func (c *Client) PutRecords(ctx context.Context, stream string, records []StreamRecord) ([]PutRecord, error) {
	var out struct{ Records []PutRecord }
	err := c.call(ctx, "POST", "/v1/streams/"+url.PathEscape(stream)+"/records", map[string][]StreamRecord{"records": records}, &out)
	return out.Records, err
}

// Records calls each for every record; with q.Follow until ctx ends. ready, where given, is called once the Node has begun.
func (c *Client) Records(ctx context.Context, q RecordQuery, ready func(), each func(StreamRecord) error) error {
	v := url.Values{}
	if q.Shard != "" {
		v.Set("shard", q.Shard)
	}
	if !q.From.IsZero() {
		v.Set("from", q.From.Format(time.RFC3339Nano))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	resp, err := c.do(ctx, "GET", "/v1/streams/"+url.PathEscape(q.Stream)+"/records?"+v.Encode(), nil, -1, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if ready != nil {
		ready()
	}
	return eachLine(ctx, resp.Body, "records", each)
}
