package api

// RouteRow is a route as tests see it.
type RouteRow struct {
	Pattern   string
	Operation string
	Decided   bool // how a key of one App is held to it
}

// RouteRows lists every route that wants a caller.
func RouteRows() (list []RouteRow) {
	for _, r := range (&Server{}).routes() {
		list = append(list, RouteRow{r.pattern, string(r.operation), r.scope != undecided})
	}
	return list
}

// Changes says how changes are named in the audit log, by route.
func Changes() map[string]string { return changes }
