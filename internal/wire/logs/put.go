package logs

import (
	"context"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire"
)

// Limits of PutLogEvents: CloudWatch Logs API, "PutLogEvents". AWS takes messages of up to 1 MB.
const (
	maxBatch   = 1 << 20   // bytes, with eventHead for each event
	maxMessage = 256 << 10 // bytes
	maxSpan    = 24 * time.Hour
	tooNew     = 2 * time.Hour
	tooOld     = 14 * 24 * time.Hour
)

// sequence is a sequence token: they are still there, and mean nothing any more.
const sequence = "49039859627440330000000000000000000000000000000000000000"

type putEvent struct {
	Timestamp int64
	Message   string
}

type putInput struct {
	LogGroupName, LogStreamName string
	LogEvents                   []putEvent
}

type rejected struct{ TooNewLogEventStartIndex, TooOldLogEventEndIndex, ExpiredLogEventEndIndex *int }

type putOutput struct {
	NextSequenceToken     string
	RejectedLogEventsInfo *rejected
}

// put keeps events. A Record of the events has the ID of the group for its Function, that of the stream for its Instance, the timestamp in
// milliseconds for its Invocation, and when it came for its Time.
func (s *service) put(ctx context.Context, c *wire.Call, in *putInput) (*putOutput, error) {
	g, err := s.group(ctx, c, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	if err := checkBatch(in.LogEvents); err != nil {
		return nil, err
	}
	one := g.stream(in.LogStreamName)
	if one == nil {
		there, err := s.wrote(ctx, c, &g, in.LogStreamName)
		switch {
		case err != nil:
			return nil, err
		case !there && !own(c, &g, in.LogStreamName):
			return nil, noStream()
		}
		g, err = s.change(ctx, c, in.LogGroupName, func(g *group) error {
			if g.stream(in.LogStreamName) != nil {
				return nil
			}
			return g.add(c, in.LogStreamName)
		})
		if err != nil {
			return nil, err
		}
		one = g.stream(in.LogStreamName)
	}
	out := &putOutput{NextSequenceToken: sequence}
	first, last, info := taken(in.LogEvents, c.Now, g.since(c.Now))
	out.RejectedLogEventsInfo = info
	var records []telemetry.Record
	for _, e := range in.LogEvents[first:last] {
		records = append(records, telemetry.Record{
			Time: c.Now, Tenant: c.Caller.Tenant, App: g.App, Function: g.rec.ID, Instance: one.ID, Invocation: strconv.FormatInt(e.Timestamp, 10), Kind: telemetry.KindLine, Text: e.Message,
		})
	}
	if len(records) == 0 {
		return out, nil
	}
	return out, s.Events.Put(records...)
}

// own says whether a stream is the one that the Function which calls was told of as its own, and may not have written to yet.
func own(c *wire.Call, g *group, name string) bool {
	_, ok := instanceIn(name)
	return ok && name != noInstance && g.Function != "" && g.Function == c.Caller.Function
}

func checkBatch(list []putEvent) error {
	size := 0
	for i, e := range list {
		n := len(e.Message) + eventHead
		switch {
		case n > maxMessage:
			return invalid("Log event too large: %d bytes exceeds limit of %d", n, maxMessage)
		case i > 0 && e.Timestamp < list[i-1].Timestamp:
			return invalid("Log events in a single PutLogEvents request must be in chronological order.")
		case e.Timestamp-list[0].Timestamp > maxSpan.Milliseconds():
			return invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
		}
		size += n
	}
	if size > maxBatch {
		return invalid("Upload too large: %d bytes exceeds limit of %d", size, maxBatch)
	}
	return nil
}

// taken gives which events of a batch are kept: not those that are too old or too new.
func taken(list []putEvent, now, since time.Time) (first, last int, info *rejected) {
	old, expired := 0, 0
	for last = len(list); last > 0 && list[last-1].Timestamp > now.Add(tooNew).UnixMilli(); last-- { //revive:disable-line:empty-block
	}
	for ; old < last && list[old].Timestamp < now.Add(-tooOld).UnixMilli(); old++ { //revive:disable-line:empty-block
	}
	for ; !since.IsZero() && expired < last && list[expired].Timestamp < since.UnixMilli(); expired++ { //revive:disable-line:empty-block
	}
	first = max(old, expired)
	if last == len(list) && first == 0 {
		return first, last, nil
	}
	info = &rejected{}
	if last < len(list) {
		info.TooNewLogEventStartIndex = &last
	}
	if old > 0 {
		info.TooOldLogEventEndIndex = &old
	}
	if expired > 0 {
		info.ExpiredLogEventEndIndex = &expired
	}
	return first, last, info
}

// timeIn is the timestamp of an event that was put, in milliseconds.
func timeIn(r *telemetry.Record) int64 {
	ms, _ := strconv.ParseInt(r.Invocation, 10, 64) // put writes nothing else
	return ms
}
