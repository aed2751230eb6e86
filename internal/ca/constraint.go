package ca

import (
	"crypto/x509"
	"net"
	"net/netip"
	"strings"

	"github.com/postern-project/postern"
)

// Constraint is one thing that a root may vouch for. Exactly one field is set.
type Constraint struct {
	Domain  string       // a domain, all below it, and the mail addresses there
	Network netip.Prefix // IP addresses
	Mail    string       // one mail address, or all at one host if it has no local part
}

// ParseConstraint reads what --domain takes: a domain (example.com), an address
// or network (192.0.2.0/24), a mail address (dan@example.net), or the mail
// addresses of one host (@example.net).
func ParseConstraint(s string) (Constraint, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return Constraint{Network: p.Masked()}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return Constraint{Network: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	if local, host, ok := strings.Cut(s, "@"); ok {
		host, err := CleanName(host)
		if err != nil || strings.HasPrefix(host, "*") {
			return Constraint{}, postern.Errorf(postern.Invalid, "%q is not a mail address or @host", s)
		}
		if local == "" {
			return Constraint{Mail: host}, nil
		}
		mail, err := postern.CleanEmail(s)
		if err != nil {
			return Constraint{}, err
		}
		return Constraint{Mail: mail}, nil
	}
	d, err := CleanName(strings.TrimPrefix(strings.TrimPrefix(s, "*"), "."))
	if err != nil {
		return Constraint{}, postern.Errorf(postern.Invalid, "%q is not a domain, network or mail address", s).
			WithHint("example.com, 192.0.2.0/24 and @example.net are")
	}
	return Constraint{Domain: d}, nil
}

// constrain writes the constraints into a CA certificate's template, critical
// (RFC 5280 section 4.2.1.10). Each kind of name that relying parties look at
// gets a list, so that no kind is left open; localhost and the loopback
// addresses, which lead nowhere else, are always in it.
func constrain(tmpl *x509.Certificate, list []Constraint) {
	if len(list) == 0 {
		return
	}
	tmpl.PermittedDNSDomainsCritical = true
	tmpl.PermittedDNSDomains = []string{"localhost"}
	tmpl.PermittedEmailAddresses = []string{"localhost"}
	tmpl.PermittedIPRanges = []*net.IPNet{
		ipNet(netip.MustParsePrefix("127.0.0.0/8")),
		ipNet(netip.MustParsePrefix("::1/128")),
	}
	for _, c := range list {
		switch {
		case c.Domain != "":
			tmpl.PermittedDNSDomains = append(tmpl.PermittedDNSDomains, c.Domain)
			tmpl.PermittedEmailAddresses = append(tmpl.PermittedEmailAddresses, c.Domain, "."+c.Domain)
		case c.Network.IsValid():
			tmpl.PermittedIPRanges = append(tmpl.PermittedIPRanges, ipNet(c.Network))
		default:
			tmpl.PermittedEmailAddresses = append(tmpl.PermittedEmailAddresses, c.Mail)
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Permits reports, by a Denied or Invalid error, whether server certificates for
// these names may be issued at all.
func (a *Authority) Permits(list []string) error {
	n, _, err := cleanNames(list)
	if err != nil {
		return err
	}
	return permits(a.Root(), n, nil)
}

// PermitsMail reports, by a Denied error, whether client certificates with that
// e-mail address may be issued at all.
func (a *Authority) PermitsMail(email string) error {
	return permits(a.Root(), names{}, []string{email})
}

// permits returns a Denied error that names the first name which the root's
// constraints leave out.
func permits(root *x509.Certificate, n names, mails []string) error {
	if !root.PermittedDNSDomainsCritical {
		return nil
	}
	denied := func(name string) error {
		return postern.Errorf(postern.Denied, "this authority's root may not vouch for %s", name).
			WithHint("it was made for %s", strings.Join(permitted(root), ", "))
	}
	for _, d := range n.dns {
		host := strings.TrimPrefix(d, "*.")
		ok := false
		for _, c := range root.PermittedDNSDomains {
			ok = ok || host == c || strings.HasSuffix(host, "."+c)
		}
		if !ok {
			return denied(d)
		}
	}
	for _, ip := range n.ips {
		ok := false
		for _, c := range root.PermittedIPRanges {
			ok = ok || c.Contains(ip)
		}
		if !ok {
			return denied(ip.String())
		}
	}
	for _, m := range mails {
		_, host, _ := strings.Cut(m, "@")
		ok := false
		for _, c := range root.PermittedEmailAddresses {
			ok = ok || c == m || c == host || strings.HasPrefix(c, ".") && strings.HasSuffix(host, c)
		}
		if !ok {
			return denied(m)
		}
	}
	return nil
}

// permitted lists the root's constraints, without what is always there.
func permitted(root *x509.Certificate) []string {
	var list []string
	for _, d := range root.PermittedDNSDomains {
		if d != "localhost" {
			list = append(list, d)
		}
	}
	for _, n := range root.PermittedIPRanges {
		if !n.IP.IsLoopback() {
			list = append(list, n.String())
		}
	}
	domains := len(root.PermittedDNSDomains)
	for _, m := range root.PermittedEmailAddresses[min(1, len(root.PermittedEmailAddresses)):] {
		bare := strings.TrimPrefix(m, ".")
		known := false
		for _, d := range root.PermittedDNSDomains[:domains] {
			known = known || d == bare
		}
		if !known && strings.Contains(m, "@") {
			list = append(list, m)
		} else if !known {
			list = append(list, "@"+m)
		}
	}
	return list
}
