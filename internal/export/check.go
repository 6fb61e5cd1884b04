package export

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"

	"github.com/ebb-run/ebb/internal/errs"
)

// Check reads an export to its end, and tells what it holds. It finds one that was cut off.
func Check(r io.Reader) (Totals, error) {
	t := tar.NewReader(r)
	var totals Totals
	for ended := false; ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) && ended {
			_, err := io.Copy(io.Discard, r)
			return totals, err
		}
		if err != nil {
			return totals, errs.New(errs.Unavailable, "the export broke off: %w", err).WithHint("The server's log says why.")
		}
		if ended = h.Name == endName; ended {
			if err := json.NewDecoder(t).Decode(&totals); err != nil {
				return totals, invalid(h.Name, "it is not to be understood: %v", err)
			}
		}
	}
}
