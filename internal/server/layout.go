package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"sync"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/portal"
)

// portalLayouts are the layouts that the portal offers for servers, with the directory of
// each one's files. PKCS#12 is not among them: a person who has the key can make it with
// openssl.
var portalLayouts = []struct {
	layout ca.Layout
	dir    string
}{
	{ca.LayoutApache, "/etc/ssl/postern"},
	{ca.LayoutNginx, "/etc/ssl/postern"},
	{ca.LayoutHAProxy, "/etc/ssl/postern"},
	{ca.LayoutLibvirt, "/etc/pki"},
	{ca.LayoutPostgreSQL, "/etc/postgresql"},
	{ca.LayoutPEM, "/etc/ssl/postern"},
}

// Layouts lists the kinds of server that the portal has a layout for.
func (p portalAuthority) Layouts() []string {
	var names []string
	for _, l := range portalLayouts {
		names = append(names, string(l.layout))
	}
	return names
}

// standIn is a key that is used for nothing: its PEM marks the place of the real one.
var standIn = sync.OnceValues(func() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
})

// Layout returns a certificate's files for one kind of server.
func (p portalAuthority) Layout(ctx context.Context, kind string, c portal.Certificate, key string) (portal.Layout,
	error,
) {
	layout, err := ca.ParseLayout(kind)
	if err != nil {
		return portal.Layout{}, err
	}
	b := ca.Bundle{}
	for _, l := range portalLayouts {
		if l.layout == layout {
			b.Dir = l.dir
		}
	}
	if b.Issued, err = p.a.Load(ctx, c.Serial); err != nil {
		return portal.Layout{}, err
	}
	var mark []byte
	if key != "" {
		k, err := standIn()
		if err != nil {
			return portal.Layout{}, err
		}
		if mark, err = ca.EncodeKey(k, nil); err != nil {
			return portal.Layout{}, err
		}
		b.Key = k
	}
	files, err := b.Files(layout)
	if err != nil {
		return portal.Layout{}, err
	}
	out := portal.Layout{Dir: b.Dir}
	for _, f := range files {
		body := f.Data
		if mark != nil {
			body = bytes.ReplaceAll(body, mark, []byte(key))
		}
		out.Files = append(out.Files, portal.File{Path: f.Name, Mode: uint32(f.Mode.Perm()), Body: string(body)})
		if !bytes.Contains(f.Data, []byte("-----BEGIN ")) {
			out.Snippet = string(f.Data)
		}
	}
	return out, nil
}
