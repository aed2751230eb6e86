package pkcs11

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"sync"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11/module"
	"github.com/postern-project/postern/internal/durable"
)

// Keys makes and finds keys in HSMs. It implements [ca.Keys] and is safe for
// concurrent use.
type Keys struct {
	// ReadPIN reads the file that a URI's pin-source names; nil is
	// [durable.ReadCredential], which refuses one that others may read.
	ReadPIN func(path string) ([]byte, error)

	mu   sync.Mutex
	hsms map[string]*hsm
}

// hsm returns the HSM that a URI names.
func (k *Keys) hsm(u URI) *hsm {
	u = u.HSM()
	name := u.String()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hsms == nil {
		k.hsms = map[string]*hsm{}
	}
	d := k.hsms[name]
	if d == nil {
		d = &hsm{uri: u, readPIN: k.ReadPIN}
		if d.readPIN == nil {
			d.readPIN = durable.ReadCredential
		}
		k.hsms[name] = d
	}
	return d
}

// OpenKey implements [ca.Keys].
func (k *Keys) OpenKey(uri string, pub crypto.PublicKey) (crypto.Signer, error) {
	u, err := Parse(uri)
	if err != nil {
		return nil, err
	}
	return &key{hsm: k.hsm(u), uri: u, pub: pub}, nil
}

// HSM implements [ca.Keys].
func (*Keys) HSM(uri string) (string, error) {
	u, err := Parse(uri)
	return u.HSM().String(), err
}

// CreateKey implements [ca.Keys]. If the URI names a key by object or id, that
// one is taken, which must be there.
func (k *Keys) CreateKey(_ context.Context, uri, issuer string, alg ca.Algorithm) (crypto.Signer, string, error) {
	u, err := Parse(uri)
	if err != nil {
		return nil, "", err
	}
	d := k.hsm(u)
	var der []byte
	if u.NamesKey() {
		err = d.call(module.Public, u.key(), &der, callLimit)
	} else {
		u.Object, u.ID = "postern "+issuer, make([]byte, 16)
		rand.Read(u.ID) // never fails
		args, bad := generation(alg)
		if bad != nil {
			return nil, "", bad
		}
		args.Key = u.key()
		err = d.call(module.Generate, args, &der, generateLimit)
	}
	if err != nil {
		return nil, "", err
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err == nil {
		err = ca.CheckKey(pub)
	}
	if err != nil {
		return nil, "", postern.Errorf(postern.Invalid, "the key %s: %w", u, err)
	}
	return &key{hsm: d, uri: u, pub: pub}, u.String(), nil
}

// generation returns what key is made for an algorithm.
func generation(alg ca.Algorithm) (module.GenerateArgs, error) {
	switch alg {
	case ca.P256, "":
		return module.GenerateArgs{Curve: module.P256}, nil
	case ca.P384:
		return module.GenerateArgs{Curve: module.P384}, nil
	case ca.RSA3072:
		return module.GenerateArgs{Bits: 3072}, nil
	case ca.RSA4096:
		return module.GenerateArgs{Bits: 4096}, nil
	}
	return module.GenerateArgs{}, postern.Errorf(postern.Invalid, "a key of type %s cannot be made in an HSM",
		alg).WithHint("use %s", ca.P256)
}
