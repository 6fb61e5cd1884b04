package shape

import (
	"encoding/base64"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"time"
)

// The forms of timestamps.
const (
	isoForm  = "iso8601"
	rfcForm  = "rfc822"
	unixForm = "unixTimestamp"
)

// parseTime takes all forms of timestamps.
func parseTime(s string) (time.Time, bool) {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return unixTime(n)
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05", "20060102T150405Z", "2006-01-02"} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC(), true
		}
	}
	t, err := http.ParseTime(s)
	if err != nil {
		t, err = time.Parse(time.RFC1123Z, s)
	}
	return t.UTC(), err == nil
}

func unixTime(n float64) (time.Time, bool) {
	if math.IsNaN(n) || math.Abs(n) > 1<<40 {
		return time.Time{}, false
	}
	whole, part := math.Modf(n)
	return time.Unix(int64(whole), int64(math.Round(part*1e6))*1e3).UTC(), true
}

func formTime(t time.Time, form string) string {
	t = t.UTC()
	switch form {
	case rfcForm:
		return t.Format(http.TimeFormat)
	case unixForm:
		return unixText(t)
	}
	return t.Format("2006-01-02T15:04:05.000Z")
}

// unixText is seconds with up to three digits behind the point, as AWS writes them.
func unixText(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

// unbase64 takes base64 with or without padding, as AWS does.
func unbase64(s string) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		data, err = base64.RawStdEncoding.DecodeString(s)
	}
	return data, err
}

// textOf writes a scalar for headers, XML and the query string.
func textOf(p *plan, v reflect.Value, form string) string {
	if p.kind == kAny {
		return textOf(p.loose, v.Elem(), form)
	}
	if p.shape.Timestamp != "" {
		form = p.shape.Timestamp
	}
	switch p.kind {
	case kInt:
		return strconv.FormatInt(v.Int(), 10)
	case kFloat:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	case kBool:
		return strconv.FormatBool(v.Bool())
	case kTime:
		return formTime(v.Interface().(time.Time), form)
	case kBlob:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	case kString:
		return v.String()
	}
	return ""
}
