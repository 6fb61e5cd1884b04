package pattern

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/bus/rawjson"
)

// op is how a test compares.
type op uint8

const (
	opString op = iota
	opLiteral
	opNumber
	opRange
	opFold
	opPrefix
	opSuffix
	opPrefixFold
	opSuffixFold
	opGlob
	opAddr
	opCIDR
	opExists
	opNot
)

// test is one thing that a field may be.
type test struct {
	op             op
	text           string // the string, folded for the Fold kinds; a number's text
	num            float64
	exact          bool // num is text's value
	lo, hi         float64
	loOpen, hiOpen bool
	net            netip.Prefix // of opCIDR
	addr           netip.Addr
	parts          []string // of opGlob: what is between the stars
	none           []test   // of opNot
}

// exactly is the test for a string of a pattern: an address is compared as one.
func exactly(s string) test {
	if a, ok := address(s); ok {
		return test{op: opAddr, addr: a, text: s}
	}
	return test{op: opString, text: s}
}

func number(text string) test {
	f, ok := exactFloat([]byte(text))
	return test{op: opNumber, num: f, exact: ok, text: text}
}

// value is a leaf of an event. What is worked out from its text is kept.
type value struct {
	kind  rawjson.Kind
	text  []byte // decoded for a string, else as written
	num   float64
	exact bool // num is text's value
	did   uint8
	fold  []byte
	addr  netip.Addr
}

const (
	didNumber = 1 << iota
	didFold
	didAddr
)

func (v *value) number() (float64, bool) {
	if v.did&didNumber == 0 {
		v.did |= didNumber
		if v.kind == rawjson.Number {
			v.num, v.exact = exactFloat(v.text)
		}
	}
	return v.num, v.exact
}

func (v *value) folded() []byte {
	if v.did&didFold == 0 {
		v.did |= didFold
		v.fold = appendFold(v.fold[:0], v.text)
	}
	return v.fold
}

func (v *value) address() (netip.Addr, bool) {
	if v.did&didAddr == 0 {
		v.did |= didAddr
		v.addr = netip.Addr{}
		if v.kind == rawjson.String && len(v.text) < 64 && looksAddress(v.text) {
			v.addr, _ = address(string(v.text))
		}
	}
	return v.addr, v.addr.IsValid()
}

func begins(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }
func ends(b []byte, s string) bool   { return len(b) >= len(s) && string(b[len(b)-len(s):]) == s }

func (t *test) match(v *value) bool {
	switch t.op {
	case opExists:
		return true
	case opNot:
		for i := range t.none {
			if t.none[i].match(v) {
				return false
			}
		}
		return true
	case opLiteral:
		return v.kind != rawjson.String && v.kind != rawjson.Number && string(v.text) == t.text
	case opNumber, opRange:
		return v.kind == rawjson.Number && t.matchNumber(v)
	}
	if v.kind != rawjson.String {
		return false
	}
	switch t.op {
	case opString:
		return string(v.text) == t.text
	case opFold:
		return string(v.folded()) == t.text
	case opPrefix:
		return begins(v.text, t.text)
	case opSuffix:
		return ends(v.text, t.text)
	case opPrefixFold:
		return begins(v.folded(), t.text)
	case opSuffixFold:
		return ends(v.folded(), t.text)
	case opGlob:
		return t.matchGlob(v.text)
	case opAddr:
		a, ok := v.address()
		return ok && a == t.addr
	case opCIDR:
		a, ok := v.address()
		return ok && t.net.Contains(a)
	}
	return false
}

func (t *test) matchNumber(v *value) bool {
	f, ok := v.number()
	if t.op == opNumber {
		return ok && t.exact && f == t.num || !ok && string(v.text) == t.text
	}
	return ok && (f > t.lo || f == t.lo && !t.loOpen) && (f < t.hi || f == t.hi && !t.hiOpen)
}

// matchGlob takes each part at its first place, which leaves the most for the rest.
func (t *test) matchGlob(b []byte) bool {
	first, last := t.parts[0], t.parts[len(t.parts)-1]
	if len(t.parts) == 1 {
		return string(b) == first
	}
	if !begins(b, first) || !ends(b[len(first):], last) {
		return false
	}
	// Index of a string in a string does not go quadratic, and the conversion of the middle is done once.
	middle := b[len(first) : len(b)-len(last)]
	if len(t.parts) == 2 {
		return true
	}
	rest := string(middle)
	for _, part := range t.parts[1 : len(t.parts)-1] {
		at := strings.Index(rest, part)
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return true
}

// fold gives strings that differ in case alone the same form.
func fold(s string) string { return string(appendFold(nil, []byte(s))) }

func appendFold(out, s []byte) []byte {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			out = append(out, c)
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		out = utf8.AppendRune(out, unicode.ToLower(unicode.ToUpper(r)))
		i += n
	}
	return out
}

func looksAddress(b []byte) bool {
	dots, colons := 0, 0
	for _, c := range b {
		switch {
		case c == '.':
			dots++
		case c == ':':
			colons++
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return dots == 3 && colons == 0 || dots == 0 && colons > 0
}

// address reads an IPv4 or IPv6 address, without zones and mixed spellings; an IPv4 address written as IPv6 is IPv4.
func address(s string) (netip.Addr, bool) {
	if !looksAddress([]byte(s)) {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

// exactFloat is a JSON number as a float64, and whether that holds it exactly: whether its shortest decimal is the same number.
func exactFloat(text []byte) (float64, bool) {
	if f, ok := small(text); ok {
		return f, true
	}
	if len(text) > 400 {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsInf(f, 0) {
		return 0, false
	}
	var buf [32]byte
	short := strconv.AppendFloat(buf[:0], f, 'e', -1, 64)
	d1, e1 := decimal(text)
	d2, e2 := decimal(short)
	if d1 != d2 || e1 != e2 {
		return 0, false
	}
	if f == 0 {
		f = 0 // no negative zero
	}
	return f, true
}

// small reads integers of up to 15 digits.
func small(text []byte) (float64, bool) {
	digits := text
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) == 0 || len(digits) > 15 {
		return 0, false
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if len(digits) < len(text) {
		n = -n
	}
	return float64(n), true
}

// decimal is a number as a sign and digits without zeros around them, times ten to the power of exp. Zero has no digits.
func decimal(text []byte) (digits string, exp int) {
	mantissa := string(text)
	if at := strings.IndexAny(mantissa, "eE"); at >= 0 {
		n, err := strconv.Atoi(strings.TrimPrefix(mantissa[at+1:], "+"))
		if err != nil {
			n = math.MaxInt32
		}
		mantissa, exp = mantissa[:at], n
	}
	sign := ""
	if rest, ok := strings.CutPrefix(mantissa, "-"); ok {
		sign, mantissa = "-", rest
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	all := strings.TrimLeft(whole+fraction, "0")
	exp -= len(fraction)
	trimmed := strings.TrimRight(all, "0")
	if trimmed == "" {
		return "", 0
	}
	return sign + trimmed, exp + len(all) - len(trimmed)
}
