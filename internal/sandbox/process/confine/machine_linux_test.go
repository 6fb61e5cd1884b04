package confine

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// call is a system call as the filter sees it.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

// run interprets a filter as the kernel would, and checks it as the kernel does when it is loaded. It gives the verdict and how many
// instructions it took.
func run(t *testing.T, filter []byte, c call) (verdict, int) {
	t.Helper()
	data := binary.LittleEndian.AppendUint32(nil, c.nr)
	data = binary.LittleEndian.AppendUint32(data, c.arch)
	data = binary.LittleEndian.AppendUint64(data, 0xdeadbeef) // the instruction pointer
	for _, a := range c.args {
		data = binary.LittleEndian.AppendUint64(data, a)
	}
	var acc uint32
	for pc, steps := 0, 1; ; pc, steps = pc+1, steps+1 {
		if 8*pc >= len(filter) {
			t.Fatalf("ran off the end for %+v", c)
		}
		i := filter[8*pc : 8*pc+8]
		code, jt, jf, k := binary.LittleEndian.Uint16(i), int(i[2]), int(i[3]), binary.LittleEndian.Uint32(i[4:])
		jump := func(yes bool) {
			if yes {
				pc += jt
			} else {
				pc += jf
			}
		}
		switch code {
		case 0x20:
			if k%4 != 0 || int(k)+4 > len(data) {
				t.Fatalf("instruction %d loads from %d", pc, k)
			}
			acc = binary.LittleEndian.Uint32(data[k:])
		case 0x54:
			acc &= k
		case 0x05:
			pc += int(k)
		case 0x15:
			jump(acc == k)
		case 0x35:
			jump(acc >= k)
		case 0x06:
			return verdict(k), steps
		default:
			t.Fatalf("instruction %d has code %#x", pc, code)
		}
	}
}

func (v verdict) String() string {
	names := map[verdict]string{allow: "allow", kill: "kill", pretend: "pretend", eperm: "EPERM", enosys: "ENOSYS", noProto: "EPROTONOSUPPORT", noAF: "EAFNOSUPPORT"}
	if s, ok := names[v]; ok {
		return s
	}
	return fmt.Sprintf("%#x", uint32(v))
}
