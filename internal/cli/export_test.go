package cli

import (
	"io"

	"github.com/ebb-run/ebb/internal/api"
)

// WriteGraph writes a graph in a format.
func WriteGraph(w io.Writer, format string, g *api.GraphInfo) {
	switch format {
	case "text":
		(&command{}).graphText(w, g)
	case "dot":
		graphDot(w, g)
	case "mermaid":
		graphMermaid(w, g)
	}
}

// WriteTrace writes a trace as for a terminal, or for a file.
func WriteTrace(w io.Writer, terminal bool, t *api.TraceInfo) {
	(&command{System: System{Stdout: w, Color: terminal}}).printTrace(t)
}
