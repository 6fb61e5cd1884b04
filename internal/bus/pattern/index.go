package pattern

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/bus/rawjson"
)

// class is how a slot is found.
type class uint8

const (
	byString class = iota
	byFold
	byLiteral
	byNumber     // text: its bits in order
	byNumberText // numbers that a float64 does not hold
	byPrefix     // size: bytes of text
	bySuffix
	byPrefixFold
	bySuffixFold
	byNet   // size: bits; text: the masked address
	byRange // size: bits; text: the first bits of numbers in order
	byAny
	byScan // text: the test's own key
)

const sized = byScan + 1 // length of tables by class

// slot is a place in an index.
type slot struct {
	class class
	size  uint8 // for the classes that are looked up at several sizes
	text  string
}

// index leads from the values of one path to the entries filed under it.
type index struct {
	slots map[slot][]*entry
	scan  map[slot]*test       // byScan: what must be tried
	sizes [sized]map[uint8]int // how many slots have a size
	lists [sized][]uint8       // the sizes that are there
	count [sized]int
}

func newIndex() *index { return &index{slots: map[slot][]*entry{}, scan: map[slot]*test{}} }

func (x *index) empty() bool { return len(x.slots) == 0 }

func (x *index) add(e *entry) {
	slices.SortFunc(e.slots, func(a, b slot) int {
		if a.class != b.class {
			return int(a.class) - int(b.class)
		}
		if a.size != b.size {
			return int(a.size) - int(b.size)
		}
		return strings.Compare(a.text, b.text)
	})
	e.slots = slices.Compact(e.slots)
	for _, s := range e.slots {
		if len(x.slots[s]) == 0 {
			x.count[s.class]++
			if x.sizes[s.class] == nil {
				x.sizes[s.class] = map[uint8]int{}
			}
			if x.sizes[s.class][s.size]++; x.sizes[s.class][s.size] == 1 {
				x.lists[s.class] = append(x.lists[s.class], s.size)
			}
		}
		x.slots[s] = append(x.slots[s], e)
		if s.class == byScan {
			x.scan[s] = e.scanned(s)
		}
	}
}

// scanned finds the test that a slot of class byScan stands for.
func (e *entry) scanned(s slot) *test {
	for i := range e.conds {
		c := &e.conds[i]
		if c.step != e.step {
			continue
		}
		for k := range c.tests {
			if got := c.tests[k].slots(nil); len(got) == 1 && got[0] == s {
				return &c.tests[k]
			}
		}
	}
	return &test{op: opExists}
}

func (x *index) remove(e *entry) {
	for _, s := range e.slots {
		left := without(x.slots[s], e)
		if len(left) > 0 {
			x.slots[s] = left
			continue
		}
		delete(x.slots, s)
		delete(x.scan, s)
		x.count[s.class]--
		if x.sizes[s.class][s.size]--; x.sizes[s.class][s.size] == 0 {
			delete(x.sizes[s.class], s.size)
			x.lists[s.class] = slices.DeleteFunc(x.lists[s.class], func(n uint8) bool { return n == s.size })
		}
	}
}

// maxAffix is the longest prefix or suffix that is looked up; of longer ones the first or last bytes are.
const maxAffix = 255

// slots appends where a test's entry is to be found: for each value that the test accepts, find meets one of them.
func (t *test) slots(to []slot) []slot {
	switch t.op {
	case opString:
		return append(to, slot{class: byString, text: t.text})
	case opFold:
		return append(to, slot{class: byFold, text: t.text})
	case opLiteral:
		return append(to, slot{class: byLiteral, text: t.text})
	case opPrefix:
		return append(to, affix(byPrefix, t.text))
	case opSuffix:
		return append(to, affix(bySuffix, t.text))
	case opPrefixFold:
		return append(to, affix(byPrefixFold, t.text))
	case opSuffixFold:
		return append(to, affix(bySuffixFold, t.text))
	case opNumber:
		if t.exact {
			to = append(to, slot{class: byNumber, text: string(key64(ordered(t.num)))})
		}
		return append(to, slot{class: byNumberText, text: t.text})
	case opRange:
		return t.ranges(to)
	case opAddr:
		return append(to, netSlot(netip.PrefixFrom(t.addr, t.addr.BitLen())))
	case opCIDR:
		return append(to, netSlot(t.net))
	case opGlob:
		first, last := t.parts[0], t.parts[len(t.parts)-1]
		switch {
		case len(t.parts) == 1:
			return append(to, slot{class: byString, text: first})
		case first != "":
			return append(to, affix(byPrefix, first))
		case last != "":
			return append(to, affix(bySuffix, last))
		}
		return append(to, slot{class: byScan, text: "*" + t.text})
	case opNot:
		return append(to, slot{class: byScan, text: t.name()})
	}
	return append(to, slot{class: byAny})
}

// name tells anything-but tests apart.
func (t *test) name() string {
	var b strings.Builder
	b.WriteByte('!')
	for i := range t.none {
		n := &t.none[i]
		b.WriteString(strconv.Itoa(int(n.op)))
		b.WriteString(strconv.Quote(n.text))
	}
	return b.String()
}

