package front

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
)

// ownWord stands for Postern's own client CAs in a list of trusted files.
const ownWord = "postern"

// trust is a set of client CAs, with what a ticket is bound to. Revocation lists
// of other people's CAs are read again when their files change.
type trust struct {
	id          [sha256.Size]byte // of the CAs' certificates, and which are Postern's own
	own, others []*x509.Certificate
	lists       []string // files

	current atomic.Pointer[readTrust]
	looked  atomic.Int64 // when the files were last looked at, nanoseconds from the start
}

// readTrust is a trust with the lists as they were read, and what their files
// were like.
type readTrust struct {
	*gate.Trust
	files string
}

// lookEvery is how often the lists' files are looked at.
const lookEvery = time.Second

// now returns the set with the current lists. If they cannot be read, the old ones stay
// in use until they expire; then no certificate is accepted.
func (t *trust) now(now time.Time) *readTrust {
	r := t.current.Load()
	last, at := t.looked.Load(), sinceStart(now)
	if len(t.lists) == 0 || at-last < int64(lookEvery) || !t.looked.CompareAndSwap(last, at) {
		return r
	}
	if t.fileState() != r.files {
		_ = t.read() // the old ones stay
	}
	return t.current.Load()
}

// read reads the lists.
func (t *trust) read() error {
	files := t.fileState()
	lists, err := readLists(t.lists)
	if err == nil {
		t.current.Store(&readTrust{Trust: gate.NewTrust(t.own, t.others, lists), files: files})
	}
	return err
}

// fileState returns the size and time of each file, without reading them.
func (t *trust) fileState() string {
	var b strings.Builder
	for _, f := range t.lists {
		if info, err := os.Stat(f); err == nil {
			fmt.Fprintf(&b, "%d %d ", info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

// loadTrust reads a set of client CAs: Postern's own if no file is named.
func loadTrust(l *live, files, crls []string) (*trust, error) {
	var own, others []*x509.Certificate
	if len(files) == 0 {
		files = []string{ownWord}
	}
	for _, f := range files {
		if f == ownWord {
			own = l.clientCAs()
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
	h := sha256.New()
	h.Write([]byte{byte(len(own))})
	for _, c := range append(own[:len(own):len(own)], others...) {
		h.Write(c.Raw)
	}
	t := &trust{own: own, others: others, lists: crls}
	h.Sum(t.id[:0])
	return t, t.read()
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
