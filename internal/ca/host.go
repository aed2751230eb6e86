package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"

	"github.com/postern-project/postern"
)

// HostValidity is how long a host's client certificate is valid. Hosts renew theirs.
const HostValidity = 90 * day

// HostCommonName returns the CN of a host's client certificate. No person's name has a
// colon, so that a rule on another server that names a person never means a host.
func HostCommonName(host string) string { return "host:" + host }

// PrepareHostCSR signs a client certificate for the key of a host's request, in PEM or
// DER, and takes nothing else from it. The caller records it: see [Issued].
func (a *Authority) PrepareHostCSR(csr []byte, host string, by postern.Actor) (*Issued, error) {
	if !postern.ValidHostName(host) {
		return nil, postern.Errorf(postern.Invalid, "%q is not a host name", host)
	}
	key, err := CSRKey(csr)
	if err != nil {
		return nil, err
	}
	iss, err := a.signing(Client)
	if err != nil {
		return nil, err
	}
	policy := Policy{Profile: ProfileHost, Validity: HostValidity, Max: HostValidity}
	tmpl, err := a.policyTemplate(iss, policy, Period{}, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, err
	}
	tmpl.Subject = pkix.Name{Organization: []string{a.cfg.Name}, CommonName: HostCommonName(host)}
	return a.signUnder(iss, policy, tmpl, key, Certificate{Profile: ProfileHost, Names: []string{host}}, by)
}
