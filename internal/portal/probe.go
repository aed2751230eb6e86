package portal

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/postern-project/postern"
	"golang.org/x/net/publicsuffix"
)

// Where a server proves its name.
const (
	httpProofPath = "/.well-known/postern/"
	dnsProofLabel = "_postern-challenge."
)

const (
	probeTimeout   = 10 * time.Second
	maxProbeBody   = 1 << 10
	maxMailTargets = 20
)

// Prober fetches from addresses that other people's DNS names point to. It connects
// to public addresses only, whatever DNS and redirects say, and limits time and
// size. Its errors may be shown to the person. It is safe for concurrent use.
type Prober interface {
	// OwnFile returns the file at a path of a name's own web server, at most max
	// bytes. A redirect to another name is an error.
	OwnFile(ctx context.Context, host, path string, max int64) ([]byte, error)
	// TXT returns a name's TXT records.
	TXT(ctx context.Context, name string) ([]string, error)
	// Server returns the DNS server to use, host:port, or "" for the host's own.
	Server() string
}

// proofPath returns the path of the file with a proof's value. The value cannot be
// derived from the path, so a server that repeats the paths that it is asked for
// proves nothing.
func proofPath(value string) string {
	sum := sha256.Sum256([]byte("postern proof path\x00" + value))
	return httpProofPath + strings.ToLower(tokenCoding.EncodeToString(sum[:20]))
}

// byFile looks for a proof's value in a file on the name's web server.
func (p *Portal) byFile(ctx context.Context, name, value string) error {
	body, err := p.Prober.OwnFile(ctx, name, proofPath(value), maxProbeBody)
	if err != nil {
		return err
	}
	if !sameText(strings.TrimSpace(string(body)), value) {
		return errors.New("the file is there, but with another content")
	}
	return nil
}

// byRecord looks for a proof's value in a TXT record. A wildcard is proved at
// its base name.
func (p *Portal) byRecord(ctx context.Context, name, value string) error {
	records, err := p.Prober.TXT(ctx, dnsProofLabel+strings.TrimPrefix(name, "*."))
	if err != nil {
		return err
	}
	for _, r := range records {
		if sameText(strings.TrimSpace(r), value) {
			return nil
		}
	}
	return errors.New("there is a TXT record, but with another value")
}

func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// mailboxes returns the addresses that may approve a name: those of RFC 2142 at the
// name and at each domain above it up to the registrable one, and the contacts in
// the domain's CAA records (CA/Browser Forum, 3.2.2.4.4 and .13).
func (p *Portal) mailboxes(ctx context.Context, name string) []string {
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
func (p *Portal) caaContacts(ctx context.Context, name, registrable string) []string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	server := p.Prober.Server()
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
