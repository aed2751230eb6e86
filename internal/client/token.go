package client

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/otp"
)

// maxTouches bounds how many codes one call of Touch makes.
const maxTouches = 1000

// NewToken makes a software token in a new file of mode 0600. Its public ID is
// random for "". It fails with postern.Conflict if the file exists.
func NewToken(path, publicID string) (*otp.SoftToken, error) {
	t := otp.NewSoftToken()
	if publicID != "" {
		t.PublicID = publicID
	}
	if !otp.ValidPublicID(t.PublicID) {
		return nil, postern.Errorf(postern.Invalid, "%q is not a public ID", t.PublicID)
	}
	b, err := encodeToken(t)
	if err != nil {
		return nil, err
	}
	switch err := durable.Create(path, b, 0o600); {
	case errors.Is(err, fs.ErrExist):
		return nil, postern.Errorf(postern.Conflict, "%s is there already", path)
	case err != nil:
		return nil, postern.Errorf(postern.Invalid, "%w", err)
	}
	return t, nil
}

// ReadToken reads a software token. A file that other users can read is refused.
func ReadToken(path string) (*otp.SoftToken, error) {
	b, err := durable.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, postern.Errorf(postern.NotFound, "%w", err).WithHint("make a software token")
	}
	if err != nil {
		return nil, err
	}
	t, err := decodeToken(b)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "%s is not a software token", path)
	}
	return t, nil
}

// Touch returns the next n codes of a software token, 1 to 1000. They are used up
// on disk before it returns.
func Touch(path string, n int) (codes []string, err error) {
	if n < 1 || n > maxTouches {
		return nil, postern.Errorf(postern.Invalid, "touch it 1 to %d times", maxTouches)
	}
	err = changeToken(path, func(t *otp.SoftToken) error {
		for range n {
			c, err := t.Touch(time.Now())
			if err != nil {
				return err
			}
			codes = append(codes, c.Modhex())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// PlugIn unplugs a software token and plugs it in again.
func PlugIn(path string) error {
	return changeToken(path, func(t *otp.SoftToken) error { return t.PowerUp(time.Now()) })
}

// changeToken changes the token in a file, one process at a time. The file is on
// disk before changeToken returns.
func changeToken(path string, f func(*otp.SoftToken) error) error {
	if _, err := ReadToken(path); err != nil { // before there is a lock beside it
		return err
	}
	// A file that is open cannot be replaced on Windows, so the lock is another.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return postern.Errorf(postern.Unavailable, "lock %s: %w", path, err)
	}
	defer lock.Close()
	if err := system.Lock(lock); err != nil {
		return postern.Errorf(postern.Unavailable, "lock %s: %w", path, err)
	}
	t, err := ReadToken(path)
	if err != nil {
		return err
	}
	if err := f(t); err != nil {
		return postern.Errorf(postern.Conflict, "%s: %w", path, err)
	}
	b, err := encodeToken(t)
	if err != nil {
		return err
	}
	return durable.Replace(path, b, 0o600)
}

// tokenFile is a software token as its file holds it.
type tokenFile struct {
	PublicID  string    `json:"public_id"`
	PrivateID string    `json:"private_id"`
	Key       string    `json:"key"`
	Counter   uint16    `json:"counter"`
	Use       uint8     `json:"use"`
	Clock     uint32    `json:"clock"`
	Powered   time.Time `json:"powered,omitzero"`
}

func encodeToken(t *otp.SoftToken) ([]byte, error) {
	b, err := json.MarshalIndent(tokenFile{
		PublicID: t.PublicID, PrivateID: hex.EncodeToString(t.Secret.PrivateID[:]),
		Key:     hex.EncodeToString(t.Secret.Key[:]),
		Counter: t.Counter, Use: t.Use, Clock: t.Clock, Powered: t.Powered,
	}, "", "  ")
	return append(b, '\n'), err
}

func decodeToken(b []byte) (*otp.SoftToken, error) {
	var f tokenFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	t := &otp.SoftToken{PublicID: f.PublicID, Counter: f.Counter, Use: f.Use, Clock: f.Clock, Powered: f.Powered}
	n, err1 := hex.Decode(t.Secret.PrivateID[:], []byte(f.PrivateID[:min(len(f.PrivateID), 12)]))
	m, err2 := hex.Decode(t.Secret.Key[:], []byte(f.Key[:min(len(f.Key), 32)]))
	if err1 != nil || err2 != nil || n != 6 || m != 16 || !otp.ValidPublicID(f.PublicID) {
		return nil, errors.New("not a token")
	}
	return t, nil
}
