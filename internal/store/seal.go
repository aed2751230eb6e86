package store

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"github.com/postern-project/postern"
)

// A sealed value is
//
//	version 1 | key id 4 | nonce 12 | ciphertext | tag 16
//
// AES-256-GCM under a key derived (HKDF-SHA256) from the key-encrypting key for
// the purpose alone; the purpose and the identifier are additional data. The
// key id is derived too: it identifies the key and reveals nothing about it.
const (
	sealVersion  = 1
	sealKeyID    = 4
	sealNonce    = 12
	sealOverhead = 1 + sealKeyID + sealNonce + 16
)

// sealer holds the key that seals, first, and the old ones that still open.
type sealer []*kek

type kek struct {
	key [32]byte
	id  [sealKeyID]byte

	mu    sync.Mutex
	aeads map[string]cipher.AEAD // by purpose
}

func newSealer(key [32]byte, old [][32]byte) (sealer, error) {
	var s sealer
	for _, k := range append([][32]byte{key}, old...) {
		id, err := hkdf.Key(sha256.New, k[:], nil, "postern key id", sealKeyID)
		if err != nil {
			return nil, err
		}
		s = append(s, &kek{key: k, id: [sealKeyID]byte(id), aeads: map[string]cipher.AEAD{}})
	}
	return s, nil
}

