package store

import (
	"errors"
	"math/big"
	"strings"
)

// Bounds of a Number: DynamoDB limits, "Data types and naming rules: Number".
const (
	MaxDigits   = 38
	maxExponent = 125
	minExponent = -130
)

// What is wrong with a Number.
var (
	ErrNotNumber = errors.New("not a number")
	ErrOverflow  = errors.New("the number is too large")
	ErrUnderflow = errors.New("the number is too small")
	ErrPrecision = errors.New("the number has more than 38 significant digits")
)

// Number is an exact decimal: d.ddd × 10^exp with at most 38 digits. The zero Number is 0.
type Number struct {
	neg    bool
	exp    int    // power of ten of the first digit
	digits string // without zeros at either end; empty means 0
}

// ParseNumber reads a decimal with optional sign, fraction and exponent.
func ParseNumber(s string) (Number, error) {
	neg := false
	rest := s
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		neg, rest = rest[0] == '-', rest[1:]
	}
	exp := 0
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		e, ok := exponent(rest[i+1:])
		if !ok {
			return Number{}, ErrNotNumber
		}
		exp, rest = e, rest[:i]
	}
	whole, frac, _ := strings.Cut(rest, ".")
	if whole == "" && frac == "" || !allDigits(whole) || !allDigits(frac) {
		return Number{}, ErrNotNumber
	}
	return normal(neg, whole+frac, exp+len(whole)-1)
}

// exponent reads the part behind the e. Beyond what any digits can make good again it is held at a bound.
func exponent(s string) (int, bool) {
	sign := 1
	if s != "" && (s[0] == '-' || s[0] == '+') {
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
	}
	if s == "" || !allDigits(s) {
		return 0, false
	}
	e := 0
	for _, c := range []byte(s) {
		if e = e*10 + int(c-'0'); e > 1<<24 {
			e = 1 << 24
		}
	}
	return sign * e, true
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// normal makes a Number of digits of which the first stands for 10^exp, and holds the bounds.
func normal(neg bool, digits string, exp int) (Number, error) {
	trimmed := strings.TrimLeft(digits, "0")
	exp -= len(digits) - len(trimmed)
	trimmed = strings.TrimRight(trimmed, "0")
	switch {
	case trimmed == "":
		return Number{}, nil
	case exp > maxExponent:
		return Number{}, ErrOverflow
	case exp < minExponent:
		return Number{}, ErrUnderflow
	case len(trimmed) > MaxDigits:
		return Number{}, ErrPrecision
	}
	return Number{neg: neg, exp: exp, digits: trimmed}, nil
}

// String returns the plain decimal without an exponent, the one form a value has.
func (n Number) String() string {
	if n.digits == "" {
		return "0"
	}
	var b strings.Builder
	if n.neg {
		b.WriteByte('-')
	}
	switch point := n.exp + 1; { // digits before the point
	case point <= 0:
		b.WriteString("0.")
		b.WriteString(strings.Repeat("0", -point))
		b.WriteString(n.digits)
	case point >= len(n.digits):
		b.WriteString(n.digits)
		b.WriteString(strings.Repeat("0", point-len(n.digits)))
	default:
		b.WriteString(n.digits[:point])
		b.WriteByte('.')
		b.WriteString(n.digits[point:])
	}
	return b.String()
}

// Sign returns -1, 0 or 1.
func (n Number) Sign() int {
	switch {
	case n.digits == "":
		return 0
	case n.neg:
		return -1
	}
	return 1
}

// Compare returns -1, 0 or 1 as n is below, equal to or above m.
func (n Number) Compare(m Number) int {
	if a, b := n.Sign(), m.Sign(); a != b {
		if a < b {
			return -1
		}
		return 1
	}
	c := 0
	switch {
	case n.exp != m.exp && n.exp < m.exp:
		c = -1
	case n.exp != m.exp:
		c = 1
	default:
		c = strings.Compare(n.digits, m.digits) // the first digit is not zero in either
	}
	if n.neg {
		return -c
	}
	return c
}

// Add returns n + m, or what is wrong with the sum.
func (n Number) Add(m Number) (Number, error) {
	low := min(n.exp-len(n.digits), m.exp-len(m.digits)) + 1
	sum := new(big.Int).Add(n.scaled(low), m.scaled(low))
	digits := new(big.Int).Abs(sum).String()
	return normal(sum.Sign() < 0, digits, low+len(digits)-1)
}

// Sub returns n - m, or what is wrong with the difference.
func (n Number) Sub(m Number) (Number, error) {
	m.neg = !m.neg
	return n.Add(m)
}

// scaled returns n as a multiple of 10^low.
func (n Number) scaled(low int) *big.Int {
	if n.digits == "" {
		return new(big.Int)
	}
	v, _ := new(big.Int).SetString(n.digits+strings.Repeat("0", n.exp-len(n.digits)+1-low), 10)
	if n.neg {
		v.Neg(v)
	}
	return v
}

// size is what DynamoDB counts for a number: a byte for two digits, aligned at the point, one for the exponent and one for a sign.
func (n Number) size() int {
	d := len(n.digits)
	if d == 0 {
		return 1
	}
	size := 1 + (d+1)/2
	if d%2 == 0 && n.exp%2 == 0 {
		size++
	}
	if n.neg {
		size++
	}
	return size
}

// Sortable appends bytes that order as the numbers do: an exponent of 100 with the sign, then digits of base 100. Between numbers of the
// same sign the shorter of two that begin alike is the nearer to zero.
func (n Number) Sortable(b []byte) []byte {
	if n.digits == "" {
		return append(b, 0x80)
	}
	point := n.exp + 1
	odd := point%2 != 0
	digits := n.digits
	if odd {
		point++
		digits = "0" + digits
	}
	if len(digits)%2 != 0 {
		digits += "0"
	}
	first := byte(point/2 - 64)
	if n.neg {
		first = ^first
	}
	b = append(b, first)
	for i := 0; i < len(digits); i += 2 {
		d := (digits[i]-'0')*10 + digits[i+1] - '0'
		if n.neg {
			b = append(b, 101-d)
		} else {
			b = append(b, d+1)
		}
	}
	if n.neg && len(digits)/2 < 20 {
		b = append(b, 102)
	}
	return b
}
