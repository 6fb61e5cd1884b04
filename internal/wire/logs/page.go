package logs

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"

	"github.com/ebb-run/ebb/internal/telemetry"
)

// Bounds of one answer: CloudWatch Logs API, GetLogEvents and FilterLogEvents, "limit".
const (
	pageEvents = 10_000
	pageBytes  = 1 << 20
)

// place orders events: by their timestamps, then as they came.
type place struct {
	ms  int64
	put bool // by a client; else it is a Function's output
	at  telemetry.Position
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.ms, o.ms), cmp.Compare(digit(p.put), digit(o.put)), cmp.Compare(p.at.Segment, o.at.Segment), cmp.Compare(p.at.Offset, o.at.Offset))
}

func digit(put bool) int {
	if put {
		return 1
	}
	return 0
}

// String writes it in 56 digits, as CloudWatch Logs has the IDs of events.
func (p place) String() string {
	return fmt.Sprintf("%014d%d%021d%020d", p.ms, digit(p.put), p.at.Segment, p.at.Offset)
}

// parsePlace reads what String wrote.
func parsePlace(text string) (p place, ok bool) {
	var put int
	if len(text) != 56 {
		return p, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return p, false
		}
	}
	_, err := fmt.Sscanf(text, "%14d%1d%21d%20d", &p.ms, &put, &p.at.Segment, &p.at.Offset)
	p.put = put == 1
	return p, err == nil && put <= 1
}

// found is an event of a page.
type found struct {
	place
	instance string // of a Function's output
	stream   string // name, of what was put
	message  string
	came     int64 // ms
}

// page collects the first events of all, or with back the last, within bounds. Its memory is bounded by those.
type page struct {
	limit int
	back  bool

	list  []found // a heap, whose top goes first
	bytes int
	cut   *place // what is there or behind is left out
}

func (p *page) Len() int { return len(p.list) }

func (p *page) Less(i, j int) bool { return p.behind(p.list[i].place, p.list[j].place) }

func (p *page) Swap(i, j int) { p.list[i], p.list[j] = p.list[j], p.list[i] }

// Push is heap.Interface's.
func (p *page) Push(x any) { p.list = append(p.list, x.(found)) }

// Pop is heap.Interface's.
func (p *page) Pop() any {
	last := p.list[len(p.list)-1]
	p.list = p.list[:len(p.list)-1]
	return last
}

// behind says whether a comes after b, as the page goes.
func (p *page) behind(a, b place) bool {
	if p.back {
		a, b = b, a
	}
	return a.compare(b) > 0
}

// wants says whether an event at a place would be on the page.
func (p *page) wants(at place) bool { return p.cut == nil || p.behind(*p.cut, at) }

// add puts an event on the page, and takes off what is behind the page's bounds then.
func (p *page) add(e found) {
	if !p.wants(e.place) {
		return
	}
	heap.Push(p, e)
	p.bytes += len(e.message) + eventHead
	for len(p.list) > p.limit || p.bytes > pageBytes && len(p.list) > 1 {
		last := heap.Pop(p).(found)
		p.bytes -= len(last.message) + eventHead
		p.cut = &last.place
	}
}

// sorted gives the events, the oldest first.
func (p *page) sorted() []found {
	slices.SortFunc(p.list, func(a, b found) int { return a.compare(b.place) })
	return p.list
}
