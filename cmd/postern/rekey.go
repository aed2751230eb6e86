package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/spf13/cobra"
)

// takenFile is where a running server leaves word that it knows the next key.
const takenFile = "kek.taken"

func newRekey(a *app) *cobra.Command {
	var others bool
	cmd := &cobra.Command{
		Use:   "rekey",
		Short: "Seal all secrets again under a new key-encrypting key",
		Long: `Makes a new key-encrypting key, seals every secret in the database again under it, and throws the old key away,
while the server goes on. Cut short, it is finished by running it again.

Where several servers share a database, the first run stops after making the new key, kek.next: copy that into
each server's state directory, run "postern run --reload" there, and go on with --others-know.`,
		Example: "  postern rekey",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.rekey(cmd.Context(), others) },
	}
	cmd.Flags().BoolVar(&others, "others-know", false, "the other servers of this database have kek.next and were reloaded")
	return cmd
}

func (a *app) rekey(ctx context.Context, others bool) error {
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	if err := ownKEK(dir); err != nil {
		return err
	}
	url, err := databaseURL(dir)
	if err != nil {
		return err
	}
	next := filepath.Join(dir, nextKEKFile)
	if err := writeOnce(next, newKEK(), 0o600); err != nil {
		return postern.Errorf(postern.Unavailable, "make the new key: %w", err)
	}
	if shared := url != filepath.Join(dir, databaseFile); shared && !others {
		fmt.Fprintf(a.out, "The new key is %s.\nCopy it into the state directory of every other server of this database, run \"postern run --reload\" there,\nand then here: postern rekey --others-know\n", next)
		return nil
	}
	keys, err := loadKEKs(dir)
	if err != nil {
		return err
	}
	if err := a.tellServer(ctx, dir, keys[0]); err != nil {
		return err
	}
	st, err := openState(ctx, dir, url, keys)
	if err != nil {
		return err
	}
	defer st.Close()
	n := 0
	for range 2 { // a secret may have been on its way to the database, still under the old key
		again, err := st.Store.Rewrap(ctx)
		if err != nil {
			return err
		}
		n += again
	}
	if err := os.Rename(next, filepath.Join(dir, kekFile)); err != nil {
		return postern.Errorf(postern.Unavailable, "put the new key in place: %w", err).WithHint("run postern rekey again: nothing is lost")
	}
	os.Remove(filepath.Join(dir, takenFile))
	_, err = fmt.Fprintf(a.out, "sealed %d secrets again; the new key is %s\n", n, filepath.Join(dir, kekFile))
	return err
}

// ownKEK reports whether the key-encrypting key is the state's own file, which
// is the one that can be replaced here.
func ownKEK(dir string) error {
	if os.Getenv("CREDENTIALS_DIRECTORY") != "" {
		return postern.Errorf(postern.Invalid, "the key-encrypting key is a systemd credential").WithHint("run postern rekey outside the service, or keep the key in the file kek")
	}
	if _, err := os.Stat(filepath.Join(dir, kdfFile)); err == nil {
		return postern.Errorf(postern.Invalid, "the key-encrypting key comes from a passphrase").WithHint("only a key kept in the file kek can be replaced")
	}
	if _, err := os.Stat(filepath.Join(dir, kekFile)); errors.Is(err, fs.ErrNotExist) {
		return noState(dir)
	}
	return nil
}

// tellServer makes the server that runs on the state take the new key, and
// waits until it has.
func (a *app) tellServer(ctx context.Context, dir string, key [32]byte) error {
	pid, err := runningPID(dir)
	if postern.CodeOf(err) == postern.NotFound && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
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
			return postern.Errorf(postern.Unavailable, "the server (process %d) has not taken the new key", pid).
				WithHint("see its log; nothing is lost: run postern rekey again, or stop the server first")
		case <-tick.C:
		}
	}
}

// keyName names a key without telling it.
func keyName(key [32]byte) string {
	sum := sha256.Sum256(append([]byte("postern key name "), key[:]...))
	return hex.EncodeToString(sum[:8])
}

// takeKeys makes a running server use the keys that are there now.
func (s *server) takeKeys() error {
	keys, err := loadKEKs(s.state.Dir)
	if err != nil {
		return err
	}
	if err := s.state.Store.SetKeys(keys[0], keys[1:]...); err != nil {
		return err
	}
	if len(keys) > 1 {
		return replaceFile(s.state.path(takenFile), []byte(keyName(keys[0])+"\n"), 0o600)
	}
	return nil
}