func affix(c class, text string) slot {
	if len(text) > maxAffix {
		if c == byPrefix || c == byPrefixFold {
			text = text[:maxAffix]
		} else {
			text = text[len(text)-maxAffix:]
		}
	}
	return slot{class: c, size: uint8(len(text)), text: text}
}

func netSlot(n netip.Prefix) slot {
	// Of a whole IPv6 address the size would be 128 as well as that of no IPv4 network; the text's length tells them apart.
	return slot{class: byNet, size: uint8(n.Bits()), text: string(n.Masked().Addr().AsSlice())}
}

// cost is how many entries are looked at, about, for each event that this test leads to its own.
func (t *test) cost(x *index) int {
	var buf [4]slot
	n := 0
	for _, s := range t.slots(buf[:0]) {
		if x != nil {
			n = max(n, len(x.slots[s]))
		}
		switch s.class {
		case byAny, byScan:
			return 1<<20 + n
		case byPrefix, bySuffix, byPrefixFold, bySuffixFold:
			n += 256 >> min(8, s.size)
		}
	}
	if t.op == opRange || t.op == opCIDR {
		n += 16
	}
	return n
}

// ordered gives numbers an unsigned form with the same order.
func ordered(f float64) uint64 {
	if f == 0 {
		f = 0
	}
	b := math.Float64bits(f)
	if b>>63 == 1 {
		return ^b
	}
	return b | 1<<63
}

func key64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// ranges covers a range by blocks of numbers with the same first bits, as networks cover addresses: at most 126.
func (t *test) ranges(to []slot) []slot {
	lo, hi := ordered(t.lo), ordered(t.hi) // both within
	if t.loOpen {
		lo++
	}
	if t.hiOpen {
		hi--
	}
	for lo <= hi {
		size := bits.TrailingZeros64(lo) // of the block, as a power of two
		if lo == 0 {
			size = 63
		}
		for size > 0 && (size == 64 || lo+(1<<size-1) > hi) {
			size--
		}
		to = append(to, slot{class: byRange, size: uint8(64 - size), text: string(key64(lo))})
		next := lo + 1<<size
		if next <= lo {
			break
		}
		lo = next
	}
	return to
}

// find calls try with every entry that the value leads to; it may do so twice.
func (x *index) find(v *value, try func(*entry)) {
	if x.count[byAny] > 0 {
		each(x.slots[slot{class: byAny}], try)
	}
	for s, t := range x.scan {
		if t.match(v) {
			each(x.slots[s], try)
		}
	}
	switch v.kind {
	case rawjson.String:
		x.findString(v, try)
	case rawjson.Number:
		x.findNumber(v, try)
	default:
		each(x.slots[slot{class: byLiteral, text: string(v.text)}], try)
	}
}

func each(list []*entry, try func(*entry)) {
	for _, e := range list {
		try(e)
	}
}

func (x *index) findString(v *value, try func(*entry)) {
	if x.count[byString] > 0 {
		each(x.slots[slot{class: byString, text: string(v.text)}], try)
	}
	x.findAffix(byPrefix, v.text, try)
	x.findAffix(bySuffix, v.text, try)
	if x.count[byFold]+x.count[byPrefixFold]+x.count[bySuffixFold] > 0 {
		each(x.slots[slot{class: byFold, text: string(v.folded())}], try)
		x.findAffix(byPrefixFold, v.folded(), try)
		x.findAffix(bySuffixFold, v.folded(), try)
	}
	if x.count[byNet] == 0 {
		return
	}
	a, ok := v.address()
	if !ok {
		return
	}
	for _, size := range x.lists[byNet] {
		if n, err := a.Prefix(int(size)); err == nil {
			b := n.Addr().As16()
			text := b[:]
			if a.Is4() {
				text = text[12:]
			}
			each(x.slots[slot{class: byNet, size: size, text: string(text)}], try)
		}
	}
}

func (x *index) findAffix(c class, text []byte, try func(*entry)) {
	for _, size := range x.lists[c] {
		if n := int(size); n <= len(text) {
			part := text[:n]
			if c == bySuffix || c == bySuffixFold {
				part = text[len(text)-n:]
			}
			each(x.slots[slot{class: c, size: size, text: string(part)}], try)
		}
	}
}

func (x *index) findNumber(v *value, try func(*entry)) {
	f, ok := v.number()
	if !ok {
		each(x.slots[slot{class: byNumberText, text: string(v.text)}], try)
		return
	}
	n := ordered(f)
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], n)
	each(x.slots[slot{class: byNumber, text: string(key[:])}], try)
	for _, size := range x.lists[byRange] {
		masked := n
		if size < 64 {
			masked &^= 1<<(64-size) - 1
		}
		binary.BigEndian.PutUint64(key[:], masked)
		each(x.slots[slot{class: byRange, size: size, text: string(key[:])}], try)
	}
}
