package ca

import "time"

// RootInfo is the root as it is shown.
type RootInfo struct {
	ID       string    `json:"id"`
	Subject  string    `json:"subject"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	Key      bool      `json:"key_here"`          // its key is on this machine
	KeyURI   string    `json:"key_uri,omitempty"` // of the HSM that its key is in
	URL      string    `json:"url,omitempty"`     // as Authority.URL
	PEM      string    `json:"pem"`
}

// RootInfos returns what is shown of the roots that others are to trust, newest first.
func (a *Authority) RootInfos() (list []RootInfo) {
	for _, cert := range a.Roots() {
		for _, i := range a.list() {
			if i.cert != nil && i.cert.Equal(cert) {
				list = append(list, RootInfo{
					i.ID, i.name(), SerialString(cert.SerialNumber), cert.NotAfter, i.signer != nil, i.KeyURI, a.URL(),
					string(EncodeCertificates(cert)),
				})
			}
		}
	}
	return list
}

// PolicyInfo is a policy as it is shown.
type PolicyInfo struct {
	Profile     Profile     `json:"profile"`
	Description string      `json:"description,omitempty"`
	Validity    int64       `json:"validity_seconds"`
	Max         int64       `json:"max_seconds"`
	Keys        []Algorithm `json:"keys,omitempty"` // none: all that are strong enough
	SignOnly    bool        `json:"sign_only,omitempty"`
	Policies    []string    `json:"policies,omitempty"` // object identifiers
}

// Info returns what is shown of the policy.
func (p Policy) Info() PolicyInfo {
	return PolicyInfo{
		p.Profile, p.Text, int64(p.Validity.Seconds()), int64(p.Max.Seconds()), p.Keys, p.SignOnly, p.OIDs,
	}
}

// CertificateInfo is a certificate as it is shown.
type CertificateInfo struct {
	Certificate
	Status string `json:"status"` // as Certificate.Status
	PEM    string `json:"pem,omitempty"`
}

// Info returns what is shown of the certificate now, without its PEM.
func (c Certificate) Info() CertificateInfo {
	return CertificateInfo{Certificate: c, Status: c.Status(time.Now())}
}

// Info returns what is shown of the certificate now.
func (i *Issued) Info() CertificateInfo {
	info := i.Certificate.Info()
	info.PEM = string(i.PEM())
	return info
}
