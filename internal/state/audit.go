package state

import (
	"context"
	"errors"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// AuditLog is a log that only grows: no call of the control state's, nor of JetStream's API, takes a part of it away. It drops its oldest records by
// age and size alone.
type AuditLog struct {
	js      jetstream.JetStream
	stream  jetstream.Stream
	subject string
	limits  AuditLimits
}

// AuditLimits bound a log.
type AuditLimits struct {
	Records  int64         // how many are kept. Not bytes: JetStream sets room aside for those, which a small disk does not have
	Age      time.Duration // of one
	Replicas int           // of a new log in a Cluster; 0 means 1
}

// metaResized is on a log whose limits were changed: what it has dropped may be by those before.
const metaResized = "ebb.resized"

// apiWrongLastSequence is JetStream's code for a record that does not follow the last one: JSStreamWrongLastSequenceErrF.
const apiWrongLastSequence jetstream.ErrorCode = 10071

// OpenAudit opens the log with a name, making it when it is missing. The limits are those of now.
func OpenAudit(ctx context.Context, js jetstream.JetStream, name string, l AuditLimits) (*AuditLog, error) {
	a := &AuditLog{js: js, subject: "ebb_audit." + name, limits: l}
	ctx, cancel := bound(ctx)
	defer cancel()
	cfg := jetstream.StreamConfig{
		Name: "ebb_audit_" + name, Description: "ebb audit: " + name, Subjects: []string{a.subject}, Replicas: max(l.Replicas, 1),
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxMsgs: l.Records, MaxAge: l.Age, MaxBytes: -1, MaxMsgSize: 64 << 10,
		DenyDelete: true, DenyPurge: true, Metadata: map[string]string{metaFormat: strconv.Itoa(Format)},
	}
	var err error
	if a.stream, err = js.Stream(ctx, cfg.Name); err == nil {
		have := a.stream.CachedInfo().Config
		if v, err := strconv.Atoi(have.Metadata[metaFormat]); err != nil || v > Format {
			return nil, newer("the audit log "+name, v)
		}
		if have.MaxMsgs == cfg.MaxMsgs && have.MaxAge == cfg.MaxAge {
			return a, nil
		}
		have.MaxMsgs, have.MaxAge = cfg.MaxMsgs, cfg.MaxAge
		have.Metadata[metaResized] = "true"
		cfg = have
	} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fail(ctx, "open the audit log", err)
	}
	if a.stream, err = js.CreateOrUpdateStream(ctx, cfg); err != nil {
		return nil, fail(ctx, "open the audit log", err)
	}
	return a, nil
}

// Append writes data under the number seq, if the last number is the one before: else it is errs.Conflict. When it returns nil it is on disk.
func (a *AuditLog) Append(ctx context.Context, seq uint64, data []byte) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	m := natsgo.NewMsg(a.subject)
	m.Data = data
	_, err := a.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequence(seq-1))
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == apiWrongLastSequence {
		return errs.New(errs.Conflict, "the audit log has grown meanwhile")
	}
	if err != nil {
		return fail(ctx, "write to the audit log", err)
	}
	return nil
}

// Last gives the record with the highest number; 0 where there was never one. One that was dropped is empty.
func (a *AuditLog) Last(ctx context.Context) (uint64, []byte, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	info, err := a.stream.Info(ctx)
	if err != nil {
		return 0, nil, fail(ctx, "read the audit log", err)
	}
	if info.State.LastSeq == 0 {
		return 0, nil, nil
	}
	m, err := a.stream.GetMsg(ctx, info.State.LastSeq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return info.State.LastSeq, nil, nil
	}
	if err != nil {
		return 0, nil, fail(ctx, "read the audit log", err)
	}
	return m.Sequence, m.Data, nil
}

// Read calls each for the records from a number on, in order; with follow for those that come too, until ctx ends.
func (a *AuditLog) Read(ctx context.Context, from uint64, follow bool, each func(seq uint64, data []byte) error) error {
	info, err := a.stream.Info(ctx)
	if err != nil {
		return fail(ctx, "read the audit log", err)
	}
	last := info.State.LastSeq
	if !follow && (last < from || info.State.Msgs == 0) {
		return nil
	}
	c, err := a.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(from, 1)})
	if err != nil {
		return fail(ctx, "read the audit log", err)
	}
	it, err := c.Messages()
	if err != nil {
		return fail(ctx, "read the audit log", err)
	}
	defer it.Stop()
	defer context.AfterFunc(ctx, it.Stop)()
	for {
		m, err := it.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fail(ctx, "read the audit log", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fail(ctx, "read the audit log", err)
		}
		if err := each(meta.Sequence.Stream, m.Data()); err != nil {
			return err
		}
		if !follow && (meta.Sequence.Stream >= last || meta.NumPending == 0) {
			return nil
		}
	}
}

// Dropped says whether records may have been dropped for their age or the number of all.
func (a *AuditLog) Dropped(ctx context.Context) (bool, error) {
	info, err := a.stream.Info(ctx)
	if err != nil {
		return false, fail(ctx, "read the audit log", err)
	}
	full := a.limits.Records > 0 && info.State.Msgs >= uint64(a.limits.Records)
	old := a.limits.Age > 0 && time.Since(info.Created) > a.limits.Age
	return full || old || info.Config.Metadata[metaResized] != "", nil
}
