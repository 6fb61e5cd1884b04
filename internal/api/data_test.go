package api_test

import (
	"context"
	"io"
)

func (b *backend) Backup(_ context.Context, w io.Writer) error {
	if b.fault != nil {
		return b.fault
	}
	_, err := io.WriteString(w, "all of it")
	return err
}
