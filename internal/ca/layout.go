package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"io/fs"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/postern-project/postern"
)

// Layout names how another program wants certificate, key and chain.
type Layout string

// The layouts.
const (
	LayoutPEM        Layout = "pem"
	LayoutPKCS12     Layout = "pkcs12"
	LayoutApache     Layout = "apache"
	LayoutNginx      Layout = "nginx"
	LayoutHAProxy    Layout = "haproxy"
	LayoutLibvirt    Layout = "libvirt"
	LayoutPostgreSQL Layout = "postgresql"
)

// Layouts lists all of them.
var Layouts = []Layout{
	LayoutApache, LayoutNginx, LayoutHAProxy, LayoutLibvirt, LayoutPostgreSQL, LayoutPEM,
	LayoutPKCS12,
}

// ParseLayout reads a layout's name.
func ParseLayout(s string) (Layout, error) {
	if slices.Contains(Layouts, Layout(s)) {
		return Layout(s), nil
	}
	var list []string
	for _, l := range Layouts {
		list = append(list, string(l))
	}
	return "", postern.Errorf(postern.Invalid, "unknown layout %q", s).WithHint("one of %s", strings.Join(list, ", "))
}

// Bundle is what is exported.
type Bundle struct {
	*Issued
	Key      crypto.PrivateKey // nil: it is elsewhere, and its file is left out
	Dir      string            // where the files will lie, as configurations name it
	Password string            // of the PKCS#12 file
	Legacy   bool              // PKCS#12 for old importers
}

// placement says which files a layout has for a profile.
type placement struct {
	cert, key, chain, root string // relative names; "" leaves one out
	extra                  string // the snippet's name
	certHas                []part // what the certificate's file holds
	rootHas                []part
	snippet                *template.Template
}

// part is one thing that a PEM file can hold.
type part int

const (
	partLeaf part = iota
	partChain
	partRoot
	partKey
)

// Files returns the layout's files.
func (b Bundle) Files(l Layout) ([]File, error) {
	if l == LayoutPKCS12 {
		return b.pkcs12()
	}
	p, err := b.placement(l)
	if err != nil {
		return nil, err
	}
	var files []File
	add := func(name string, mode fs.FileMode, parts ...part) error {
		if name == "" {
			return nil
		}
		data, err := b.pem(parts)
		if err != nil || data == nil {
			return err
		}
		files = append(files, File{Name: name, Data: data, Mode: mode})
		return nil
	}
	certMode := fs.FileMode(modePublic)
	if slices.Contains(p.certHas, partKey) {
		certMode = modePrivate
	}
	for _, err := range []error{
		add(p.cert, certMode, p.certHas...),
		add(p.key, modePrivate, partKey),
		add(p.chain, modePublic, partChain),
		add(p.root, modePublic, p.rootHas...),
	} {
		if err != nil {
			return nil, err
		}
	}
	if p.snippet != nil {
		text, err := b.render(p)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: p.extra, Data: text, Mode: modePublic})
	}
	return files, nil
}

// pem returns the parts one after the other; a key that is elsewhere makes a
// file of its own vanish.
func (b Bundle) pem(parts []part) ([]byte, error) {
	var out bytes.Buffer
	for _, p := range parts {
		switch p {
		case partLeaf:
			out.Write(EncodeCertificates(b.Leaf))
		case partChain:
			out.Write(EncodeCertificates(b.Chain...))
		case partRoot:
			out.Write(EncodeCertificates(b.Roots...))
		case partKey:
			if b.Key == nil {
				continue
			}
			key, err := EncodeKey(b.Key, nil)
			if err != nil {
				return nil, err
			}
			out.Write(key)
		}
	}
	return out.Bytes(), nil
}

func (b Bundle) pkcs12() ([]File, error) {
	if b.Key == nil {
		return nil,
			postern.Errorf(postern.Invalid, "a PKCS#12 file holds the private key, which the authority does not keep").
				WithHint("give the private key in a file")
	}
	data, err := EncodePKCS12(b.Key, b.Issued, b.Password, b.Legacy)
	if err != nil {
		return nil, err
	}
	return []File{{Name: b.stem() + ".p12", Data: data, Mode: modePrivate}}, nil
}

// stem returns the certificate's name as a file name: the person's, or the first
// server name.
func (b Bundle) stem() string {
	name := b.Serial
	switch {
	case b.Profile == ProfileClient && b.Person != "":
		name = b.Person
	case len(b.Names) > 0:
		name = b.Names[0]
	}
	return fileName(name)
}

func fileName(s string) string {
	s = strings.ReplaceAll(s, "*", "wildcard")
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, s)
}

// slug returns the organisation's name as part of a file name.
func (b Bundle) slug() string {
	s := strings.Trim(fileName(strings.ToLower(b.Roots[0].Subject.Organization[0])), "-.")
	if s == "" {
		return "postern"
	}
	return s
}

