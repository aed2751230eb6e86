package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern"
)

// Rekeyed says what Rekey did.
type Rekeyed struct {
	Next    string // the new key's file, which has to be taken elsewhere first; "" when done
	Servers bool   // it is for the other servers of the database, else for systemd
	Key     string // the file of the key that now seals everything
	Sealed  int    // how many secrets were sealed again
}

// RekeyOptions say how the key-encrypting key is replaced.
type RekeyOptions struct {
	OthersKnow bool   // the other servers of the database have the new key
	Passphrase []byte // the new one, where the key comes from a passphrase
}

// Rekey seals every secret in the database again under a new key-encrypting key,
// while the server goes on, and replaces the old key. Cut short, it is finished
// by another call.
//
// Where several servers share the database, it stops after making the new key unless
// o.OthersKnow. A key that is a systemd credential cannot be replaced from here: Rekey
// leaves the new key in a file, from which it is used, until a call that finds it to be
// the credential. A key from a passphrase is replaced by one from o.Passphrase, which is
// then in the file that $POSTERN_PASSPHRASE_FILE names.
func Rekey(ctx context.Context, dir string, o RekeyOptions) (Rekeyed, error) {
	source, err := sourceOf(dir)
	if err != nil {
		return Rekeyed{}, err
	}
	url, err := databaseURL(dir)
	if err != nil {
		return Rekeyed{}, err
	}
	next := filepath.Join(dir, nextKEKFile)
	if done, err := source.taken(dir, next); done || err != nil {
		return Rekeyed{Key: next}, err
	}
	if err := source.makeNext(dir, next, o.Passphrase); err != nil {
		return Rekeyed{}, err
	}
	if shared := url != filepath.Join(dir, DatabaseFile); shared && !o.OthersKnow {
		return Rekeyed{Next: next, Servers: true}, nil
	}
	keys, err := loadKeys(dir)
	if err != nil {
		return Rekeyed{}, err
	}
	if err := passToServer(ctx, dir, keys[0]); err != nil {
		return Rekeyed{}, err
	}
	n, err := sealAgain(ctx, dir, url)
	if err != nil {
		return Rekeyed{}, err
	}
	return source.finish(dir, next, o.Passphrase, n)
}

func sealAgain(ctx context.Context, dir, url string) (sealed int, err error) {
	s, err := open(ctx, dir, url)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for range 2 { // a secret may have been on its way to the database, still under the old key
		n, err := s.Store.Rewrap(ctx)
		if err != nil {
			return sealed, err
		}
		sealed += n
	}
	return sealed, nil
}

// Rekeying reports whether a change of the key-encrypting key was begun and not
// finished.
func (s *State) Rekeying() bool {
	_, err := os.Stat(s.Path(nextKEKFile))
	return err == nil
}

// passToServer makes the server that runs on the state use the new key, and
// waits until it does. Without a server there is nothing to do.
func passToServer(ctx context.Context, dir string, key [32]byte) error {
	pid, err := ServedBy(dir)
	if errors.Is(err, ErrNotServed) {
		return nil
	}
	if err != nil {
		return err
	}
	server, err := os.FindProcess(pid)
	if err == nil {
		err = server.Signal(syscall.SIGHUP)
	}
	if err != nil {
		return postern.Errorf(postern.Denied, "signal process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(filepath.Join(dir, takenFile))
		if err == nil && strings.TrimSpace(string(text)) == keyName(key) {
			return nil
		}
		select {
		case <-ctx.Done():
			return postern.Errorf(postern.Unavailable, "the server (process %d) does not use the new key", pid).
				WithHint("see its log; nothing is lost: change the key again, or stop the server first")
		case <-tick.C:
		}
	}
}

// keyName returns a name of a key that does not reveal it.
func keyName(key [32]byte) string {
	sum := sha256.Sum256(append([]byte("postern key name "), key[:]...))
	return hex.EncodeToString(sum[:8])
}

// TakeKeys makes an open state use the keys that are in its directory now, and notifies
// a waiting Rekey.
func (s *State) TakeKeys() error {
	keys, err := loadKeys(s.Dir)
	if err != nil {
		return err
	}
	if err := s.Store.SetKeys(keys[0], keys[1:]...); err != nil {
		return err
	}
	if len(keys) > 1 {
		return s.Replace(takenFile, []byte(keyName(keys[0])+"\n"), 0o600)
	}
	return nil
}
