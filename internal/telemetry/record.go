package telemetry

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"github.com/ebb-run/ebb/internal/seal"
)

// Kind says what wrote a Record.
type Kind = string

// The kinds.
const (
	KindLine     Kind = "line"     // by the function
	KindStart    Kind = "start"    // START line
	KindEnd      Kind = "end"      // END line
	KindReport   Kind = "report"   // REPORT line
	KindInit     Kind = "init"     // about an Init phase
	KindPlatform Kind = "platform" // any other line of ebb's: timeout, exit, out of memory
)

// Record is one line of log.
type Record struct {
	Time       time.Time
	Tenant     string
	App        string
	Stage      string
	Function   string // full name
	Instance   string
	Invocation string // its ID, or empty for what belongs to none
	Kind       Kind
	Text       string // without the newline; any bytes
}

// A segment file is segmentHead, then frames: length u32 and CRC-32C u32 of the payload (little endian), and the payload: time
// as nanoseconds since 1970 (8 bytes), then the strings in the order of Record, each with its length as a uvarint. Where there is a key, the
// payload is sealed.

// segmentHead names the format and its version.
const segmentHead = "ebb-logs 1\n"

const segmentPrefix = "ebb-logs "

const (
	frameHead = 8
	// maxText bounds one Record; a longer text becomes several. CloudWatch has the same bound for an event.
	maxText = 256 << 10
	// maxName bounds the other fields; what is longer is cut.
	maxName = 1 << 10
	// maxFrame bounds what a frame's length can say.
	maxFrame = maxText + 8*maxName + seal.Overhead
	// sealPlace binds sealed payloads to logs; where in them they are is not known when they are sealed.
	sealPlace = "log"
)

// castagnoli is never written.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFrame adds the Record's frame to buf.
func appendFrame(buf []byte, box *seal.Box, r *Record, text string) []byte {
	at := len(buf)
	buf = append(buf, make([]byte, frameHead)...)
	if box != nil {
		buf = append(buf, make([]byte, seal.NonceSize)...)
	}
	buf = binary.LittleEndian.AppendUint64(buf, uint64(nanos(r.Time)))
	for _, s := range [...]string{r.Tenant, r.App, r.Stage, r.Function, r.Instance, r.Invocation, r.Kind} {
		s = s[:min(len(s), maxName)]
		buf = binary.AppendUvarint(buf, uint64(len(s)))
		buf = append(buf, s...)
	}
	buf = binary.AppendUvarint(buf, uint64(len(text)))
	buf = append(buf, text...)
	if box != nil {
		buf = slices.Grow(buf, seal.TagSize)
		sealed := box.SealInPlace(buf[at+frameHead:], sealPlace)
		buf = buf[:at+frameHead+len(sealed)]
	}
	payload := buf[at+frameHead:]
	binary.LittleEndian.PutUint32(buf[at:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(buf[at+4:], crc32.Checksum(payload, castagnoli))
	return buf
}

// nanos is the time as a file has it; one that has no such number (the zero time) is 0.
func nanos(t time.Time) int64 {
	if t.Year() < 1700 || t.Year() > 2200 {
		return 0
	}
	return t.UnixNano()
}

// frameLen returns the length of the whole frame at the start of data: 0 when data is too short to say, -1 when it cannot be one.
func frameLen(data []byte) int {
	if len(data) < frameHead {
		return 0
	}
	n := binary.LittleEndian.Uint32(data)
	if n < 16 || n > maxFrame {
		return -1
	}
	return frameHead + int(n)
}

// payloadOf returns the payload of a whole frame, or nil when it is damaged.
func payloadOf(frame []byte) []byte {
	payload := frame[frameHead:]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(frame[4:]) {
		return nil
	}
	return payload
}

// fields are those of a payload, still in its bytes.
type fields struct {
	nanos int64
	s     [8][]byte
}

// split reads a payload.
func split(payload []byte) (f fields, ok bool) {
	if len(payload) < 8 {
		return f, false
	}
	f.nanos = int64(binary.LittleEndian.Uint64(payload))
	payload = payload[8:]
	for i := range f.s {
		n, w := binary.Uvarint(payload)
		if w <= 0 || n > math.MaxInt32 || int(n) > len(payload)-w {
			return f, false
		}
		f.s[i], payload = payload[w:w+int(n)], payload[w+int(n):]
	}
	return f, len(payload) == 0
}

// record copies the fields out.
func (f *fields) record() Record {
	return Record{
		Time:   time.Unix(0, f.nanos).UTC(),
		Tenant: string(f.s[0]), App: string(f.s[1]), Stage: string(f.s[2]), Function: string(f.s[3]),
		Instance: string(f.s[4]), Invocation: string(f.s[5]), Kind: string(f.s[6]), Text: string(f.s[7]),
	}
}

// pieces cuts a text that is too long for one Record, at a character's start where there is one near.
func pieces(text string, f func(string)) {
	for len(text) > maxText {
		n := maxText
		for i := 0; i < 3 && text[n]&0xc0 == 0x80; i++ {
			n--
		}
		f(text[:n])
		text = text[n:]
	}
	f(text)
}
