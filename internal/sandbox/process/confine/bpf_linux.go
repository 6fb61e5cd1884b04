package confine

import "encoding/binary"

// insn is a struct sock_filter: linux/filter.h.
type insn struct {
	code   uint16
	jt, jf uint8 // instructions to skip
	k      uint32
}

// The operations that seccomp takes and are needed here: linux/bpf_common.h.
const (
	opLoad    = 0x20 // BPF_LD|BPF_W|BPF_ABS
	opAnd     = 0x54 // BPF_ALU|BPF_AND|BPF_K
	opJump    = 0x05 // BPF_JMP|BPF_JA
	opEqual   = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	opAtLeast = 0x35 // BPF_JMP|BPF_JGE|BPF_K
	opReturn  = 0x06 // BPF_RET|BPF_K
)

// Where struct seccomp_data has what, on a little-endian machine.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16 // 8 bytes each, the lower half first
)

const (
	insnSize        = 8
	maxInstructions = 4096 // BPF_MAXINSNS
	maxSkip         = 255
)

// decision is a piece of program that ends in a verdict on every way through it. It is comparable.
type decision interface{ compile() []insn }

// verdict is what the filter returns: linux/seccomp.h, SECCOMP_RET_*.
type verdict uint32

func (v verdict) compile() []insn { return []insn{{code: opReturn, k: uint32(v)}} }

// check asks whether half of an argument, the lower one unless said, under a mask, is a value. Most arguments that are looked at are ints (or
// shorter) for the kernel, which does not see the upper half either: to look at it would be to be deceived by it.
type check struct {
	arg         int
	upper       bool
	mask, value uint32
	yes, no     decision
}

func (c *check) compile() []insn {
	from := uint32(offsetArgs + 8*c.arg)
	if c.upper {
		from += 4
	}
	p := []insn{{code: opLoad, k: from}}
	if c.mask != ^uint32(0) {
		p = append(p, insn{code: opAnd, k: c.mask})
	}
	yes := c.yes.compile()
	p = append(p, skipUnless(opEqual, c.value, len(yes))...)
	return append(append(p, yes...), c.no.compile()...)
}

// oneOf asks whether an argument under a mask is one of the values.
func oneOf(arg int, mask uint32, yes, no decision, values ...uint32) decision {
	for _, v := range values {
		no = &check{arg: arg, mask: mask, value: v, yes: yes, no: no}
	}
	return no
}

// null asks whether an argument that is a pointer is null.
func null(arg int, yes, no decision) decision {
	return oneOf(arg, whole, &check{arg: arg, upper: true, mask: whole, yes: yes, no: no}, no, 0)
}

// skipUnless goes on behind itself when the test holds, and otherwise n instructions later.
func skipUnless(op uint16, k uint32, n int) []insn {
	if n <= maxSkip {
		return []insn{{code: op, jf: uint8(n), k: k}}
	}
	return []insn{{code: op, jt: 1, k: k}, {code: opJump, k: uint32(n)}}
}

// span is a range of numbers, up to the next span's, that share a decision.
type span struct {
	first uint32
	d     decision
}

// search finds the span of the loaded number by halving.
func search(spans []span) []insn {
	if len(spans) == 1 {
		return spans[0].d.compile()
	}
	half := len(spans) / 2
	high, low := search(spans[half:]), search(spans[:half])
	return append(append(skipUnless(opAtLeast, spans[half].first, len(high)), high...), low...)
}

func encode(p []insn) []byte {
	b := make([]byte, 0, insnSize*len(p))
	for _, i := range p {
		b = binary.LittleEndian.AppendUint16(b, i.code)
		b = append(b, i.jt, i.jf)
		b = binary.LittleEndian.AppendUint32(b, i.k)
	}
	return b
}
