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
		Authority: HostAuthority{authority, db.Hosts(), new(host.Limit)},
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

// HostAuthority issues what hosts need: it is the [host.Authority].
type HostAuthority struct {
	CA    *ca.Authority
	Hosts store.Hosts
	Limit *host.Limit
}

// limit counts a certificate of a host, or refuses it.
func (a HostAuthority) limit(name string) error { return a.Limit.Take(name, a.Hosts.Now()) }

// Admit implements [host.Authority].
func (a HostAuthority) Admit(
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
	if h, err = a.Hosts.HostByToken(ctx, hash, sum); err != nil {
		return h, nil, err
	}
	if err := a.limit(h.Name); err != nil {
		return h, nil, err
	}
	issued, err := a.CA.PrepareHostCSR(csr, h.Name, by)
	if err != nil {
		return h, nil, err
	}
	return h, issued.PEM(), a.Hosts.AdmitHost(ctx, hash, h.Name, by, issued.Certificate, issued.Event)
}

// Renew implements [host.Authority].
func (a HostAuthority) Renew(ctx context.Context, by postern.Actor, h host.Shown, csr []byte) ([]byte, error) {
	if err := a.limit(h.Name); err != nil {
		return nil, err
	}
	issued, err := a.CA.PrepareHostCSR(csr, h.Name, by)
	if err != nil {
		return nil, err
	}
	return issued.PEM(), a.Hosts.RenewHost(ctx, h.Name, h.Serial, by, issued.Certificate, issued.Event)
}

// ServerCertificate implements [host.Authority].
func (a HostAuthority) ServerCertificate(
	ctx context.Context, by postern.Actor, h postern.Host, csr []byte,
) ([]byte, error) {
	if err := a.limit(h.Name); err != nil {
		return nil, err
	}
	issued, err := a.CA.IssueCSR(ctx, csr, ca.SignRequest{Profile: ca.ProfileServer, Proved: h.All(), By: by})
	if err != nil {
		return nil, err
	}
	return issued.PEM(), nil
}

// SSHCertificate implements [host.Authority].
func (a HostAuthority) SSHCertificate(
	ctx context.Context, by postern.Actor, h postern.Host, key ssh.PublicKey,
) (string, error) {
	if err := a.limit(h.Name); err != nil {
		return "", err
	}
	issued, err := a.CA.SignSSHHost(ctx, ca.SSHHostRequest{Names: h.All(), Key: key, By: by})
	if err != nil {
		return "", err
	}
	return string(issued.Line()), nil
}

// Sign implements [host.Authority].
func (a HostAuthority) Sign(ctx context.Context, message []byte) (signature, chain []byte, err error) {
	return a.CA.SignByDelegate(ctx, message)
}

// Roots implements [host.Authority].
func (a HostAuthority) Roots() []byte { return ca.EncodeCertificates(a.CA.Roots()...) }

// Trust implements [host.Authority].
func (a HostAuthority) Trust(ctx context.Context, krl int64) (t host.Trust, err error) {
	cas, err := a.CA.TrustedUserCAs()
	if err != nil {
		return t, err
	}
	if t.KnownHosts, err = a.CA.KnownHosts(); err != nil {
		return t, err
	}
	t.UserCAs, t.Roots = string(cas), string(a.Roots())
	// The version before the list: a list that is newer than said is fetched once more.
	if t.KRLVersion, err = a.Hosts.KRLVersion(ctx); err != nil || t.KRLVersion == krl {
		return t, err
	}
	t.KRL, err = a.CA.KRL(ctx)
	return t, err
}

// Reported implements [host.Authority].
func (a HostAuthority) Reported(ctx context.Context, name string, r postern.HostReport) error {
	return a.Hosts.HostReported(ctx, name, r)
}
