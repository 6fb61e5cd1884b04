// Package logs answers Amazon CloudWatch Logs: the output of Functions is read, and what clients put is kept and read beside it.
//
// Main types: [Options], what is read and where groups are kept; [New] gives the wire.Service. Source: Amazon CloudWatch Logs API Reference, 2014-03-28.
//
// Guarantees:
//
//  1. What PutLogEvents took is on disk, and is read until the room for it is used up: the oldest goes first, whatever the retention.
//  2. Events are told by their timestamps, those of one millisecond in the order in which they came. Pages follow each other without
//     gaps and repeat nothing, and an event keeps its ID.
//  3. Credentials of a Function reach the groups of its own App, and those that an operator made.
//
// Differences: a stream is an Instance, and its name ends with that one's ID; a group has at most 1,000 streams that clients made, and an event 256 KiB.
// Each Node tells of its own logs. Queries, live tails, exports, metric and subscription filters and tags are refused by name.
package logs

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// Group is a log group that an App has without a client's doing: that of a Function, or one that it declares.
type Group struct {
	App      string
	Name     string
	Function string // full name of the one whose output is in it, or empty
	Created  time.Time
	Days     int // how long events are told; 0 means for as long as they are there
}

// Store keeps records. Put and Delete answer errs.Conflict when the record has not the sequence number expect, which is 0 for none;
// Get answers errs.NotFound.
type Store interface {
	Get(ctx context.Context, tenant, name string) (data []byte, seq uint64, err error)
	Put(ctx context.Context, tenant, name string, data []byte, expect uint64) error
	Delete(ctx context.Context, tenant, name string, expect uint64) error
	Each(ctx context.Context, tenant string, f func(data []byte) error) error
}

// Options say what is read, and where groups are kept.
type Options struct {
	Groups func(ctx context.Context, app string) ([]Group, error) // of one App; of all where the name is empty
	Store  Store                                                  // of groups that clients made, or changed
	Output *telemetry.Logs                                        // of Functions
	Events *telemetry.Logs                                        // that clients put; Durable
}

type service struct {
	Options
	births
}

// births are the days on which Instances began to write, as the names of streams have them.
type births struct {
	mu struct {
		sync.Mutex
		day map[string]string // by Instance
	}
}

// New returns the service.
func New(o Options) *wire.Service {
	s := &service{Options: o}
	return &wire.Service{
		Name: "logs", Strict: true, MaxBody: 8 << 20, Translate: translate, Fault: fault, Subjects: subjects,
		Operations: map[string]wire.Operation{
			"CreateLogGroup": wire.Op(s.createGroup), "DeleteLogGroup": wire.Op(s.deleteGroup), "DescribeLogGroups": wire.Op(s.describeGroups),
			"CreateLogStream": wire.Op(s.createStream), "DeleteLogStream": wire.Op(s.deleteStream), "DescribeLogStreams": wire.Op(s.describeStreams),
			"PutRetentionPolicy": wire.Op(s.retain), "DeleteRetentionPolicy": wire.Op(s.forget),
			"PutLogEvents": wire.Op(s.put), "GetLogEvents": wire.Op(s.get), "FilterLogEvents": wire.Op(s.filter),
		},
	}
}

type none struct{}

func invalid(format string, args ...any) *wire.Error {
	return wire.Errorf("InvalidParameterException", format, args...)
}

func fault(_ *wire.Call, f *shape.Fault) *wire.Error {
	if f.Kind != shape.Invalid {
		return nil
	}
	return invalid("%s", f.Error())
}

func translate(_ *wire.Call, err error) *wire.Error {
	switch errs.CodeOf(err) {
	case errs.TooLarge:
		return wire.Errorf("LimitExceededException", "Resource limit exceeded: the streams of the log group take too much room together.")
	case errs.Unavailable, errs.Timeout, errs.Canceled:
		return wire.Errorf("ServiceUnavailableException", "%s", err).With(http.StatusServiceUnavailable)
	}
	return nil
}

// identified are the members that name a group.
type identified struct{ LogGroupName, LogGroupIdentifier string }

func (n identified) name() (string, error) {
	switch {
	case n.LogGroupName != "" && n.LogGroupIdentifier != "":
		return "", invalid("LogGroupName and LogGroupIdentifier cannot be given together.")
	case n.LogGroupName != "":
		return n.LogGroupName, nil
	case n.LogGroupIdentifier == "":
		return "", invalid("One of LogGroupName and LogGroupIdentifier must be given.")
	}
	return strings.TrimSuffix(wire.NameIn(n.LogGroupIdentifier, ":log-group:"), ":*"), nil
}

// subjects names groups and streams, as AWS's "Actions, resources, and condition keys for Amazon CloudWatch Logs" has them.
func subjects(c *wire.Call, in any) []wire.Subject {
	action, group, stream := "logs:"+c.Operation, wire.Member(in, "LogGroupName"), wire.Member(in, "LogStreamName")
	if id := wire.Member(in, "LogGroupIdentifier"); group == "" && id != "" {
		group = strings.TrimSuffix(wire.NameIn(id, ":log-group:"), ":*")
	}
	switch {
	case group == "":
		return []wire.Subject{{Action: action, Resource: c.ARN("logs", "log-group:"+wire.Member(in, "LogGroupNamePrefix")+"*")}}
	case stream != "" && c.Operation != "CreateLogStream":
		return []wire.Subject{{Action: action, Resource: c.ARN("logs", "log-group:"+group+":log-stream:"+stream)}}
	}
	full := c.ARN("logs", "log-group:"+group)
	return []wire.Subject{{Action: action, Resource: full + ":*", Also: full}}
}
