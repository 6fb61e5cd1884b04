package api_test

import (
	"context"
	"io"

	"github.com/ebb-run/ebb/internal/export"
)

func (b *backend) Backup(_ context.Context, w io.Writer) error {
	if b.fault != nil {
		return b.fault
	}
	_, err := io.WriteString(w, "all of it")
	return err
}

func (b *backend) Export(_ context.Context, _ export.Choice, w io.Writer) error {
	_, err := io.WriteString(w, "tables")
	return err
}

func (b *backend) Import(_ context.Context, _ export.Options, r io.Reader, _ func(export.Result)) (export.Result, error) {
	n, err := io.Copy(io.Discard, r)
	return export.Result{Items: export.Count{Written: n}}, err
}
