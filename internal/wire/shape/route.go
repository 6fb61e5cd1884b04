package shape

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// route is how an operation of a rest protocol is addressed.
type route struct {
	op      *Operation
	parts   []part
	query   map[string]string // parameters of the pattern; "" means any value
	params  []string          // required members among the parameters
	headers []string          // required members among the headers
}

type part struct {
	text   string
	label  bool
	greedy bool // it takes the rest of the path
}

func routesOf(t *Table) (all []route) {
	if t.Metadata.Protocol != RESTJSON && t.Metadata.Protocol != RESTXML {
		return nil
	}
	for _, o := range t.Operations {
		if o.HTTP.Method == "" || o.Name == "ListDirectoryBuckets" { // another host's, at the address of ListBuckets
			continue
		}
		path, query, _ := strings.Cut(o.HTTP.URI, "?")
		r := route{op: o, query: map[string]string{}}
		for text := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			p := part{text: text}
			if name, ok := strings.CutPrefix(text, "{"); ok {
				p.text, p.label = strings.TrimSuffix(name, "}"), true
				p.text, p.greedy = strings.CutSuffix(p.text, "+")
			}
			if text != "" {
				r.parts = append(r.parts, p)
			}
		}
		for one := range strings.SplitSeq(query, "&") {
			if k, v, _ := strings.Cut(one, "="); k != "" {
				r.query[k] = v
			}
		}
		if o.Input != nil {
			for name, ref := range o.Input.Shape.Members {
				switch {
				case !o.Input.Shape.required(name):
				case ref.Location == "querystring":
					r.params = append(r.params, ref.name(name))
				case ref.Location == "header":
					r.headers = append(r.headers, ref.name(name))
				}
			}
		}
		all = append(all, r)
	}
	// Of what fits as well the longer name is the newer one: GetBucketLifecycleConfiguration, GetBucketLifecycle.
	slices.SortFunc(all, func(a, b route) int {
		if n := len(b.op.Name) - len(a.op.Name); n != 0 {
			return n
		}
		return strings.Compare(a.op.Name, b.op.Name)
	})
	return all
}

// Route finds the operation of a rest protocol that a request is for, and the values of the labels in its path. path is escaped, as it
// came. There may be several for one path; the one that says most of the request is meant.
func (t *Table) Route(method, path string, query url.Values, header http.Header) (op *Operation, labels map[string]string) {
	best := -1
	for i := range t.routes {
		r := &t.routes[i]
		if r.op.HTTP.Method != method {
			continue
		}
		score, ok := r.score(query, header)
		if !ok || score <= best {
			continue
		}
		if l, ok := r.match(path); ok {
			best, op, labels = score, r.op, l
		}
	}
	return op, labels
}

func (r *route) score(query url.Values, header http.Header) (n int, ok bool) {
	for k, v := range r.query {
		if !query.Has(k) || v != "" && query.Get(k) != v {
			return 0, false
		}
		n += 4
	}
	for _, k := range r.params {
		if !query.Has(k) {
			return 0, false
		}
		n += 4
	}
	for _, k := range r.headers {
		if len(header.Values(k)) == 0 {
			return 0, false
		}
		n++
	}
	for _, p := range r.parts {
		if !p.label {
			n++ // a literal says more than a label
		}
	}
	return n, true
}

func (r *route) match(path string) (map[string]string, bool) {
	rest := strings.TrimPrefix(path, "/")
	labels := map[string]string{}
	for i, p := range r.parts {
		text := rest
		if !p.greedy {
			text, rest, _ = strings.Cut(rest, "/")
		}
		plain, err := url.PathUnescape(text)
		if err != nil || text == "" || !p.label && plain != p.text {
			return nil, false
		}
		if p.label {
			labels[p.text] = plain
		}
		if p.greedy {
			return labels, i == len(r.parts)-1
		}
	}
	return labels, rest == ""
}
