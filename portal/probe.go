package portal

import (
	"context"
	"crypto/subtle"
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

	"github.com/miekg/dns"
	"github.com/postern-project/postern"
	"golang.org/x/net/publicsuffix"
)

// Where a proof is looked for.
const (
	httpProofPath = "/.well-known/postern/"
	dnsProofLabel = "_postern-challenge."
)

const (
	probeTimeout   = 10 * time.Second
	maxProbeBody   = 1 << 10
	maxRedirects   = 5
	maxMailTargets = 20
)

// prober fetches what proves a name. It goes where strangers' DNS points, so
// every connection, after every redirect, is checked at the moment of
// connecting: an address that is not public is refused unless configured.
type prober struct {
	private  []netip.Prefix
	port     int
	resolver string
}

func newProber(c Config) *prober {
	return &prober{private: c.PrivateProofs, port: c.HTTPPort, resolver: c.Resolver}
}

// special lists what netip's own predicates leave out of "not public": IANA's
// special-purpose registries.
var special = func() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "240.0.0.0/4", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
		"2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}()

// isPublic reports whether an address is one that anybody could reach.
func isPublic(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Zone() != "" {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (p *prober) allowed(a netip.Addr) bool {
	a = a.Unmap()
	return isPublic(a) || slices.ContainsFunc(p.private, func(n netip.Prefix) bool { return n.Contains(a) })
}

var errPrivate = errors.New("its address is private, and proofs do not go there")

// dial connects to an address that its Control has let pass: the check holds
// for the very address that is connected to, whatever DNS says a moment later.
func (p *prober) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:  probeTimeout,
		Resolver: p.netResolver(),
		Control: func(network, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || !p.allowed(ap.Addr()) {
				return errPrivate
			}
			return nil
		},
	}
	return d.DialContext(ctx, network, address)
}

func (p *prober) netResolver() *net.Resolver {
	if p.resolver == "" {
		return &net.Resolver{PreferGo: true}
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, network, p.resolver)
	}}
}

// http looks for the proof's value in a file on the name's web server.
func (p *prober) http(ctx context.Context, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	transport := &http.Transport{
		DialContext:            p.dial,
		DisableKeepAlives:      true,
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, // the name is what is being proved
		MaxResponseHeaderBytes: 16 << 10,
		TLSHandshakeTimeout:    probeTimeout,
		ResponseHeaderTimeout:  probeTimeout,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: p.checkRedirect}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.hostPort(name)+httpProofPath+value, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "postern")
	resp, err := client.Do(req)
	if err != nil {
		return httpReason(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %d instead of 200", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody+1))
	if err != nil {
		return errors.New("the answer broke off")
	}
	if !sameText(strings.TrimSpace(string(body)), value) {
		return errors.New("the file is there, but says something else")
	}
	return nil
}

func (p *prober) hostPort(name string) string {
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if p.port == 80 {
		return name
	}
	return name + ":" + strconv.Itoa(p.port)
}

// checkRedirect follows a few redirects to the usual ports only. Where they
// lead is checked again when connecting.
func (p *prober) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("too many redirects")
	}
	usual := map[string]string{"http": strconv.Itoa(p.port), "https": "443"}[req.URL.Scheme]
	port := req.URL.Port()
	if usual == "" || port != "" && port != usual && port != "80" {
		return errors.New("it redirects to another port or protocol")
	}
	if req.URL.User != nil {
		return errors.New("it redirects to an address with a password")
	}
	return nil
}

// httpReason says why a fetch failed without telling what lies at an address
// that is none of the asker's business.
func httpReason(err error) error {
	var dnsErr *net.DNSError
	var urlErr *url.Error
	switch {
	case errors.Is(err, errPrivate):
		return errPrivate
	case errors.As(err, &dnsErr):
		return errors.New("its address was not found in DNS")
	case errors.As(err, &urlErr) && urlErr.Timeout():
		return errors.New("it did not answer in time")
	case errors.As(err, &urlErr) && strings.HasPrefix(urlErr.Err.Error(), "it redirects"), errors.As(err, &urlErr) && urlErr.Err.Error() == "too many redirects":
		return urlErr.Err
	}
	return errors.New("it could not be reached")
}

// dns looks for the proof's value in a TXT record. A wildcard is proved at its
// base name.
func (p *prober) dns(ctx context.Context, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	records, err := p.netResolver().LookupTXT(ctx, dnsProofLabel+strings.TrimPrefix(name, "*.")+".")
	if err != nil {
		var dnsErr *net.DNSError
		if errors.As(err, &dnsErr) && dnsErr.IsNotFound {
			return errors.New("there is no such TXT record yet; new ones can take a while to show")
		}
		return errors.New("DNS did not answer")
	}
	for _, r := range records {
		if sameText(strings.TrimSpace(r), value) {
			return nil
		}
	}
	return errors.New("there is a TXT record, but it says something else")
}

func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// mailboxes returns the addresses that speak for a name: RFC 2142's at the name
// and at every domain above it down to the registrable one, and the contacts
// that the domain's CAA records name (CA/Browser Forum, 3.2.2.4.4 and .13).
func (p *prober) mailboxes(ctx context.Context, name string) []string {
	if isAddress(name) || isWildcard(name) {
		return nil
	}
	registrable, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return nil
	}
	var all []string
	for domain := name; ; {
		for _, local := range []string{"admin", "administrator", "hostmaster", "postmaster", "webmaster"} {
			all = append(all, local+"@"+domain)
		}
		if domain == registrable || len(all) >= maxMailTargets-5 {
			break
		}
		_, domain, _ = strings.Cut(domain, ".")
	}
	return append(all, p.caaContacts(ctx, name, registrable)...)
}

// caaContacts returns the contactemail properties of the closest CAA record
// set (RFC 8659, 3). Without an answer there are none.
func (p *prober) caaContacts(ctx context.Context, name, registrable string) []string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	server := p.resolver
	if server == "" {
		c, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil || len(c.Servers) == 0 {
			return nil
		}
		server = net.JoinHostPort(c.Servers[0], c.Port)
	}
	for domain := name; ; {
		q := new(dns.Msg).SetQuestion(dns.Fqdn(domain), dns.TypeCAA)
		answer, _, err := new(dns.Client).ExchangeContext(ctx, q, server)
		if err != nil {
			return nil
		}
		var found bool
		var contacts []string
		for _, rr := range answer.Answer {
			caa, ok := rr.(*dns.CAA)
			found = found || ok
			if !ok || !strings.EqualFold(caa.Tag, "contactemail") || len(contacts) >= 5 {
				continue
			}
			if address, err := postern.CleanEmail(caa.Value); err == nil {
				contacts = append(contacts, address)
			}
		}
		if found || domain == registrable {
			return contacts
		}
		_, domain, _ = strings.Cut(domain, ".")
	}
}
