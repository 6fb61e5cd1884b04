package gateway

import (
	"net"
	"slices"
	"strings"
)

// hosts says which site serves which Host. It does not change.
type hosts struct {
	sites []*site           // in the order of tenant, app, stage
	names map[string]*site  // nil where two sites claim it
	urls  map[string]*front // by host of a function URL; nil where two Apps claim it
}

func newHosts(sites []*site) *hosts {
	slices.SortFunc(sites, func(a, b *site) int {
		return strings.Compare(a.tenant+"\x00"+a.app+"\x00"+a.stage, b.tenant+"\x00"+b.app+"\x00"+b.stage)
	})
	h := &hosts{sites: sites, names: map[string]*site{}, urls: map[string]*front{}}
	for _, s := range sites {
		claim(h.names, s.host(), s)
	}
	short := map[string]*site{}
	for _, s := range sites {
		claim(short, s.short(), s)
	}
	for name, s := range short {
		if _, taken := h.names[name]; !taken {
			h.names[name] = s
		}
	}
	for name, s := range h.names {
		if s == nil {
			continue
		}
		for key, f := range s.urls {
			h.urls[strings.ToLower(key)+".url."+name] = f
		}
	}
	for _, s := range sites {
		for key, f := range s.urls {
			name := strings.ToLower(key) + ".url.localhost"
			if _, claimed := h.urls[name]; claimed {
				f = nil
			}
			h.urls[name] = f
		}
	}
	return h
}

// claim gives name to s, or to nobody where another site has claimed it: a request must not end at a stranger's.
func claim(names map[string]*site, name string, s *site) {
	if _, claimed := names[name]; claimed {
		s = nil
	}
	names[name] = s
}

// host is the name of a site that people are shown.
func (s *site) host() string { return strings.ToLower(s.app + "." + s.stage + ".localhost") }

// short is the name in one label, for resolvers and certificates that take no more. Two sites can have the same:
// shop/eu-prod and shop-eu/prod.
func (s *site) short() string { return strings.ToLower(s.app + "-" + s.stage + ".localhost") }

// printed lists the hosts that lead somewhere, without the short ones.
func (h *hosts) printed() []string {
	names := []string{}
	for _, s := range h.sites {
		if name := s.host(); h.names[name] == s {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (h *hosts) with(s *site) *hosts {
	return newHosts(append(h.without(s.tenant, s.app, s.stage).sites, s))
}

func (h *hosts) without(tenant, app, stage string) *hosts {
	kept := make([]*site, 0, len(h.sites)+1)
	for _, s := range h.sites {
		if s.tenant != tenant || s.app != app || s.stage != stage {
			kept = append(kept, s)
		}
	}
	return newHosts(kept)
}

// find returns the site of a Host, and its function URL where the Host names one. With one site every Host is its own.
func (h *hosts) find(host string) (*site, *front) {
	if len(h.sites) == 1 && len(h.sites[0].urls) == 0 {
		return h.sites[0], nil
	}
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if f := h.urls[name]; f != nil {
		return f.site, f
	}
	if s := h.names[name]; s != nil {
		return s, nil
	}
	if len(h.sites) == 1 {
		return h.sites[0], nil
	}
	return nil, nil
}
