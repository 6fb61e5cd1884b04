package telemetry

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The lines that AWS Lambda writes around an Invocation, as its log format "Text" has them, without the newline:
// https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-view.html

// Report is what a REPORT line says.
type Report struct {
	ID          string
	Duration    time.Duration // of the Invoke phase
	Billed      time.Duration // rounded up to the millisecond
	Init        time.Duration // of a cold start's Init phase; 0 when there was none
	Queue       time.Duration // of a cold start: until its Instance was begun
	Sandbox     time.Duration // until its guest ran
	HandlerInit time.Duration // of Init: the user's own code; 0 when not known
	MemoryMB    int           // configured
	MaxMemoryMB int           // used
	Status      string        // "", "timeout", "error"
	ErrorType   string        // with Status "error": "Runtime.ExitError"
	TraceID     string        // of a sampled X-Ray trace, or empty
	SegmentID   string
}

// FormatStart gives the START line.
func FormatStart(id, version string) string {
	return "START RequestId: " + id + " Version: " + version
}

// FormatEnd gives the END line.
func FormatEnd(id string) string { return "END RequestId: " + id }

// FormatTimeout gives the line that an Invocation leaves when its deadline ended it.
func FormatTimeout(at time.Time, id string, after time.Duration) string {
	return fmt.Sprintf("%s %s Task timed out after %.2f seconds", at.UTC().Format("2006-01-02T15:04:05.000Z"), id, after.Seconds())
}

// FormatReport gives the REPORT line. A plain one ends with a tab, as Lambda's does; one with a Status does not.
func FormatReport(r Report) string {
	// Every Invocation writes one: appending takes a fraction of what fmt does.
	n := make([]byte, 0, 192)
	n = append(append(n, "REPORT RequestId: "...), r.ID...)
	n = appendMillis(append(n, "\tDuration: "...), r.Duration)
	n = strconv.AppendInt(append(n, " ms\tBilled Duration: "...), ceilMillis(r.Billed), 10)
	n = strconv.AppendInt(append(n, " ms\tMemory Size: "...), int64(r.MemoryMB), 10)
	n = strconv.AppendInt(append(n, " MB\tMax Memory Used: "...), int64(r.MaxMemoryMB), 10)
	n = append(n, " MB\t"...)
	if r.Init > 0 {
		n = appendCold(append(appendMillis(append(n, "Init Duration: "...), r.Init), " ms\t"...), r)
	}
	if r.TraceID == "" && r.Status == "" {
		return string(n)
	}
	var b strings.Builder
	b.Write(n)
	if r.TraceID != "" {
		fmt.Fprintf(&b, "\nXRAY TraceId: %s\tSegmentId: %s\tSampled: true\t", r.TraceID, r.SegmentID)
	}
	writeStatus(&b, r.Status, r.ErrorType)
	return b.String()
}

// appendCold says where a cold start's time went. No name begins a field of AWS's, and all stand after those, so that what reads
// Lambda's lines reads these.
func appendCold(n []byte, r Report) []byte {
	if r.Queue+r.Sandbox+r.HandlerInit == 0 {
		return n // nothing is known
	}
	n = append(appendMillis(append(n, "Queue: "...), r.Queue), " ms\t"...)
	n = append(appendMillis(append(n, "Sandbox: "...), r.Sandbox), " ms\t"...)
	if r.HandlerInit > 0 {
		n = append(appendMillis(append(n, "Runtime Init: "...), r.Init-r.HandlerInit), " ms\t"...)
		n = append(appendMillis(append(n, "Handler Init: "...), r.HandlerInit), " ms\t"...)
	}
	return n
}

// FormatInitReport gives the line of an Init that failed; phase is "init", or "invoke" when it ran again for an Invocation.
func FormatInitReport(took time.Duration, phase, status, errorType string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "INIT_REPORT Init Duration: %.2f ms\tPhase: %s\t", millis(took), phase)
	writeStatus(&b, status, errorType)
	return b.String()
}

func writeStatus(b *strings.Builder, status, errorType string) {
	if status != "" {
		b.WriteString("Status: " + status)
		if errorType != "" {
			b.WriteString("\tError Type: " + errorType)
		}
	}
}

func appendMillis(dst []byte, d time.Duration) []byte {
	return strconv.AppendFloat(dst, millis(d), 'f', 2, 64)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func ceilMillis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
