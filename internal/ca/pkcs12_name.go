package ca

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"hash"
	"slices"
	"unicode/utf16"
)

// The parts of RFC 7292 section 4 that hold the name of a key.
type (
	pfx struct {
		Version  int
		AuthSafe p12Content
		MAC      p12MAC
	}
	p12Content struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit"`
	}
	p12MAC struct {
		Digest struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
		Salt       []byte
		Iterations int `asn1:"optional,default:1"`
	}
	p12Bag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue  `asn1:"tag:0,explicit"`
		Attributes []p12Attribute `asn1:"set,optional"`
	}
	p12Attribute struct {
		ID     asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
)

var (
	oidP12Data      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidFriendlyName = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
)

// nameKey gives the private key in a PKCS#12 file that go-pkcs12 wrote a
// friendlyName (RFC 2985 section 5.5.1), which that module does not write: the
// key's bag is in a part whose content is in the clear, and the MAC is made anew.
func nameKey(file []byte, password, name string) ([]byte, error) {
	var p pfx
	var parts []p12Content
	if err := unmarshalAll(file, &p); err != nil {
		return nil, err
	}
	if err := unmarshalOctets(p.AuthSafe, &parts); err != nil {
		return nil, err
	}
	for i, part := range parts {
		if !part.Type.Equal(oidP12Data) {
			continue
		}
		var bags []p12Bag
		if err := unmarshalOctets(part, &bags); err != nil {
			return nil, err
		}
		for j := range bags {
			bags[j].Attributes = append(bags[j].Attributes, friendlyName(name))
		}
		if _, err := parts[i].set(bags); err != nil {
			return nil, err
		}
	}
	safe, err := p.AuthSafe.set(parts)
	if err != nil {
		return nil, err
	}
	p.MAC.Digest.Digest = p.MAC.sum(safe, password)
	return asn1.Marshal(p)
}

// set makes a value, in DER, the content, and returns the DER.
func (c *p12Content) set(v any) ([]byte, error) {
	der, err := asn1.Marshal(v)
	if err != nil {
		return nil, err
	}
	octets, err := asn1.Marshal(der)
	c.Content = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: octets}
	return der, err
}

func unmarshalOctets(c p12Content, v any) error {
	var der []byte
	if err := unmarshalAll(c.Content.Bytes, &der); err != nil {
		return err
	}
	return unmarshalAll(der, v)
}

func unmarshalAll(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err == nil && len(rest) > 0 {
		err = errors.New("data behind the PKCS#12 structure")
	}
	return err
}

// friendlyName is the attribute of that name, a BMPString.
func friendlyName(name string) p12Attribute {
	return p12Attribute{ID: oidFriendlyName, Values: []asn1.RawValue{{Tag: asn1.TagBMPString, Bytes: bmpString(name)}}}
}

func bmpString(s string) (b []byte) {
	for _, c := range utf16.Encode([]rune(s)) {
		b = append(b, byte(c>>8), byte(c))
	}
	return b
}

// sum computes the MAC of the content: HMAC with a key that is derived from the
// password (RFC 7292 appendix B.2, ID 3).
func (m p12MAC) sum(content []byte, password string) []byte {
	algorithm := sha1.New // the one that the older importers know
	if m.Digest.Algorithm.Algorithm.Equal(oidSHA256) {
		algorithm = sha256.New
	}
	secret := append(bmpString(password), 0, 0)
	mac := hmac.New(algorithm, deriveMACKey(algorithm, secret, m.Salt, m.Iterations))
	mac.Write(content)
	return mac.Sum(nil)
}

// deriveMACKey is RFC 7292 appendix B.2 for ID 3 and one block of output, which is all
// that a MAC's key takes.
func deriveMACKey(algorithm func() hash.Hash, secret, salt []byte, iterations int) []byte {
	h := algorithm()
	fill := func(b []byte) []byte { // to a multiple of the block
		n := (len(b) + h.BlockSize() - 1) / h.BlockSize() * h.BlockSize()
		return slices.Repeat(b, n/len(b)+1)[:n]
	}
	h.Write(slices.Repeat([]byte{3}, h.BlockSize()))
	h.Write(fill(salt))
	h.Write(fill(secret))
	key := h.Sum(nil)
	for range iterations - 1 {
		h.Reset()
		h.Write(key)
		key = h.Sum(nil)
	}
	return key
}
