package join

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/host"
)

// The files with which libvirt's daemons serve TLS (libvirt's documentation, "Remote
// support", section TLS/x509).
const (
	libvirtCert = "/etc/pki/libvirt/servercert.pem"
	libvirtKey  = "/etc/pki/libvirt/private/serverkey.pem"
	libvirtCA   = "/etc/pki/CA/cacert.pem"
)

// libvirtRequest returns a request for the next certificate with which libvirt serves TLS,
// for the same key and names; "" unless the installation issued the present one and it ends
// soon.
func (h Host) libvirtRequest() (string, error) {
	data, err := os.ReadFile(h.path(libvirtCert))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	chain, err := parseChain(data)
	if err != nil || !due(chain[0].NotBefore, chain[0].NotAfter) || !h.issuedHere(chain) {
		return "", nil
	}
	data, err = durable.ReadSecret(h.path(libvirtKey))
	if err != nil {
		return "", postern.Errorf(postern.Unavailable, "libvirt's key: %w", err)
	}
	defer clear(data)
	key, err := parseKey(data)
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		DNSNames: chain[0].DNSNames, IPAddresses: chain[0].IPAddresses,
	}, key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), err
}

// issuedHere reports whether a certificate of the installation that the host has joined
// begins a chain, whether it is valid still or not.
func (h Host) issuedHere(chain []*x509.Certificate) bool {
	data, err := os.ReadFile(h.path(RootFile))
	if err != nil {
		return false
	}
	roots, err := parseChain(data)
	o := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: chain[0].NotAfter,
	}
	for _, r := range roots {
		o.Roots.AddCert(r)
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, invalid := chain[0].Verify(o)
	return err == nil && invalid == nil
}

// parseKey reads a private key as libvirt's tools and Postern write it (PEM).
func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, postern.Errorf(postern.Invalid, "%s holds no key", libvirtKey)
	}
	pkcs8, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if key, ok := pkcs8.(crypto.Signer); err == nil && ok {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	return nil, postern.Errorf(postern.Invalid, "%s holds no key that signs", libvirtKey)
}

// renewLibvirt adds roots that are new to those that libvirt trusts, renews the certificate
// that it serves TLS with, and has its daemons read them.
func (h Host) renewLibvirt(ctx context.Context, c *conn, a host.Answer) (changed []string, err error) {
	if have, err := os.ReadFile(h.path(libvirtCA)); err == nil {
		if err := h.replaceLibvirt(libvirtCA, withRoots(have, []byte(a.Roots)), &changed); err != nil {
			return changed, err
		}
	}
	csr, err := h.libvirtRequest()
	if err == nil && csr != "" {
		err = h.renewLibvirtCertificate(ctx, c, csr, &changed)
	}
	return changed, errors.Join(err, h.notify(ctx, unreadLibvirt, h.updateLibvirt))
}

// replaceLibvirt replaces a file that libvirt's daemons read.
func (h Host) replaceLibvirt(file string, content []byte, changed *[]string) error {
	if have, err := os.ReadFile(h.path(file)); err == nil && bytes.Equal(have, content) {
		return nil
	}
	if err := h.write(unreadLibvirt, nil, 0o600); err != nil {
		return err
	}
	return h.replace(file, content, changed)
}

func (h Host) renewLibvirtCertificate(ctx context.Context, c *conn, csr string, changed *[]string) error {
	a, err := c.refresh(ctx, host.Request{Libvirt: csr})
	if err != nil {
		return err
	}
	chain, err := parseChain([]byte(a.Libvirt))
	if err != nil || !h.issuedHere(chain) {
		return postern.Errorf(postern.Denied, "the server sent a certificate for libvirt that does not verify")
	}
	return h.replaceLibvirt(libvirtCert, []byte(a.Libvirt), changed)
}

// withRoots returns a file of CAs with those roots added that it lacks, if it has one of
// them.
func withRoots(file, roots []byte) []byte {
	have, err := parseChain(file)
	list, bad := parseChain(roots)
	has := func(c *x509.Certificate) bool { return slices.ContainsFunc(have, c.Equal) }
	if err != nil || bad != nil || !slices.ContainsFunc(list, has) {
		return file
	}
	for _, c := range list {
		if !has(c) {
			file = append(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
	}
	return file
}

// updateLibvirt has the daemons that serve TLS read their files again
// (virt-admin(1), server-update-tls). One that does not run, or serves none, needs not.
func (h Host) updateLibvirt(ctx context.Context) error {
	if h.Root != "" {
		return nil
	}
	for _, daemon := range []string{"libvirtd", "virtproxyd"} {
		_ = exec.CommandContext(ctx, "virt-admin", "-c", daemon+":///system", "server-update-tls", daemon).Run()
	}
	return ctx.Err()
}
