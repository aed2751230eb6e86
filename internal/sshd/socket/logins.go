package socket

import (
	"slices"
	"sync"

	"github.com/postern-project/postern"
)

// maxLogins bounds how many logins are remembered. Of one that was forgotten, the
// session is joined by its processes alone.
const maxLogins = 4096

// logins remembers which login a process's code was accepted for, so that the session
// that follows is bound to the server's check. The zero value is empty.
type logins struct {
	mu    sync.Mutex
	known map[string]postern.Link // by the ID of the link to the process
}

// linkOf returns the first link of a kind.
func linkOf(links []postern.Link, kind string) (postern.Link, bool) {
	i := slices.IndexFunc(links, func(l postern.Link) bool { return l.Kind == kind })
	if i < 0 {
		return postern.Link{}, false
	}
	return links[i], true
}

// accepted remembers the login of a process, as the links of its event name them.
func (s *logins) accepted(links []postern.Link) {
	process, ok := linkOf(links, postern.LinkProcess)
	login, found := linkOf(links, postern.LinkLogin)
	if !ok || !found {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxLogins {
		s.known = map[string]postern.Link{}
	}
	s.known[process.ID] = login
}

// of adds the login of their process to a session's links.
func (s *logins) of(links []postern.Link) []postern.Link {
	process, ok := linkOf(links, postern.LinkProcess)
	if !ok {
		return links
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if login, ok := s.known[process.ID]; ok {
		links = append(links, login)
	}
	return links
}

// closed forgets the login of a session that has closed.
func (s *logins) closed(links []postern.Link) {
	if process, ok := linkOf(links, postern.LinkProcess); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.known, process.ID)
	}
}
