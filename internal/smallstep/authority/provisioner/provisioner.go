// Package provisioner has the types that Caddy's internal issuer names.
package provisioner

import "crypto/x509"

// SignOptions stands in for the options of a request.
type SignOptions struct{}

// SignOption is anything that changes how a certificate is issued.
type SignOption any

// CertificateModifier changes a certificate before it is issued.
type CertificateModifier interface {
	Modify(cert *x509.Certificate, opts SignOptions) error
}
