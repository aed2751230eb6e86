package front

import (
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/postern-project/postern/gate"
)

// guardedSites are the guards of each server that is being served.
type guardedSites struct {
	changes atomic.Int64 // how often a guard came or went

	mu sync.RWMutex
	of map[*caddyhttp.Server][]*Guard
}

var guarded = guardedSites{of: make(map[*caddyhttp.Server][]*Guard)}

func (s *guardedSites) add(srv *caddyhttp.Server, g *Guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[srv] = append(s.of[srv], g)
	s.changes.Add(1)
}

func (s *guardedSites) remove(srv *caddyhttp.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.of, srv)
	s.changes.Add(1)
}

// cover returns a guard of the request's server that covers its path, or may cover it.
func (s *guardedSites) cover(r *http.Request, readings *gate.Readings) *Guard {
	srv, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, g := range s.of[srv] {
		if !g.serves(r.Host) {
			continue
		}
		if !gate.ReadPath(r.URL, readings) {
			return g
		}
		for i := range g.guards {
			if g.guards[i].Paths.Cover(readings) {
				return g
			}
		}
	}
	return nil
}

// covering returns the guards of a site, on any server, that cover a path, and
// false for a path that is ambiguous.
func (s *guardedSites) covering(host string, path reaches) (list []*siteGuard, ok bool) {
	var readings gate.Readings
	if !gate.ReadPath(&url.URL{Path: path.path, RawPath: path.rawPath}, &readings) {
		return nil, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, guards := range s.of {
		for _, g := range guards {
			for i := range g.guards {
				if g.serves(host) && g.guards[i].Paths.Cover(&readings) {
					list = append(list, &g.guards[i])
				}
			}
		}
	}
	return list, true
}
