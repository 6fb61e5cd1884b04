package api_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
)

func (b *backend) Streams(context.Context) ([]api.StreamInfo, error) {
	return []api.StreamInfo{{Name: "clicks", Shards: 2}}, b.fault
}

func (b *backend) PutRecords(_ context.Context, stream string, records []api.StreamRecord) ([]api.PutRecord, error) {
	if stream == "none" {
		return nil, errs.New(errs.NotFound, "there is no stream none")
	}
	var out []api.PutRecord
	for _, r := range records {
		out = append(out, api.PutRecord{Shard: stream, Sequence: r.Key + " " + r.HashKey + " " + string(r.Data)})
	}
	return out, b.fault
}

func (b *backend) Records(_ context.Context, q api.RecordQuery, begun func(), each func(api.StreamRecord) error) error {
	if q.Stream == "none" {
		return errs.New(errs.NotFound, "there is no stream none")
	}
	begun()
	for i := range max(q.Limit, 1) {
		if err := each(api.StreamRecord{Shard: q.Shard, Key: q.Stream, Arrived: q.From, Data: []byte{byte(i), 255}}); err != nil {
			return err
		}
	}
	return b.fault
}

func TestStreams_AreListedPutToAndRead(t *testing.T) {
	t.Parallel()
	n := open(t)
	ctx := t.Context()
	if list, err := n.client.Streams(ctx); err != nil || len(list) != 1 || list[0].Shards != 2 {
		t.Errorf("got %+v, %v", list, err)
	}
	got, err := n.client.PutRecords(ctx, "a.b", []api.StreamRecord{{Key: "k", HashKey: "7", Data: []byte("<x>")}, {Key: "l"}})
	if err != nil || len(got) != 2 || got[0].Shard != "a.b" || got[0].Sequence != "k 7 <x>" {
		t.Errorf("got %+v, %v", got, err)
	}
	var all []api.StreamRecord
	ready := false
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	err = n.client.Records(ctx, api.RecordQuery{Stream: "clicks", Shard: "s", From: at, Limit: 3, Follow: true}, func() { ready = true }, func(r api.StreamRecord) error {
		all = append(all, r)
		return nil
	})
	if err != nil || !ready || len(all) != 3 || all[2].Shard != "s" || all[2].Key != "clicks" || !all[2].Arrived.Equal(at) || string(all[2].Data) != "\x02\xff" {
		t.Errorf("got %+v, %v", all, err)
	}
	_, err = n.client.PutRecords(ctx, "none", []api.StreamRecord{{Key: "k"}})
	if errs.CodeOf(err) != errs.NotFound || errs.CodeOf(n.client.Records(ctx, api.RecordQuery{Stream: "none"}, nil, nil)) != errs.NotFound {
		t.Errorf("got %v", err)
	}
	for path, body := range map[string]string{"/v1/streams/s/records": `{"records":[]}`, "/v1/streams/t/records": `{"recs":[]}`} {
		if got := n.call(t, "POST", path, body, nil); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d", body, got.status)
		}
	}
	for _, query := range []string{"limit=0", "from=now"} {
		if got := n.call(t, "GET", "/v1/streams/s/records?"+query, "", nil); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d", query, got.status)
		}
	}
}
