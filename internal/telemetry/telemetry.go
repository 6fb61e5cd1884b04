// Package telemetry keeps what functions and the server say: logs, platform lines and metrics.
//
// Main types: [Logs], segment files of what Invocations wrote; [Metrics], a Prometheus registry of its own.
//
// Guarantees:
//
//  1. Logs.Write never waits for the disk. Records are read back in the order in which they were written, so START, lines,
//     END and REPORT of one Invocation stay in theirs.
//  2. A record is in its file at most 100 ms after Write, at once after Sync. What a crash of ebb leaves torn at the end of a
//     file is cut off at the next start.
//  3. The files never take more than LogOptions.MaxBytes; the oldest segments go first.
//  4. A full or failing disk costs log records, counted and warned of, never an Invocation.
//  5. Segment files carry a format version; a newer one is refused untouched.
//  6. Platform lines are those of AWS Lambda to the byte.
//  7. Metrics keep the labels of functions that were called, and drop them with RemoveFunction; one that is only deployed
//     costs less than 1 KB. No metric is in a global registry.
//
// It does not meter usage for billing (meter does) and sends nothing out.
package telemetry

import (
	"io"
	"log/slog"
	"time"
)

// NewServerLog returns the log of the server itself: one JSON object a line, times in UTC.
func NewServerLog(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
			}
			// Errors print as text, durations as people read them: encoding/json would give {} and nanoseconds.
			switch v := a.Value.Any().(type) {
			case error:
				a.Value = slog.StringValue(v.Error())
			case time.Duration:
				a.Value = slog.StringValue(v.String())
			}
			return a
		},
	}))
}
