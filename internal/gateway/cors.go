package gateway

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
)

// cors answers for a front that declares cross-origin sharing: "Configure CORS for HTTP APIs" and function URLs.
type cors struct {
	origins                          []string
	methods, headers, expose, maxAge string
	credentials                      bool
}

func newCORS(c *app.CORS) *cors {
	if c == nil {
		return nil
	}
	out := &cors{origins: c.Origins, methods: strings.Join(c.Methods, ","), headers: strings.Join(c.Headers, ","),
		expose: strings.Join(c.Expose, ","), credentials: c.Credentials}
	if c.MaxAgeSec > 0 {
		out.maxAge = strconv.Itoa(c.MaxAgeSec)
	}
	return out
}

// allow gives the value of Access-Control-Allow-Origin for an Origin, or "".
func (c *cors) allow(origin string) string {
	for _, o := range c.origins {
		if o == "*" {
			if c.credentials {
				return origin
			}
			return "*"
		}
		if originMatches(o, origin) {
			return origin
		}
	}
	return ""
}

// originMatches compares an Origin with a declared one, in which one "*" stands for any text: "https://*".
func originMatches(pattern, origin string) bool {
	pattern, origin = strings.ToLower(pattern), strings.ToLower(origin)
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == origin
	}
	return len(origin) >= len(before)+len(after) && strings.HasPrefix(origin, before) && strings.HasSuffix(origin, after)
}

// isPreflight says whether a browser asks before it sends the real request: Fetch standard, "CORS-preflight request".
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// preflight sets the headers of the answer to a preflight request; none for an origin that is not allowed.
func (c *cors) preflight(h http.Header, origin string) {
	allowed := c.allow(origin)
	if allowed == "" {
		return
	}
	h.Set("Access-Control-Allow-Origin", allowed)
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	set("Access-Control-Allow-Methods", c.methods)
	set("Access-Control-Allow-Headers", c.headers)
	set("Access-Control-Expose-Headers", c.expose)
	set("Access-Control-Max-Age", c.maxAge)
	if c.credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

// decorate puts the front's headers into the place of the function's own.
func (c *cors) decorate(h http.Header, origin string) {
	for name := range h {
		if len(name) > 15 && strings.EqualFold(name[:15], "Access-Control-") {
			delete(h, name)
		}
	}
	if origin == "" {
		return
	}
	if allowed := c.allow(origin); allowed != "" {
		h.Set("Access-Control-Allow-Origin", allowed)
		if c.expose != "" {
			h.Set("Access-Control-Expose-Headers", c.expose)
		}
		if c.credentials {
			h.Set("Access-Control-Allow-Credentials", "true")
		}
	}
}

// restPreflight is the OPTIONS mock of a REST API: it gives the declared headers to everybody, and of several origins
// the one that asks, else the first.
func restPreflight(h http.Header, c *app.CORS, origin string) {
	if len(c.Origins) > 0 {
		allowed := c.Origins[0]
		for _, o := range c.Origins {
			if o != "*" && originMatches(o, origin) {
				allowed = origin
			}
		}
		h.Set("Access-Control-Allow-Origin", allowed)
	}
	if len(c.Headers) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(c.Headers, ","))
	}
	if len(c.Methods) > 0 {
		h.Set("Access-Control-Allow-Methods", strings.Join(c.Methods, ","))
	}
	if c.MaxAgeSec > 0 {
		h.Set("Access-Control-Max-Age", strconv.Itoa(c.MaxAgeSec))
	}
	if c.Credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Set("Content-Type", "application/json")
}