// aead returns the cipher of a purpose.
func (k *kek) aead(purpose string) (cipher.AEAD, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.aeads[purpose]; a != nil {
		return a, nil
	}
	sub, err := hkdf.Key(sha256.New, k.key[:], nil, "postern seal "+purpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(sub)
	if err != nil {
		return nil, err
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	k.aeads[purpose] = a
	return a, nil
}

// bound returns the additional data that binds a sealed value to its place.
func bound(purpose, id string) []byte {
	b := []byte{sealVersion}
	b = binary.BigEndian.AppendUint32(b, uint32(len(purpose)))
	b = append(b, purpose...)
	return append(b, id...)
}

// Seal encrypts a secret for the place where it is kept: purpose names the
// table and column, in constant words ("otp key"), id the row. Only the same
// purpose and id open it.
func (db *DB) Seal(purpose, id string, plaintext []byte) ([]byte, error) {
	return db.seals.Load().seal(purpose, id, plaintext)
}

// Unseal decrypts what [DB.Seal] returned for the same purpose and id. It fails
// with [postern.Internal] if the value was changed, moved to another place or
// sealed under a key that was not given.
func (db *DB) Unseal(purpose, id string, sealed []byte) ([]byte, error) {
	return db.seals.Load().unseal(purpose, id, sealed)
}

func (s sealer) seal(purpose, id string, plaintext []byte) ([]byte, error) {
	a, err := s[0].aead(purpose)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, sealOverhead+len(plaintext))
	out = append(out, sealVersion)
	out = append(out, s[0].id[:]...)
	out = out[:1+sealKeyID+sealNonce]
	nonce := out[1+sealKeyID:]
	rand.Read(nonce) // never fails
	return a.Seal(out, nonce, plaintext, bound(purpose, id)), nil
}

func (s sealer) unseal(purpose, id string, sealed []byte) ([]byte, error) {
	if len(sealed) < sealOverhead || sealed[0] != sealVersion {
		return nil, postern.Errorf(postern.Internal, "unseal %s %q: not a sealed value", purpose, id)
	}
	for _, k := range s {
		if !bytes.Equal(sealed[1:1+sealKeyID], k.id[:]) {
			continue
		}
		a, err := k.aead(purpose)
		if err != nil {
			return nil, err
		}
		rest := sealed[1+sealKeyID:]
		plain, err := a.Open(nil, rest[:sealNonce], rest[sealNonce:], bound(purpose, id))
		if err != nil {
			return nil, postern.Errorf(postern.Internal, "unseal %s %q: changed, or moved here from elsewhere",
				purpose, id)
		}
		return plain, nil
	}
	return nil, postern.Errorf(postern.Internal, "unseal %s %q: sealed under another key-encrypting key", purpose, id).
		WithHint("this database belongs to another key; give the key file that was made with it")
}

// current reports whether a value is sealed under the newest key.
func (s sealer) current(sealed []byte) bool {
	return len(sealed) >= sealOverhead && bytes.Equal(sealed[1:1+sealKeyID], s[0].id[:])
}

// sealedColumn is a column whose values are sealed. The identifier that a value
// is bound to is the text of the id columns, joined by "/".
type sealedColumn struct {
	table, column, purpose string
	id                     []string
}

// sealedColumns lists every sealed column, for Rewrap.
var sealedColumns = []sealedColumn{
	{"keys", "sealed", purposeKey, []string{"name"}},
	{"acme_external_keys", "sealed", purposeACMEKey, []string{"id"}},
	{"otp_keys", "sealed", purposeOTPKey, []string{"public_id"}},
	{"otp_clients", "sealed", purposeOTPClient, []string{"CAST(id AS TEXT)"}},
	{"portal_mail", "sealed", purposePortalMail, []string{"id"}},
	{"otp_outside", "sealed", purposeOTPUpstream, []string{"CAST(id AS TEXT)"}},
	{"otp_oath", "sealed", purposeOATH, []string{"kind", "id"}},
	{"ca_issuers", "sealed_key", purposeCAKey, []string{"id"}},
}

// rewrapPage is how many rows one transaction of Rewrap looks at.
const rewrapPage = 200

// Rewrap seals every value again that is sealed under an old key, while the
// database is in use, and returns how many there were. Afterwards the old keys
// are not needed any more.
func (db *DB) Rewrap(ctx context.Context) (int, error) {
	total := 0
	for _, c := range sealedColumns {
		after := make([]string, len(c.id))
		for more := true; more; {
			var n int
			var last []string
			err := db.Write(ctx, func(ctx context.Context, tx *Tx) error {
				var err error
				n, last, err = c.rewrap(ctx, tx, after)
				return err
			})
			if err != nil {
				return total, fmt.Errorf("seal %s.%s again: %w", c.table, c.column, err)
			}
			total += n
			after, more = last, last != nil
		}
	}
	return total, nil
}

// sealedRow is one row of a sealed column.
type sealedRow struct {
	id    []string
	value []byte
}

// rewrap seals the page of rows after an id and returns how many it sealed, and
// the id to go on from, or nil after the last page.
func (c sealedColumn) rewrap(ctx context.Context, tx *Tx, after []string) (sealed int, last []string, err error) {
	rows, err := c.page(ctx, tx, after)
	if err != nil {
		return 0, nil, err
	}
	for _, r := range rows {
		if tx.db.seals.Load().current(r.value) {
			continue
		}
		id := strings.Join(r.id, "/")
		plain, err := tx.db.Unseal(c.purpose, id, r.value)
		if err != nil {
			return 0, nil, err
		}
		value, err := tx.db.Seal(c.purpose, id, plain)
		if err != nil {
			return 0, nil, err
		}
		where, args := c.where("=", r.id, 2)
		if _, err := tx.Exec(ctx, `UPDATE `+c.table+` SET `+c.column+` = $1
			WHERE `+where, append([]any{value}, args...)...); err != nil {
			return 0, nil, err
		}
		sealed++
	}
	if len(rows) < rewrapPage {
		return sealed, nil, nil
	}
	return sealed, rows[len(rows)-1].id, nil
}

func (c sealedColumn) page(ctx context.Context, tx *Tx, after []string) ([]sealedRow, error) {
	where, args := c.where(">", after, 1)
	list := strings.Join(c.id, ", ")
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT %s, %s FROM %s WHERE %s IS NOT NULL AND %s ORDER BY %s LIMIT %d`,
		list, c.column, c.table, c.column, where, list, rewrapPage), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []sealedRow
	for rows.Next() {
		r := sealedRow{id: make([]string, len(c.id))}
		dest := make([]any, 0, len(c.id)+1)
		for i := range r.id {
			dest = append(dest, &r.id[i])
		}
		if err := rows.Scan(append(dest, &r.value)...); err != nil {
			return nil, err
		}
		page = append(page, r)
	}
	return page, rows.Err()
}

// where returns a comparison of the id columns with values, whose placeholders
// start at $first.
func (c sealedColumn) where(op string, values []string, first int) (string, []any) {
	marks, args := make([]string, len(values)), make([]any, len(values))
	for i, v := range values {
		marks[i], args[i] = fmt.Sprintf("$%d", first+i), v
	}
	return fmt.Sprintf("(%s) %s (%s)", strings.Join(c.id, ", "), op, strings.Join(marks, ", ")), args
}
