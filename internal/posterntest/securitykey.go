package posterntest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"io"
	"math/big"
	"testing"

	"golang.org/x/crypto/ssh"
)

// SecurityKey signs for SSH as a FIDO2 key does (OpenSSH's PROTOCOL.u2f). What it says of
// itself may be set before each signature.
type SecurityKey struct {
	Touched  bool // user presence
	Verified bool // user verification: its PIN was right
	Counter  uint32
	// Application is what it signs for, which its public key names, too.
	Application string

	key    crypto.Signer
	public ssh.PublicKey
}

// NewSecurityKey makes a key of Ed25519, or of P-256, which was touched and has
// verified its user.
func NewSecurityKey(t testing.TB, ecdsaKey bool) *SecurityKey {
	t.Helper()
	k := &SecurityKey{Touched: true, Verified: true, Application: "ssh:"}
	var blob []byte
	if ecdsaKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		k.key = key
		blob = ssh.Marshal(struct {
			Name, Curve string
			Point       []byte
			Application string
		}{ssh.KeyAlgoSKECDSA256, "nistp256", point, k.Application})
	} else {
		public, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k.key = key
		blob = ssh.Marshal(struct {
			Name        string
			Key         []byte
			Application string
		}{ssh.KeyAlgoSKED25519, public, k.Application})
	}
	var err error
	if k.public, err = ssh.ParsePublicKey(blob); err != nil {
		t.Fatal(err)
	}
	return k
}

// PublicKey is that of an ssh.Signer.
func (k *SecurityKey) PublicKey() ssh.PublicKey { return k.public }

// Sign is that of an ssh.Signer.
func (k *SecurityKey) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	k.Counter++
	const userPresent, userVerified = 1, 4
	var flags byte
	if k.Touched {
		flags |= userPresent
	}
	if k.Verified {
		flags |= userVerified
	}
	rest := binary.BigEndian.AppendUint32([]byte{flags}, k.Counter)
	application, message := sha256.Sum256([]byte(k.Application)), sha256.Sum256(data)
	signed := append(append(application[:], rest...), message[:]...)
	if _, ok := k.key.(ed25519.PrivateKey); ok {
		blob, err := k.key.Sign(random, signed, crypto.Hash(0))
		return &ssh.Signature{Format: k.public.Type(), Blob: blob, Rest: rest}, err
	}
	digest := sha256.Sum256(signed)
	der, err := k.key.Sign(random, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	return &ssh.Signature{Format: k.public.Type(), Blob: ssh.Marshal(rs), Rest: rest}, nil
}
