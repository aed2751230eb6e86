package correlate

import (
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// takeIdentity takes the real client of a proxy's connection from an answered
// connect_set_identity. It trusts only a local process that runs as the daemon's own
// user, as virtproxyd does, and only what the daemon has accepted: another client
// could forge it. A daemon passes on what a client of its own has called itself, and is
// not trusted from then on.
func (j *joiner) takeIdentity(l *side, c *call, e *event.Event) {
	proxy := c.Peer
	if libvirt.Status(e.Status) != libvirt.OK {
		return
	}
	if proxy == nil || proxy.PID == 0 || proxy.UID < 0 || proxy.UID != e.UID || j.forging[proxy.PID] {
		j.forging[e.PID] = true
		return
	}
	id, ok := j.decoder.Arguments(&c.Call).Identity()
	if !ok {
		return
	}
	p := &event.Peer{
		PID: id.PID, Start: id.Start, UID: id.UID, User: id.User, SASLName: id.SASLName, TLSName: id.TLSName,
		SELinux: id.SELinux, Via: proxy.PID,
	}
	if p.PID != 0 {
		p.Local, p.Remote = proxy.Local, proxy.Remote
	}
	if known := j.clients[id.PID]; known != nil && known.Start == id.Start {
		p.Session, p.Command = known.Session, known.Command
	}
	l.client, c.named, c.Named = p, l, true
}

// locate sets where the client that a proxy has named on this connection is connected to
// the proxy from, which the proxy itself does not say of clients of other hosts.
func (l *side) locate(at *event.Peer) {
	if l == nil || l.client == nil || l.client.PID != 0 || at == nil {
		return
	}
	p := *l.client // events have the other
	p.Local, p.Remote = at.Local, at.Remote
	l.client = &p
}

// Identify puts the client that a proxy has named in the place of the proxy, for who
// keeps events that are not joined.
func (p *Pipeline) Identify(e *event.Event) {
	if l := p.join.links[e.Connection()]; l != nil && l.server && l.client != nil && e.Kind.RPC() {
		e.Peer = l.client
	}
}

// connected returns the process that has the other end of a daemon's connection: the
// client's, or the proxy's that calls for it. 0 when unknown.
func connected(p *event.Peer) int {
	switch {
	case p == nil:
		return 0
	case p.Via != 0:
		return p.Via
	}
	return p.PID
}

// remember remembers a local client, which a proxy may name later.
func (j *joiner) remember(p *event.Peer) {
	if p == nil || p.PID == 0 || p.Via != 0 || j.clients[p.PID] == p {
		return
	}
	if len(j.clients) >= maxClients {
		clear(j.clients)
	}
	j.clients[p.PID] = p
}

// maxClients bounds how many local clients are remembered.
const maxClients = 1 << 13

// forwards notes what a thread calls while it serves a call.
func (j *joiner) forwards(tid int, c *call) {
	t := j.thread(tid)
	if len(t.made) >= maxMade {
		t.made = t.made[1:]
	}
	t.made = append(t.made, c)
}

// maxMade bounds how many calls of a thread are remembered.
const maxMade = 16

// forwarded reports whether the thread that answers a call has made the same one at
// another daemon, which knows the real client, and forgets what it made.
func (j *joiner) forwarded(tid int, c *call) bool {
	t := j.threads[tid]
	if t == nil {
		return false
	}
	made, found := t.made, false
	t.made = nil
	for _, m := range made {
		if m.Begin < c.serverRx {
			continue
		}
		m.named.locate(c.Peer)
		found = found || m.Prog == c.Prog && m.Proc == c.Proc && m.Served && m.Peer != nil && m.Peer.Via == c.first.PID
	}
	return found
}
