package server

import (
	"strings"

	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/errs"
)

// openEgress makes what connects functions to the world, by the setting: a mode, destinations, or "anything" and destinations.
func (s *Server) openEgress() (*egress.Egress, error) {
	mode, allow := egress.AllowList, []string{}
	for i, word := range strings.FieldsFunc(s.o.Config.Egress, func(r rune) bool { return r == ',' || r == ' ' }) {
		m, err := egress.ParseMode(word)
		switch {
		case err != nil:
			allow = append(allow, word)
		case i > 0:
			return nil, errs.New(errs.Invalid, "setting egress: %q comes first or not at all", word).
				WithHint("Write --egress anything,localhost:5432, or a list alone, or closed.")
		default:
			mode = m
		}
	}
	if mode == egress.Closed && len(allow) > 0 {
		return nil, errs.New(errs.Invalid, "setting egress: closed, but %s is named", allow[0]).WithHint("Leave closed out: a list alone allows what it names.")
	}
	p, err := egress.NewPolicy(mode, allow)
	if err != nil {
		return nil, errs.New(errs.Invalid, "setting egress: %w", err)
	}
	return egress.New(egress.Options{Policy: func(string) egress.Policy { return p }, Setting: "--egress", Log: s.o.Log}), nil
}
