package front

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// How long a start and a stop wait.
const (
	drainTime       = 10 * time.Second      // at most, for requests under way
	certificateTime = 3 * time.Second       // at most, for certificates to be read: a new name has none yet
	newTime         = 5 * time.Second       // for the first request of a connection, as http.Server.Shutdown does
	drainPoll       = 20 * time.Millisecond // between looking
)

// drained is what a stop waits for, with all servers that listen on sockets of systemd's.
var drained = drain{listeners: make(map[*pausable]bool), busy: make(map[net.Conn]busyConn)}

// drain knows the listeners, and the connections that a request is expected on or under way.
type drain struct {
	mu        sync.Mutex
	listeners map[*pausable]bool // those that are open, and whether they wait for admit
	busy      map[net.Conn]busyConn
}

// busyConn is a connection that is not idle.
type busyConn struct {
	since time.Time
	new   bool // no request has come yet
}

// listen returns a listener that accepts nothing before admit, and after drain.
func (d *drain) listen(l *net.TCPListener) net.Listener {
	p := &pausable{TCPListener: l, from: d, admits: make(chan struct{}), closed: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listeners[p] = true
	return p
}

// note is a http.Server.ConnState.
func (d *drain) note(c net.Conn, s http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s != http.StateNew && s != http.StateActive {
		delete(d.busy, c)
		return
	}
	d.busy[c] = busyConn{time.Now(), s == http.StateNew}
}

// admit has the listeners accept connections: a configuration has been loaded. Caddy reads
// the sites' certificates meanwhile, and would end each handshake until then. Postern's own
// CA issues at once those that are missing, so they are waited for in any case.
func (d *drain) admit(config []byte) {
	names := certificateNames(config)
	if !d.listening() {
		names = issuedHere(config, names)
	}
	missing := func(name string) bool { return len(caddytls.AllMatchingCertificates(name)) == 0 }
	for end := time.Now().Add(certificateTime); slices.ContainsFunc(names, missing) && time.Now().Before(end); {
		time.Sleep(drainPoll)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for l, waiting := range d.listeners {
		if waiting {
			close(l.admits)
			d.listeners[l] = false
		}
	}
}

// drain accepts no connection any more, and waits until the accepted ones are idle. Those
// that are not accepted wait in the sockets.
func (d *drain) drain() {
	if !d.pause() {
		return
	}
	for end := time.Now().Add(drainTime); ; {
		time.Sleep(drainPoll) // also for one that was accepted as the pause began
		if now := time.Now(); d.idle(now) || now.After(end) {
			return
		}
	}
}

// certificateNames returns the names of the sites that a configuration serves over TLS.
func certificateNames(config []byte) (names []string) {
	web := webOf(config)
	for _, s := range web.Servers {
		if !servesTLS(s, &web) {
			continue
		}
		for _, r := range s.Routes {
			hosts, _ := hostsOf(r) // Prepare has read them
			names = append(names, hosts...)
		}
	}
	return names
}

// issuedHere returns those of the names for which Postern's CA issues certificates before
// they are asked for.
func issuedHere(config []byte, names []string) []string {
	var c struct {
		Apps struct {
			TLS struct {
				Automation struct {
					Policies []struct {
						Subjects []string
						Issuers  []struct{ Module string }
						OnDemand bool `json:"on_demand"`
					}
				}
			}
		}
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil // Caddy has loaded it
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		for _, p := range c.Apps.TLS.Automation.Policies {
			if len(p.Subjects) == 0 || slices.Contains(p.Subjects, name) { // Caddy takes the first that fits
				return p.OnDemand || len(p.Issuers) == 0 || p.Issuers[0].Module != "postern"
			}
		}
		return true
	})
}

func (d *drain) listening() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.listeners) > 0
}

// pause has the listeners accept nothing any more. It reports whether there are any.
func (d *drain) pause() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.listeners {
		_ = l.SetDeadline(time.Unix(1, 0)) // of a closed one: it accepts nothing
	}
	return len(d.listeners) > 0
}

func (d *drain) idle(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.busy {
		if !c.new || now.Sub(c.since) < newTime {
			return false
		}
	}
	return true
}

// pausable is a listener that accepts only while its server is up.
type pausable struct {
	*net.TCPListener
	from           *drain
	admits, closed chan struct{}
	once           sync.Once
}

// Accept waits for a connection, or, paused, until the listener is closed.
func (p *pausable) Accept() (net.Conn, error) {
	select {
	case <-p.admits:
	case <-p.closed:
		return nil, net.ErrClosed
	}
	c, err := p.TCPListener.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		<-p.closed
		return nil, net.ErrClosed
	}
	return c, err
}

// Close ends listening here. The socket stays open.
func (p *pausable) Close() error {
	p.once.Do(func() {
		p.from.mu.Lock()
		defer p.from.mu.Unlock()
		delete(p.from.listeners, p)
		close(p.closed)
	})
	return p.TCPListener.Close()
}
