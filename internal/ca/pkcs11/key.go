package pkcs11

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca/pkcs11/module"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// key signs with a private key in an HSM. It stays usable when the HSM is unplugged
// and plugged in again. It is safe for concurrent use.
type key struct {
	hsm *hsm
	uri URI
	pub crypto.PublicKey
}

// Public implements [crypto.Signer].
func (k *key) Public() crypto.PublicKey { return k.pub }

// Check returns an Unavailable error unless the key can be used. It does not use it,
// since that may need a touch.
func (k *key) Check() error {
	return k.hsm.call(module.Find, k.uri.key(), &module.None{}, callLimit)
}

// Sign implements [crypto.Signer], for ECDSA and RSA with PKCS #1 v1.5. It fails
// with Unavailable while the HSM or the key is unavailable, and unless the HSM's
// answer is a signature by the key.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	args := module.SignArgs{Key: k.uri.key(), Data: digest}
	if _, args.RSA = k.pub.(*rsa.PublicKey); args.RSA {
		var err error
		if args.Data, err = digestInfo(digest, opts); err != nil {
			return nil, err
		}
	}
	var raw []byte
	if err := k.hsm.call(module.Sign, args, &raw, callLimit); err != nil {
		return nil, err
	}
	signature, err := k.checked(raw, digest, opts.HashFunc())
	if err != nil {
		return nil, k.hsm.unavailable(err)
	}
	return signature, nil
}

// checked returns the HSM's signature as X.509 writes it.
func (k *key) checked(raw, digest []byte, hash crypto.Hash) ([]byte, error) {
	signature, good := raw, false
	switch pub := k.pub.(type) {
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(pub, hash, digest, raw) == nil
	case *ecdsa.PublicKey:
		var err error
		if signature, err = ecdsaDER(raw); err != nil {
			return nil, err
		}
		good = ecdsa.VerifyASN1(pub, digest, signature)
	}
	if !good {
		return nil, errors.New("what it signed is not signed by this key: the key on it is another one")
	}
	return signature, nil
}

// ecdsaDER returns the two numbers of a signature, which PKCS#11 puts one after
// the other, as ECDSA-Sig-Value (RFC 3279 section 2.2.3).
func ecdsaDER(raw []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[:len(raw)/2]))
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[len(raw)/2:]))
	})
	return b.Bytes()
}

var hashOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
	crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2},
	crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
}

// digestInfo returns the DigestInfo of RFC 8017 section 9.2, which CKM_RSA_PKCS
// pads.
func digestInfo(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	oid := hashOIDs[opts.HashFunc()]
	if _, pss := opts.(*rsa.PSSOptions); pss || oid == nil {
		return nil, postern.Errorf(postern.Invalid, "a key in an HSM signs with SHA-2 and PKCS #1 v1.5 only")
	}
	return asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}{pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.NullRawValue}, digest})
}
