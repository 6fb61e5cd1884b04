package cloudformation

import "github.com/ebb-run/ebb/internal/app"

// isolation reads a function's from the template's Metadata.ebb.isolation: a word for all functions, or one for each logical ID.
func (l *loader) isolation(id string) string {
	n := l.root.At("Metadata", "ebb", "isolation")
	if n.IsNull() {
		return ""
	}
	if n.Kind == Map {
		if n = n.Get(id); n.IsNull() {
			return ""
		}
	}
	if text, ok := n.Text(); ok && (text == app.Strong || text == "auto") {
		if text == app.Strong {
			return text
		}
		return ""
	}
	l.diags.Errorf(n.Pos, "wrong-type", "Write strong or auto, or a map of these by logical ID.", "Metadata.ebb.isolation is neither strong nor auto")
	return ""
}
