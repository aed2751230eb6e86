//go:build cgo

package module

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Module is a module and an open token. Its methods are for net/rpc, which calls
// many at once, after Open.
type Module struct {
	ctx  *pkcs11.Ctx
	slot uint
	pin  string

	sessions chan pkcs11.SessionHandle // that are free
	spare    chan None                 // one for each that may still be opened

	mu   sync.Mutex
	keys map[string]keyHandle
	one  sync.Mutex // for keys that ask for the PIN each time
}

// keyHandle is where a private key is.
type keyHandle struct {
	object pkcs11.ObjectHandle
	always bool // CKA_ALWAYS_AUTHENTICATE: it asks for the PIN each time
}

// maxSessions bounds how many signatures are made at once, unless the token has
// a lower bound.
const maxSessions = 8

// Open loads the module, finds the token and logs in.
func (m *Module) Open(a OpenArgs, _ *None) error {
	m.ctx, m.pin, m.keys = pkcs11.New(a.Path), a.PIN, map[string]keyHandle{}
	if m.ctx == nil {
		return ErrNoModule
	}
	if err := m.ctx.Initialize(); err != nil {
		return err
	}
	info, err := m.find(a.Token)
	if err != nil {
		return err
	}
	most := maxSessions
	if n := info.MaxSessionCount; n > 1 && n-1 < maxSessions { // the one here stays open
		most = int(n - 1)
	}
	m.sessions, m.spare = make(chan pkcs11.SessionHandle, most), make(chan None, most)
	for range most {
		m.spare <- None{}
	}
	session, err := m.ctx.OpenSession(m.slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil || info.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return err
	}
	if m.pin == "" && info.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH == 0 {
		return ErrNoPIN
	}
	return m.login(session, pkcs11.CKU_USER)
}

func (m *Module) login(s pkcs11.SessionHandle, user uint) error {
	err := m.ctx.Login(s, user, m.pin)
	switch code, _ := errors.AsType[pkcs11.Error](err); code {
	case pkcs11.CKR_USER_ALREADY_LOGGED_IN:
		return nil
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE:
		return ErrWrongPIN
	case pkcs11.CKR_PIN_LOCKED:
		return ErrLocked
	}
	return err
}

// find looks for the one token that is as wanted.
func (m *Module) find(want map[string]string) (found pkcs11.TokenInfo, err error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return found, err
	}
	matches := 0
	for _, slot := range slots {
		info, err := m.ctx.GetTokenInfo(slot)
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue // pulled out in this moment, or blank
		}
		is := map[string]string{
			"token": info.Label, "manufacturer": info.ManufacturerID, "model": info.Model,
			"serial": info.SerialNumber,
		}
		if matching(is, want) {
			found, m.slot = info, slot
			matches++
		}
	}
	switch matches {
	case 0:
		return found, ErrNoToken
	case 1:
		return found, nil
	}
	return found, ErrTokens
}

func matching(is, want map[string]string) bool {
	for name, value := range want {
		if strings.TrimRight(is[name], " \x00") != value {
			return false
		}
	}
	return true
}

// with lends a session to f. After an error it is not used again: the process is
// about to be.
func (m *Module) with(f func(pkcs11.SessionHandle) error) error {
	var s pkcs11.SessionHandle
	select {
	case s = <-m.sessions:
	default:
		select {
		case s = <-m.sessions:
		case <-m.spare:
			var err error
			if s, err = m.ctx.OpenSession(m.slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
				m.spare <- None{}
				return err
			}
		}
	}
	defer func() { m.sessions <- s }()
	return f(s)
}

// Find looks for a private key.
func (m *Module) Find(a Key, _ *None) error {
	return m.with(func(s pkcs11.SessionHandle) error {
		_, err := m.lookUp(s, pkcs11.CKO_PRIVATE_KEY, a)
		return err
	})
}

// Sign signs with a private key: ECDSA over a digest, or RSA over a DigestInfo.
func (m *Module) Sign(a SignArgs, out *[]byte) error {
	mechanism := uint(pkcs11.CKM_ECDSA)
	if a.RSA {
		mechanism = pkcs11.CKM_RSA_PKCS
	}
	return m.with(func(s pkcs11.SessionHandle) error {
		k, err := m.key(s, a.Key)
		if err != nil {
			return err
		}
		if k.always {
			m.one.Lock()
			defer m.one.Unlock()
		}
		if err := m.ctx.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, k.object); err != nil {
			return err
		}
		if k.always {
			if err := m.login(s, pkcs11.CKU_CONTEXT_SPECIFIC); err != nil {
				return err
			}
		}
		*out, err = m.ctx.Sign(s, a.Data)
		return err
	})
}

func (m *Module) key(s pkcs11.SessionHandle, want Key) (keyHandle, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := want.Label + "\x00" + string(want.ID)
	if k, ok := m.keys[name]; ok {
		return k, nil
	}
	object, err := m.lookUp(s, pkcs11.CKO_PRIVATE_KEY, want)
	if err != nil {
		return keyHandle{}, err
	}
	always, _ := m.attribute(s, object, pkcs11.CKA_ALWAYS_AUTHENTICATE) // not all know it
	k := keyHandle{object, len(always) > 0 && always[0] != 0}
	m.keys[name] = k
	return k, nil
}

