package server

import (
	"net/http"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
)

// hostOf returns the host whose client certificate the request's connection showed. It
// fails with Denied unless the host has joined and is not suspended, and the certificate
// is valid, at this moment; with Unavailable if that is not known.
func hostOf(r *http.Request, hosts store.Hosts) (postern.Host, error) {
	leaf, issuer, ok := front.Certificate(r)
	if !ok {
		return postern.Host{}, postern.Errorf(postern.Denied, "the client shows no certificate of a host")
	}
	return hosts.HostByCertificate(r.Context(), ca.SerialString(leaf.SerialNumber), issuer.Raw)
}
