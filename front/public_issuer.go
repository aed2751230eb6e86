package front

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(PublicIssuer{}) }

// PublicIssuer is Caddy's ACME issuer, which says in one line what its CA refuses,
// and what to do about it. Prepare puts it in the place of Caddy's.
type PublicIssuer struct {
	caddytls.ACMEIssuer
	Followed bool `json:"followed,omitempty"` // Postern's CA issues what this one refuses
}

// CaddyModule returns the Caddy module information.
func (PublicIssuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.issuance.postern_acme", New: func() caddy.Module { return new(PublicIssuer) }}
}

// Issue gets a certificate from the CA.
func (i *PublicIssuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	issued, err := i.ACMEIssuer.Issue(ctx, csr)
	if err != nil && ctx.Err() == nil {
		refusals.say(csr, "the CA at "+i.host()+" issues none: "+i.refusal(err))
	}
	return issued, err
}

// host names the CA by its server.
func (i *PublicIssuer) host() string {
	directory := i.CA
	if directory == "" {
		directory = certmagic.DefaultACME.CA
	}
	if u, err := url.Parse(directory); err == nil && u.Host != "" {
		return u.Host
	}
	return directory
}

// refusal says why the CA refused, what is served meanwhile, and what to do.
func (i *PublicIssuer) refusal(err error) string {
	why, fix := err.Error(), "see whether this server reaches the CA"
	if p, ok := errors.AsType[acme.Problem](err); ok {
		why, fix = p.Detail, fixes[p.Type[strings.LastIndexByte(p.Type, ':')+1:]]
	}
	if i.Followed {
		why += "; the site is served with a certificate of Postern's CA"
	}
	const own = "write \"tls { issuer postern }\" in the site if only your own computers visit it"
	if fix == "" {
		return why + ". To fix it, " + own
	}
	return why + ". To fix it, " + fix + ", or " + own
}

// fixes are what helps against the problems of RFC 8555, section 6.7.
var fixes = map[string]string{
	"dns":               "let the name's DNS records point to this server",
	"connection":        "let the CA reach this server under that name, on port 80 or 443",
	"unauthorized":      "let the name's DNS records point to this server, and ports 80 and 443 lead to it",
	"tls":               "let port 443 of that name lead to this server",
	"incorrectResponse": "let port 80 of that name lead to this server",
	"caa":               "name the CA in the domain's CAA records",
	"rateLimited":       "wait as long as the CA says",
	"serverInternal":    "wait until the CA works again",
}

// refusals are what was said last about each name, so that the same is not said at
// every attempt.
var refusals = saidRefusals{said: make(map[string]string)}

type saidRefusals struct {
	mu   sync.Mutex
	said map[string]string
}

const maxSaid = 1024

// say logs why there is no certificate for a request, unless it was said already.
func (r *saidRefusals) say(csr *x509.CertificateRequest, why string) {
	names := csr.DNSNames
	for _, ip := range csr.IPAddresses {
		names = append(names, ip.String())
	}
	name := strings.Join(names, ", ")
	why = strings.Join(strings.Fields(why), " ")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said[name] == why {
		return
	}
	if len(r.said) >= maxSaid {
		clear(r.said)
	}
	r.said[name] = why
	caddy.Log().Named("certificates").Error(fmt.Sprintf("no certificate for %s: %s", name, why),
		zap.Strings("names", names))
}

var (
	_ certmagic.Issuer            = (*PublicIssuer)(nil)
	_ certmagic.PreChecker        = (*PublicIssuer)(nil)
	_ certmagic.Revoker           = (*PublicIssuer)(nil)
	_ certmagic.RenewalInfoGetter = (*PublicIssuer)(nil)
	_ caddytls.ConfigSetter       = (*PublicIssuer)(nil)
	_ caddy.Provisioner           = (*PublicIssuer)(nil)
)
