package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"sync"
)

// ids makes version 4 UUIDs (RFC 9562, section 5.4) from the system's random source, many at a read.
type ids struct {
	mu struct {
		sync.Mutex
		buf  [4096]byte
		left int
	}
}

func (g *ids) next() string {
	var u [16]byte
	g.mu.Lock()
	if g.mu.left < len(u) {
		_, _ = rand.Read(g.mu.buf[:]) // never fails: crypto/rand ends the program instead
		g.mu.left = len(g.mu.buf)
	}
	fresh := g.mu.buf[len(g.mu.buf)-g.mu.left:][:len(u)]
	copy(u[:], fresh)
	clear(fresh)
	g.mu.left -= len(u)
	g.mu.Unlock()
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	var t [36]byte
	hex.Encode(t[0:8], u[0:4])
	hex.Encode(t[9:13], u[4:6])
	hex.Encode(t[14:18], u[6:8])
	hex.Encode(t[19:23], u[8:10])
	hex.Encode(t[24:36], u[10:16])
	t[8], t[13], t[18], t[23] = '-', '-', '-', '-'
	return string(t[:])
}

// APIID is the id of an API (or, with a Function's key, of a function URL) of a Stack: ten lower-case letters and
// digits that stay the same while the names do.
func APIID(tenant, app, stage, id string) string { return stableID(10, tenant, app, stage, id) }

func stableID(n int, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	sum := h.Sum(nil)
	out := make([]byte, n)
	for i := range out {
		out[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[int(sum[i%len(sum)])%36]
	}
	if out[0] >= '0' && out[0] <= '9' {
		out[0] = 'a' + out[0] - '0'
	}
	return string(out)
}

// extendedID is 15 characters and "=", the form of API Gateway's own request ids, made of an Invocation's. It is the
// one that functions find in their event.
func extendedID(id string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	out := make([]byte, 0, 16)
	for i := 0; i+1 < len(id) && len(out) < 15; i++ {
		a, b := unhex(id[i]), unhex(id[i+1])
		if a >= 0 && b >= 0 {
			out = append(out, alphabet[(a<<4|b)&63])
		}
	}
	for len(out) < 15 {
		out = append(out, 'A')
	}
	return string(append(out, '='))
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