// placement returns where the layout wants the files.
func (b Bundle) placement(l Layout) (placement, error) {
	server := b.Profile == ProfileServer
	stem, full := b.stem(), []part{partLeaf, partChain}
	root := []part{partRoot}
	switch {
	case l == LayoutPEM:
		return placement{
			cert: stem + ".pem", key: stem + ".key", chain: "ca-chain-" + string(b.Profile) + ".pem",
			root: "ca-root.pem", certHas: full, rootHas: root,
		}, nil
	case l == LayoutApache && server:
		ca := "ssl-ca-chain-" + b.slug() + "-server.pem"
		return placement{
			cert: "ssl-cert-" + stem + ".pem", key: "ssl-cert-" + stem + ".key", chain: ca,
			root:  "ssl-ca-" + b.slug() + ".pem",
			extra: stem + ".conf", certHas: []part{partLeaf}, rootHas: root, snippet: apacheSnippet,
		}, nil
	case l == LayoutNginx && server:
		return placement{
			cert: stem + ".pem", key: stem + ".key", root: "ca.pem", extra: stem + ".conf", certHas: full,
			rootHas: root, snippet: nginxSnippet,
		}, nil
	case l == LayoutHAProxy && server:
		return placement{
			cert: stem + ".pem", root: "ca.pem", extra: stem + ".cfg",
			certHas: []part{partLeaf, partChain, partKey}, rootHas: root, snippet: haproxySnippet,
		}, nil
	case l == LayoutLibvirt && server:
		return placement{
			cert: "libvirt/servercert.pem", key: "libvirt/private/serverkey.pem", root: "CA/cacert.pem",
			extra:   "libvirt/README.postern",
			certHas: full, rootHas: []part{partRoot, partChain}, snippet: libvirtServerSnippet,
		}, nil
	case l == LayoutLibvirt:
		return placement{
			cert: "libvirt/clientcert.pem", key: "libvirt/private/clientkey.pem", root: "CA/cacert.pem",
			extra:   "libvirt/README.postern",
			certHas: full, rootHas: []part{partRoot, partChain}, snippet: libvirtClientSnippet,
		}, nil
	case l == LayoutPostgreSQL && server:
		return placement{
			cert: "server.crt", key: "server.key", root: "root.crt", extra: "postgresql.conf.postern",
			certHas: full, rootHas: root, snippet: postgresServerSnippet,
		}, nil
	case l == LayoutPostgreSQL:
		return placement{
			cert: "postgresql.crt", key: "postgresql.key", root: "root.crt", extra: "README.postern",
			certHas: full, rootHas: root, snippet: postgresClientSnippet,
		}, nil
	}
	return placement{}, postern.Errorf(postern.Invalid,
		"the layout %s is for server certificates, and this is a %s certificate",
		l, b.Profile).WithHint("for a person: pem, pkcs12, libvirt or postgresql")
}

// Planned returns the files that Files will make of a certificate which is yet to
// be issued: those that hold it, its key or its names have no Data.
func (a *Authority) Planned(l Layout, p Profile, person string, list []string) ([]File, error) {
	var clean []string
	for _, s := range list {
		if c, err := CleanName(s); err == nil {
			clean = append(clean, c)
		}
	}
	b := Bundle{Issued: &Issued{Certificate: Certificate{Profile: p, Person: person, Names: clean}, Roots: a.Roots()}}
	if l == LayoutPKCS12 {
		return []File{{Name: b.stem() + ".p12"}}, nil
	}
	place, err := b.placement(l)
	if err != nil {
		return nil, err
	}
	b.Chain = a.Chain(Role(p))
	files := []File{{Name: place.cert}, {Name: place.key}, {Name: place.extra}}
	for name, parts := range map[string][]part{place.chain: {partChain}, place.root: place.rootHas} {
		data, err := b.pem(parts)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: name, Data: data})
	}
	return slices.DeleteFunc(files, func(f File) bool { return f.Name == "" }), nil
}

// render fills in a layout's snippet.
func (b Bundle) render(p placement) ([]byte, error) {
	at := func(name string) string {
		if name == "" {
			return ""
		}
		return path.Join(b.Dir, name)
	}
	data := struct {
		Name, Org, Cert, Key, Chain, Root string
		Aliases                           []string
		HasKey, IsRSA                     bool
	}{
		Name: b.stem(), Org: b.Roots[0].Subject.Organization[0],
		Cert: at(p.cert), Key: at(p.key), Chain: at(p.chain), Root: at(p.root), HasKey: b.Key != nil,
		IsRSA: b.Leaf.PublicKeyAlgorithm == x509.RSA,
	}
	if b.Profile == ProfileServer && len(b.Names) > 0 {
		data.Name, data.Aliases = b.Names[0], b.Names[1:]
	}
	var out bytes.Buffer
	if err := p.snippet.Execute(&out, data); err != nil {
		return nil, postern.Errorf(postern.Internal, "write a layout's snippet: %w", err)
	}
	return out.Bytes(), nil
}
