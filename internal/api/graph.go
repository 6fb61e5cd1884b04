package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// GraphInfo tells who publishes what to whom.
type GraphInfo struct {
	Nodes []GraphNode `json:"nodes"` // by ID
	Edges []GraphEdge `json:"edges"` // by From, To, Kind and Label
}

// GraphNode is a function, an event bus, a queue, a schedule, or the world outside.
type GraphNode struct {
	ID    string `json:"id"`   // kind and name: "function:shop-dev-bill"
	Kind  string `json:"kind"` // "function", "bus", "queue", "schedule", "outside"
	Name  string `json:"name"`
	App   string `json:"app,omitempty"`
	Stage string `json:"stage,omitempty"`
}

// GraphEdge is a way on which events, messages or calls go.
type GraphEdge struct {
	From     string    `json:"from"` // ID of a node
	To       string    `json:"to"`
	Kind     string    `json:"kind"` // "rule", "mapping", "schedule", "onSuccess", "onFailure", "deadLetters", "subscription", "publishes", "delivers", "sends", "invokes"
	Label    string    `json:"label,omitempty"`
	Declared bool      `json:"declared"`
	N        int       `json:"n,omitempty"` // how many went there, as long as the event log is kept
	Last     time.Time `json:"last,omitzero"`

	Uncounted bool `json:"uncounted,omitempty"` // nobody counts what goes there: N says nothing
}

func (s *Server) graph(w http.ResponseWriter, r *http.Request) error {
	app, p := r.URL.Query().Get("app"), caller(r)
	if p.App != "" {
		if app == "" {
			app = p.App
		}
		if err := p.Reaches(app); err != nil {
			return err
		}
	}
	g, err := s.backend.Graph(r.Context(), app)
	if err != nil {
		return err
	}
	if p.App != "" {
		g = g.without(func(n GraphNode) bool { return n.App != "" && n.App != p.App })
	}
	writeJSON(w, 200, g)
	return nil
}

// without leaves out nodes, and the edges at them.
func (g *GraphInfo) without(gone func(GraphNode) bool) *GraphInfo {
	left := map[string]bool{}
	for _, n := range g.Nodes {
		if gone(n) {
			left[n.ID] = true
		}
	}
	return &GraphInfo{
		Nodes: slices.DeleteFunc(slices.Clone(g.Nodes), gone),
		Edges: slices.DeleteFunc(slices.Clone(g.Edges), func(e GraphEdge) bool { return left[e.From] || left[e.To] }),
	}
}

// Graph tells who publishes what to whom; with an app only what touches it.
func (c *Client) Graph(ctx context.Context, app string) (*GraphInfo, error) {
	path := "/v1/graph"
	if app != "" {
		path += "?app=" + url.QueryEscape(app)
	}
	var out GraphInfo
	return &out, c.call(ctx, "GET", path, nil, &out)
}
