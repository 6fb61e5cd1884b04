package invocation

import (
	"bytes"
	"net"

	"github.com/ebb-run/ebb/internal/errs"
)

// Buffer is a Sink that keeps the answer in memory, up to Limit bytes.
type Buffer struct {
	Head    Head
	Body    bytes.Buffer
	Limit   int64 // bytes; 0 means no limit
	Started bool
}

// Start keeps the Head.
func (b *Buffer) Start(h Head) error {
	if b.Started {
		return errs.New(errs.Internal, "the answer was started twice")
	}
	b.Started, b.Head = true, h
	return nil
}

// Write keeps the bytes, or refuses what is over the limit.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.Limit > 0 && int64(b.Body.Len()+len(p)) > b.Limit {
		return 0, errs.New(errs.TooLarge, "the answer is over the limit of %d bytes", b.Limit)
	}
	return b.Body.Write(p)
}

// Upgrade always refuses.
func (b *Buffer) Upgrade(Head) (net.Conn, error) {
	return nil, errs.New(errs.Unsupported, "a buffered answer has no connection to upgrade")
}
