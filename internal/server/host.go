package server

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/store"
	"golang.org/x/crypto/ssh"
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

// newHostAPI returns the service with which hosts join and stay current.
func newHostAPI(db *store.DB, authority *ca.Authority, log *slog.Logger) http.Handler {
	return host.NewHandler(host.Config{
		Authority: hostAuthority{authority, db.Hosts()},
		Identify: func(r *http.Request) (host.Shown, error) {
			h, err := hostOf(r, db.Hosts())
			if err != nil {
				return host.Shown{}, err
			}
			return host.Shown{Host: h, Serial: ca.SerialString(r.TLS.PeerCertificates[0].SerialNumber)}, nil
		},
		Address: func(r *http.Request) string { return front.Address(r).String() },
		Log:     log.With(slog.String(postern.LogKind, "hosts")),
	})
}

// hostAuthority issues what hosts need.
type hostAuthority struct {
	ca    *ca.Authority
	hosts store.Hosts
}

// Admit implements [host.Authority].
func (a hostAuthority) Admit(
	ctx context.Context, by postern.Actor, hash, csr []byte,
) (h postern.Host, chain []byte, err error) {
	key, err := ca.CSRKey(csr)
	if err != nil {
		return h, nil, err
	}
	sum, err := ca.KeyHash(key)
	if err != nil {
		return h, nil, err
	}
	if h, err = a.hosts.HostByToken(ctx, hash, sum); err != nil {
		return h, nil, err
	}
	issued, err := a.ca.PrepareHostCSR(csr, h.Name, by)
	if err != nil {
		return h, nil, err
	}
	return h, issued.PEM(), a.hosts.AdmitHost(ctx, hash, h.Name, by, issued.Certificate, issued.Event)
}

// Renew implements [host.Authority].
func (a hostAuthority) Renew(ctx context.Context, by postern.Actor, h host.Shown, csr []byte) ([]byte, error) {
	issued, err := a.ca.PrepareHostCSR(csr, h.Name, by)
	if err != nil {
		return nil, err
	}
	return issued.PEM(), a.hosts.RenewHost(ctx, h.Name, h.Serial, by, issued.Certificate, issued.Event)
}

// SSHCertificate implements [host.Authority].
func (a hostAuthority) SSHCertificate(
	ctx context.Context, by postern.Actor, h postern.Host, key ssh.PublicKey,
) (string, error) {
	issued, err := a.ca.SignSSHHost(ctx, ca.SSHHostRequest{Names: h.All(), Key: key, By: by})
	if err != nil {
		return "", err
	}
	return string(issued.Line()), nil
}

// Trust implements [host.Authority].
func (a hostAuthority) Trust(ctx context.Context, krl int64) (t host.Trust, err error) {
	cas, err := a.ca.TrustedUserCAs()
	if err != nil {
		return t, err
	}
	if t.KnownHosts, err = a.ca.KnownHosts(); err != nil {
		return t, err
	}
	t.UserCAs = string(cas)
	// The version before the list: a list that is newer than said is fetched once more.
	if t.KRLVersion, err = a.hosts.KRLVersion(ctx); err != nil || t.KRLVersion == krl {
		return t, err
	}
	t.KRL, err = a.ca.KRL(ctx)
	return t, err
}

// Reported implements [host.Authority].
func (a hostAuthority) Reported(ctx context.Context, name string, r postern.HostReport) error {
	return a.hosts.HostReported(ctx, name, r)
}
