package ca

import (
	"context"
	"net/url"
	"strings"

	"github.com/postern-project/postern"
)

// The settings that say where others ask about revocation.
const (
	settingURL    = "url"    // chosen, or NoURL
	settingPortal = "portal" // where the server that runs serves it; used if none was chosen
)

// What is chosen instead of a URL.
const (
	NoURL     = "none"   // certificates do not say where to ask about them
	PortalURL = "portal" // the portal's host again
)

// checkURL returns an Invalid error for what cannot stand in certificates.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return postern.Errorf(postern.Invalid, "%q is not a plain http:// URL", s).
			WithHint("revocation is fetched over http: a client that checks a certificate cannot use TLS for it")
	}
	return nil
}

// readURL returns the URL to use: the configured one, else the chosen one,
// else the portal's; and whether one was chosen.
func (a *Authority) readURL(ctx context.Context) (url string, chosen bool, err error) {
	if a.cfg.URL != "" {
		return strings.TrimSuffix(a.cfg.URL, "/"), true, nil
	}
	switch url, err = a.store.CASetting(ctx, settingURL); {
	case err != nil:
		return "", false, err
	case url == NoURL:
		return "", true, nil
	case url != "":
		return url, true, nil
	}
	url, err = a.store.CASetting(ctx, settingPortal)
	return url, false, err
}

// URL returns the base URL under which others reach the authority's handlers, or
// "".
func (a *Authority) URL() string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.url
}

// URLChosen reports whether an administrator chose the URL, NoURL included.
func (a *Authority) URLChosen() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.chosen
}

// SetURL chooses the URL that certificates carry from now on: one as in
// [Config], NoURL or PortalURL.
func (a *Authority) SetURL(ctx context.Context, url string) error {
	return a.setURL(ctx, settingURL, url)
}

// SetPortalURL says where the portal serves the authority's handlers: what
// certificates carry unless something else was chosen. A server that has no portal
// which others reach says "", and changes nothing: another one may have.
func (a *Authority) SetPortalURL(ctx context.Context, url string) error {
	if url == "" {
		return nil
	}
	if have, err := a.store.CASetting(ctx, settingPortal); err != nil || have == url {
		return err
	}
	return a.setURL(ctx, settingPortal, url)
}

func (a *Authority) setURL(ctx context.Context, setting, url string) error {
	switch url {
	case NoURL:
	case PortalURL:
		url = "" // none is chosen
	default:
		if err := checkURL(url); err != nil {
			return err
		}
	}
	if err := a.store.SetCASetting(ctx, setting, strings.TrimSuffix(url, "/")); err != nil {
		return err
	}
	return a.Reload(ctx)
}

// URLPath returns the path of URL, without a slash at the end: "" for none.
func (a *Authority) URLPath() string {
	u, err := url.Parse(a.URL())
	if err != nil {
		return ""
	}
	return u.Path
}

// Unlisted returns the roles whose intermediate was made before there was an
// address: it does not say where the list is that could revoke it.
func (a *Authority) Unlisted() []Role {
	var roles []Role
	for _, role := range []Role{Server, Client} {
		chain := a.Chain(role)
		if a.URL() != "" && len(chain) > 0 && len(chain[0].CRLDistributionPoints) == 0 {
			roles = append(roles, role)
		}
	}
	return roles
}
