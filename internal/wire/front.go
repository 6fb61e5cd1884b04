package wire

import (
	"crypto/rand"
	"encoding/json"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/wire/shape"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// front answers requests that name no operation of any service, signed or not, as AWS's JSON services do: a client that speaks that protocol
// to the wrong place is told so in it. Whatever else has no service is left to who comes next. nil: it is none of these.
func (h *Handler) front(c *Call) *shape.Answer {
	r := c.Request
	if r.URL.Path != "/" || strings.Contains(r.Header.Get("X-Amz-Target"), ".") || c.Service != nil && c.Service.Name != "s3" || r.URL.Query().Has("Action") {
		return nil
	}
	origin := r.Header.Get("Origin") != ""
	if r.Method == http.MethodOptions && origin && c.Service == nil {
		return preflight(c)
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	kind = strings.TrimSpace(kind)
	asJSON := kind == "application/json" || kind == "application/x-amz-json-1.0"
	if r.Method != http.MethodPost || !asJSON && (kind != "" || r.ContentLength != 0) {
		return nil
	}
	body, err := sign.ReadBody(r.Body, r.ContentLength, 1<<20, c.held.grow)
	if err != nil {
		return nil
	}
	code := "UnknownOperationException"
	if len(body) > 0 && !json.Valid(body) {
		code = "SerializationException"
	}
	if kind != "application/x-amz-json-1.0" {
		kind = "application/json"
	}
	text := []byte(`{"__type":"com.amazon.coral.service#` + code + `"}`)
	a := &shape.Answer{Status: http.StatusBadRequest, Body: text, Header: http.Header{"Content-Type": {kind}, "X-Amz-Crc32": {strconv.FormatUint(uint64(crc32.ChecksumIEEE(text)), 10)}}}
	if origin {
		a.Header.Set("Access-Control-Allow-Origin", "*")
	}
	c.RequestID = rand.Text() + rand.Text()
	return a
}

// preflight lets pages of any origin ask, as AWS's JSON services do.
func preflight(c *Call) *shape.Answer {
	a := &shape.Answer{Status: http.StatusOK, Header: http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Max-Age": {"172800"}}}
	for asked, allowed := range map[string]string{"Access-Control-Request-Headers": "Access-Control-Allow-Headers", "Access-Control-Request-Method": "Access-Control-Allow-Methods"} {
		if v := c.Request.Header.Get(asked); v != "" {
			a.Header.Set(allowed, v)
		}
	}
	c.RequestID = rand.Text() + rand.Text()
	return a
}
