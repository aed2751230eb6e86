// Package reach connects to servers whose names come from unauthenticated clients,
// to fetch the proof that a client controls a name. Every address is checked at the
// moment of connecting, also after a redirect: one that is not public is refused
// unless it is configured. So DNS cannot direct a connection into the internal
// network.
package reach

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern"
)

// Config says what may be connected to. The zero value allows the public Internet.
type Config struct {
	Private  []netip.Prefix // networks that are allowed although they are not public
	Resolver string         // host:port of the DNS server; "" is the host's own
	HTTPPort int            // port of plain HTTP; 0 is 80
	TLSPort  int            // port of TLS; 0 is 443
	Timeout  time.Duration  // for one request; 0 is 10 s
}

// Validate reports what is wrong with the Config.
func (c Config) Validate() error {
	if c.Resolver != "" {
		if _, _, err := net.SplitHostPort(c.Resolver); err != nil {
			return postern.Errorf(postern.Invalid, "resolver %q is not host:port", c.Resolver)
		}
	}
	for _, port := range []int{c.HTTPPort, c.TLSPort} {
		if port < 0 || port > 65535 {
			return postern.Errorf(postern.Invalid, "%d is no port", port)
		}
	}
	if c.Timeout < 0 {
		return postern.Errorf(postern.Invalid, "a timeout is not negative")
	}
	return nil
}

const maxRedirects = 5

// Prober sends requests to the servers of names. It is safe for concurrent use and
// has no state.
type Prober struct{ cfg Config }

// New returns a Prober.
func New(c Config) (*Prober, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.HTTPPort == 0 {
		c.HTTPPort = 80
	}
	if c.TLSPort == 0 {
		c.TLSPort = 443
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	return &Prober{c}, nil
}

// special lists what netip's own predicates leave out of "not public": IANA's
// special-purpose registries.
var special = prefixes(
	"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "240.0.0.0/4", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23",
	"2001:db8::/32",
	"2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
)

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// Public reports whether an address is reachable from the public Internet.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() ||
		a.Zone() != "" {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (p *Prober) allowed(a netip.Addr) bool {
	return Public(a) || slices.ContainsFunc(p.cfg.Private, func(n netip.Prefix) bool { return n.Contains(a.Unmap()) })
}

// ErrPrivate is the error for a name whose address is neither public nor allowed.
var ErrPrivate = errors.New("its address is private, and proofs are not looked for there")

// Dial connects to an address that is allowed. The address that is checked is the
// one that is connected to, whatever DNS answers a moment later.
func (p *Prober) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:  p.cfg.Timeout,
		Resolver: p.Resolver(),
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || !p.allowed(ap.Addr()) {
				return ErrPrivate
			}
			return nil
		},
	}
	return d.DialContext(ctx, network, address)
}

// Resolver returns the resolver that is asked.
func (p *Prober) Resolver() *net.Resolver {
	if p.cfg.Resolver == "" {
		return &net.Resolver{PreferGo: true}
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: p.cfg.Timeout}).DialContext(ctx, network, p.cfg.Resolver)
	}}
}

// Server returns the DNS server that is asked, as host:port, or "" for the
// host's own.
func (p *Prober) Server() string { return p.cfg.Resolver }

// File returns what a name's web server has at a path, of at most max bytes,
// following a few redirects to the usual ports. The errors are written for the
// client; they do not reveal anything about an address that is not allowed.
func (p *Prober) File(ctx context.Context, host, path string, max int64) ([]byte, error) {
	return p.file(ctx, host, path, max, p.checkRedirect)
}

// OwnFile is File, but follows redirects to the name itself only, as from HTTP
// to HTTPS.
func (p *Prober) OwnFile(ctx context.Context, host, path string, max int64) ([]byte, error) {
	return p.file(ctx, host, path, max, func(req *http.Request, via []*http.Request) error {
		if !strings.EqualFold(strings.TrimSuffix(req.URL.Hostname(), "."), host) {
			return redirectError("it redirects to another name")
		}
		return p.checkRedirect(req, via)
	})
}

func (p *Prober) file(ctx context.Context, host, path string, max int64,
	follow func(*http.Request, []*http.Request) error,
) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	transport := &http.Transport{
		DialContext:            p.Dial,
		DisableKeepAlives:      true,
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, // control of the name is what is being proved
		MaxResponseHeaderBytes: 16 << 10,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+hostPort(host, p.cfg.HTTPPort, 80)+path, nil)
	if err != nil {
		return nil, errors.New("the name cannot be part of a URL")
	}
	req.Header.Set("User-Agent", "postern")
	resp, err := (&http.Client{Transport: transport, CheckRedirect: follow}).Do(req)
	if err != nil {
		return nil, reason(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %d instead of 200", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, max+1))
	switch {
	case err != nil:
		return nil, errors.New("the answer broke off")
	case int64(len(body)) > max:
		return nil, fmt.Errorf("the answer is longer than %d bytes", max)
	}
	return body, nil
}

func hostPort(host string, port, standard int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == standard {
		return host
	}
	return host + ":" + strconv.Itoa(port)
}

// redirectError says why a redirect was not followed.
type redirectError string

func (e redirectError) Error() string { return string(e) }

// checkRedirect follows a few redirects to the usual ports only. Where they
// lead is checked again when connecting.
func (p *Prober) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return redirectError("too many redirects")
	}
	usual := map[string]int{"http": p.cfg.HTTPPort, "https": p.cfg.TLSPort}[req.URL.Scheme]
	if usual == 0 {
		return redirectError("it redirects to another protocol")
	}
	if port := req.URL.Port(); port != "" && port != strconv.Itoa(usual) {
		return redirectError("it redirects to another port")
	}
	if req.URL.User != nil {
		return redirectError("it redirects to an address with a password")
	}
	return nil
}

func reason(err error) error {
	var dns *net.DNSError
	var u *url.Error
	var redirect redirectError
	switch {
	case errors.Is(err, ErrPrivate):
		return ErrPrivate
	case errors.As(err, &redirect):
		return redirect
	case errors.As(err, &dns):
		return errors.New("its address was not found in DNS")
	case errors.As(err, &u) && u.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return errors.New("it did not answer in time")
	}
	return errors.New("it could not be reached")
}

// TXT returns the TXT records of a name. That there are none is an error in
// words.
func (p *Prober) TXT(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	records, err := p.Resolver().LookupTXT(ctx, strings.TrimSuffix(name, ".")+".")
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			return nil, errors.New("there is no such TXT record yet; new ones can take a while to show")
		}
		return nil, errors.New("DNS did not answer")
	}
	return records, nil
}

// ALPN makes a TLS handshake with a name's server, with one application
// protocol offered, and returns the certificate (DER) that it showed and the
// protocol that it chose. The certificate is not verified: what it says is for
// the caller to judge.
func (p *Prober) ALPN(ctx context.Context, host, serverName, protocol string) (leaf []byte, chosen string, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	raw, err := p.Dial(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(p.cfg.TLSPort)))
	if err != nil {
		return nil, "", reason(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{
		ServerName: serverName, NextProtos: []string{protocol},
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, "", errors.New("the TLS handshake failed")
	}
	state := conn.ConnectionState()
	return state.PeerCertificates[0].Raw, state.NegotiatedProtocol, nil
}
