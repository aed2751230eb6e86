package front

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"hash"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(Unreadable{}) }

// How clients are remembered whose certificates crypto/tls cannot read.
const (
	unreadableFor = 5 * time.Minute
	maxUnreadable = 4096
	perMinute     = 10 // lines of the log, over all addresses
)

// Unreadable matches handshakes of clients that showed a certificate which crypto/tls
// cannot read, as one on a brainpool curve. Such a handshake fails, for public pages too,
// and cannot be saved. So its policy asks for no certificate: the client's next attempt
// succeeds, and the client is one without a certificate.
type Unreadable struct {
	live *live
	log  *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Unreadable) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID: "tls.handshake_match.postern_unreadable", New: func() caddy.Module { return new(Unreadable) },
	}
}

// Provision finds what is remembered.
func (u *Unreadable) Provision(ctx caddy.Context) error {
	u.live, u.log = current(), ctx.Logger()
	return nil
}

// Match reports whether the client is to be asked for no certificate. If it is asked, how
// its handshake ends is examined.
func (u Unreadable) Match(hello *tls.ClientHelloInfo) bool {
	c, ok := hello.Context().Value(connKey{}).(*conn)
	if !ok {
		return false
	}
	if key, ok := u.live.unreadable.has(hello, time.Now()); ok {
		c.unreadable = &key
		return true
	}
	if handshake, ok := c.net.(*tls.Conn); ok && !c.examined {
		c.examined = true
		context.AfterFunc(hello.Context(), func() { u.examine(handshake, hello) })
	}
	return false
}

// examine remembers the client of a handshake that failed for its certificate.
func (u Unreadable) examine(ended *tls.Conn, hello *tls.ClientHelloInfo) {
	err := ended.Handshake() // it has ended: this is its result
	if err == nil || !isUnreadable(err) || !u.live.unreadable.add(hello, time.Now()) {
		return
	}
	u.log.Warn("the certificate of a client cannot be read, so the client is asked for none for "+
		unreadableFor.String()+": it sees public pages",
		zap.Stringer("address", addressOfHello(hello)), zap.String("server_name", hello.ServerName), zap.Error(err))
}

// isUnreadable reports whether a handshake failed because of the certificates that the
// client showed: crypto/tls could not parse one, or could not use the key of the first. The
// package has no types for these errors; see processCertsFromClient in its
// handshake_server.go, and the checks of CertificateVerify.
func isUnreadable(err error) bool {
	text := err.Error()
	return slices.ContainsFunc([]string{
		"tls: failed to parse client certificate",
		"tls: client sent certificate",
		"tls: client certificate",
		"tls: invalid signature by the client certificate",
	}, func(start string) bool { return strings.HasPrefix(text, start) })
}

// unreadableClients are those whose certificates could not be read lately.
type unreadableClients struct {
	mu     sync.Mutex
	until  map[clientKey]time.Time
	logged map[netip.Addr]time.Time // until when an address is not logged again
	minute time.Time                // when the first of lines was logged
	lines  int                      // logged within a minute
}

// clientKey tells a client's attempts from those of others: its address, and a hash of the
// site's name and of what does not change between its handshakes.
type clientKey struct {
	address netip.Addr
	hello   [sha256.Size]byte
}

// has returns the key of the client of a handshake, and whether the client is remembered.
func (u *unreadableClients) has(hello *tls.ClientHelloInfo, now time.Time) (key clientKey, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.until) == 0 {
		return key, false
	}
	key = keyOf(hello)
	return key, now.Before(u.until[key])
}

// forget has a client asked for a certificate again: it may be another one, with a certificate
// that can be read, behind the same address.
func (u *unreadableClients) forget(key clientKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.until, key)
}

// add remembers the client of a handshake, and reports whether that is to be logged: once for
// an address, however its handshakes differ, and a few times a minute.
func (u *unreadableClients) add(hello *tls.ClientHelloInfo, now time.Time) (log bool) {
	key := keyOf(hello)
	u.mu.Lock()
	defer u.mu.Unlock()
	remember(&u.until, key, now)
	if now.Sub(u.minute) >= time.Minute {
		u.minute, u.lines = now, 0
	}
	if now.Before(u.logged[key.address]) || u.lines >= perMinute {
		return false
	}
	u.lines++
	remember(&u.logged, key.address, now)
	return true
}

// remember puts a key into a map of bounded size.
func remember[K comparable](m *map[K]time.Time, key K, now time.Time) {
	if *m == nil || len(*m) >= maxUnreadable {
		*m = make(map[K]time.Time)
	}
	(*m)[key] = now.Add(unreadableFor)
}

func keyOf(hello *tls.ClientHelloInfo) clientKey {
	h := sha256.New()
	h.Write([]byte(strings.ToLower(hello.ServerName) + "\x00" + strings.Join(hello.SupportedProtos, "\x00")))
	addSet(h, hello.CipherSuites)
	addSet(h, hello.SupportedVersions)
	addSet(h, hello.SupportedCurves)
	addSet(h, hello.SignatureSchemes)
	key := clientKey{address: addressOfHello(hello)}
	h.Sum(key.hello[:0])
	return key
}

// addSet adds values to a hash in ascending order, without those that browsers choose at
// random (RFC 8701).
func addSet[T ~uint16](h hash.Hash, values []T) {
	values = slices.DeleteFunc(slices.Clone(values), func(v T) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff })
	slices.Sort(values)
	out := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		out = binary.BigEndian.AppendUint16(out, uint16(v))
	}
	h.Write(out)
}

// addressOfHello returns the address of a handshake's client; of an IPv6 address the
// network of 64 bits, in which a client changes addresses as it likes.
func addressOfHello(hello *tls.ClientHelloInfo) netip.Addr {
	tcp, ok := hello.Conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // the length fits
		return p.Addr()
	}
	return a
}

// withUnreadable puts a policy that asks for no certificate before each that does, for
// clients whose certificates cannot be read.
func withUnreadable(policies caddytls.ConnectionPolicies) (all caddytls.ConnectionPolicies) {
	for _, p := range policies {
		if asksForCertificates(p) {
			quiet := withMatcher(p, "postern_unreadable", Unreadable{})
			quiet.ClientAuthentication = nil
			all = append(all, quiet)
		}
		all = append(all, p)
	}
	return all
}

// asksForCertificates reports whether Prepare made a policy ask for certificates.
func asksForCertificates(p *caddytls.ConnectionPolicy) bool {
	return p.ClientAuthentication != nil && slices.ContainsFunc(p.ClientAuthentication.VerifiersRaw,
		func(raw json.RawMessage) bool {
			var v struct {
				Verifier string `json:"verifier"`
			}
			return json.Unmarshal(raw, &v) == nil && v.Verifier == "postern"
		})
}
