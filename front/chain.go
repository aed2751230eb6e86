package front

import (
	"crypto/tls"
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Provision has the sites show the chain that Postern's CA has now after its certificates,
// not the one that it had when it issued them: when a root follows another, both are
// reached at once.
func (a *App) Provision(ctx caddy.Context) error {
	l := current()
	if l.Chain == nil {
		return nil
	}
	app, err := ctx.AppIfConfigured("http")
	switch {
	case errors.Is(err, caddy.ErrNotConfigured):
		return nil
	case err != nil:
		return err
	}
	for _, s := range app.(*caddyhttp.App).Servers {
		for _, p := range s.TLSConnPolicies {
			if p.TLSConfig != nil && p.TLSConfig.GetCertificate != nil {
				p.TLSConfig.GetCertificate = l.chained(p.TLSConfig.GetCertificate)
			}
		}
	}
	return nil
}

type getCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// chained returns get with the present chains of Postern's CA.
func (l *live) chained(get getCertificate) getCertificate {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := get(hello)
		if err != nil || c == nil || c.Leaf == nil {
			return c, err
		}
		chain := l.Chain(c.Leaf)
		if chain == nil {
			return c, nil // another CA's
		}
		shown := *c
		shown.Certificate = append([][]byte{c.Leaf.Raw}, chain...)
		return &shown, nil
	}
}
