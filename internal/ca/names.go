package ca

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"golang.org/x/net/idna"
)

// names are the subject alternative names of a certificate, cleaned.
type names struct {
	dns []string
	ips []net.IP
}

// CleanName returns a server's name as it is written into a certificate: a DNS
// name in lower case and ASCII (an international one is converted), perhaps with
// a wildcard as its whole first label, or an IP address in its usual form.
func CleanName(s string) (string, error) {
	s = strings.TrimSuffix(strings.TrimSpace(s), ".")
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		if addr.Zone() != "" || addr.IsUnspecified() {
			return "", postern.Errorf(postern.Invalid, "%q cannot be the address of a server", s)
		}
		return addr.Unmap().String(), nil
	}
	base, wild := strings.CutPrefix(s, "*.")
	host, err := idna.Lookup.ToASCII(base)
	if err != nil || !postern.ValidHostName(host) {
		e := postern.Errorf(postern.Invalid, "%q is not a DNS name or IP address", s)
		switch {
		case strings.Contains(s, "://"):
			e = e.WithHint("give the host name alone, without https:// and path")
		case strings.Contains(s, "*"):
			e = e.WithHint("a wildcard stands for one whole first label: *.example.com")
		case strings.Contains(s, "@"):
			e = e.WithHint("e-mail addresses belong into client certificates")
		case strings.Contains(s, ":"):
			e = e.WithHint("give the host name without the port")
		}
		return "", e
	}
	if !wild {
		return host, nil
	}
	if !strings.Contains(host, ".") {
		return "", postern.Errorf(postern.Invalid, "the wildcard %q is too wide",
			s).WithHint("browsers want at least two labels after the asterisk")
	}
	return "*." + host, nil
}

// maxNames bounds the names of one certificate.
const maxNames = 100

// cleanNames cleans and sorts out a list of server names, without duplicates, in
// the order given.
func cleanNames(list []string) (names, []string, error) {
	var n names
	var clean []string
	for _, s := range list {
		c, err := CleanName(s)
		if err != nil {
			return n, nil, err
		}
		if slices.Contains(clean, c) {
			continue
		}
		if len(clean) == maxNames {
			return n, nil, postern.Errorf(postern.Invalid, "more than %d names in one certificate", maxNames)
		}
		clean = append(clean, c)
		if addr, err := netip.ParseAddr(c); err == nil {
			n.ips = append(n.ips, addr.AsSlice())
		} else {
			n.dns = append(n.dns, c)
		}
	}
	if len(clean) == 0 {
		return n, nil, postern.Errorf(postern.Invalid, "a server certificate needs at least one name")
	}
	return n, clean, nil
}