// lookUp returns the one object of a class that has the label and the ID.
func (m *Module) lookUp(s pkcs11.SessionHandle, class uint, want Key) (pkcs11.ObjectHandle, error) {
	tmpl := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if want.Label != "" {
		tmpl = append(tmpl, pkcs11.NewAttribute(pkcs11.CKA_LABEL, want.Label))
	}
	if len(want.ID) > 0 {
		tmpl = append(tmpl, pkcs11.NewAttribute(pkcs11.CKA_ID, want.ID))
	}
	if err := m.ctx.FindObjectsInit(s, tmpl); err != nil {
		return 0, err
	}
	list, _, err := m.ctx.FindObjects(s, 2)
	if err := errors.Join(err, m.ctx.FindObjectsFinal(s)); err != nil {
		return 0, err
	}
	switch len(list) {
	case 0:
		return 0, ErrNoKey
	case 1:
		return list[0], nil
	}
	return 0, ErrKeys
}

func (m *Module) attribute(s pkcs11.SessionHandle, object pkcs11.ObjectHandle, kind uint) ([]byte, error) {
	list, err := m.ctx.GetAttributeValue(s, object, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
	if err != nil {
		return nil, err
	}
	return list[0].Value, nil
}

// Generate makes a key that cannot leave the HSM, and returns its public half
// in PKIX form.
func (m *Module) Generate(a GenerateArgs, out *[]byte) error {
	s, err := m.ctx.OpenSession(m.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	both := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, a.Key.Label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, a.Key.ID),
	}
	public := append(both[:len(both):len(both)], pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true))
	private := append(
		both[:len(both):len(both)],
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
	)
	mechanism := uint(pkcs11.CKM_EC_KEY_PAIR_GEN)
	if a.Curve != nil {
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, a.Curve))
	} else {
		mechanism = pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, a.Bits),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	}
	pub, key, err := m.ctx.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, public,
		private)
	if err != nil {
		return err
	}
	if can, err := m.attribute(s, key, pkcs11.CKA_EXTRACTABLE); err != nil || len(can) == 0 || can[0] != 0 {
		return errors.New("it made a key that can be taken out of it")
	}
	if *out, err = m.public(s, pub); err != nil {
		return err
	}
	return m.ctx.CloseSession(s)
}

// Public returns the public half of a private key that is there, in PKIX form.
func (m *Module) Public(a Key, out *[]byte) error {
	return m.with(func(s pkcs11.SessionHandle) error {
		private, err := m.lookUp(s, pkcs11.CKO_PRIVATE_KEY, a)
		if err != nil {
			return err
		}
		half := a
		if id, err := m.attribute(s, private, pkcs11.CKA_ID); err == nil && len(id) > 0 {
			half = Key{ID: id} // the halves' labels may differ
		}
		public, err := m.lookUp(s, pkcs11.CKO_PUBLIC_KEY, half)
		if err != nil {
			return fmt.Errorf("the key's public half: %w", err)
		}
		*out, err = m.public(s, public)
		return err
	})
}

func (m *Module) public(s pkcs11.SessionHandle, object pkcs11.ObjectHandle) ([]byte, error) {
	pub, err := m.rsaPublic(s, object)
	if err != nil {
		pub, err = m.ecPublic(s, object)
	}
	if err != nil {
		return nil, fmt.Errorf("its public key, neither RSA nor ECDSA on a NIST curve: %w", err)
	}
	return x509.MarshalPKIXPublicKey(pub)
}

func (m *Module) rsaPublic(s pkcs11.SessionHandle, object pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	n, err := m.attribute(s, object, pkcs11.CKA_MODULUS)
	if err != nil {
		return nil, err
	}
	raw, err := m.attribute(s, object, pkcs11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, err
	}
	e := new(big.Int).SetBytes(raw)
	if len(n) == 0 || e.BitLen() > 31 {
		return nil, errors.New("not an RSA key")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(e.Int64())}, nil
}

func (m *Module) ecPublic(s pkcs11.SessionHandle, object pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	params, err := m.attribute(s, object, pkcs11.CKA_EC_PARAMS)
	if err != nil {
		return nil, err
	}
	point, err := m.attribute(s, object, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	// An OCTET STRING with the point; from older modules the point alone.
	in, inner := cryptobyte.String(point), []byte(nil)
	if in.ReadASN1Bytes(&inner, asn1.OCTET_STRING) && in.Empty() {
		point = inner
	}
	for name, curve := range map[elliptic.Curve][]byte{
		elliptic.P256(): P256, elliptic.P384(): P384,
		elliptic.P521(): P521,
	} {
		if bytes.Equal(params, curve) {
			return ecdsa.ParseUncompressedPublicKey(name, point)
		}
	}
	return nil, errors.New("unknown curve")
}
