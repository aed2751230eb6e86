package front

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
)

// ownWord stands for Postern's own client CAs in a list of trusted files.
const ownWord = "postern"

// trust is a set of client CAs, with what a ticket is bound to.
type trust struct {
	*gate.Trust
	hasLists bool
	id       [sha256.Size]byte // of the CAs' certificates, and which are Postern's own
}

// loadTrust reads a set of client CAs: Postern's own if no file is named.
func loadTrust(l *live, files, crls []string) (*trust, error) {
	var own, others []*x509.Certificate
	if len(files) == 0 {
		files = []string{ownWord}
	}
	for _, f := range files {
		if f == ownWord {
			own = l.ClientCAs
			continue
		}
		certs, err := readCertificates(f)
		if err != nil {
			return nil, err
		}
		others = append(others, certs...)
	}
	if len(own)+len(others) == 0 {
		return nil, postern.Errorf(postern.Invalid, "no client CA is known to this server").
			WithHint("name one with: trust FILE")
	}
	lists, err := readLists(crls)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	h.Write([]byte{byte(len(own))})
	for _, c := range append(own[:len(own):len(own)], others...) {
		h.Write(c.Raw)
	}
	t := &trust{Trust: gate.NewTrust(own, others, lists), hasLists: lists != nil}
	h.Sum(t.id[:0])
	return t, nil
}

func readLists(files []string) (*gate.RevocationLists, error) {
	if len(files) == 0 {
		return nil, nil
	}
	var contents [][]byte
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "revocation list: %w", err)
		}
		contents = append(contents, data)
	}
	return gate.ReadRevocationLists(contents...)
}

func readCertificates(file string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "client CA: %w", err)
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "client CA %s: %w", file, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, postern.Errorf(postern.Invalid, "client CA: no certificate in %s", file)
	}
	return out, nil
}
