package posterntest

import (
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"

	_ "modernc.org/sqlite" // its database
)

// YubiserverKey is a key that a yubiserver is to know.
type YubiserverKey struct {
	PublicID  string // 12 letters
	PrivateID []byte
	AES       []byte
}

// Yubiserver starts Debian's yubiserver on a port of 127.0.0.1, with keys and the
// API client 1, whose key is 20 letters. The package ignores the option for its
// database, so it runs in a mount namespace with directories of the test's own;
// that needs root.
func Yubiserver(t testing.TB, port int, apiKey string, keys []YubiserverKey) {
	t.Helper()
	NeedRoot(t)
	Need(t, "yubiserver")
	Need(t, "unshare")
	dir := OpenDir(t)
	for _, d := range []string{"lib", "log"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	empty, err := os.ReadFile("/etc/yubiserver/yubiserver.sqlite.init")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "lib", "yubiserver.sqlite")
	if err := os.WriteFile(path, empty, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fillYubiserver(path, apiKey, keys); err != nil {
		t.Fatal(err)
	}
	// It runs as its package's user. With a database that it cannot write it
	// says OK to everything, replays included.
	if err := giveTo("yubiserver", filepath.Join(dir, "lib"), path, filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("mount --bind %[1]s/lib /var/lib/yubiserver && mount --bind %[1]s/log /var/log/yubiserver "+
		"&& yubiserver -p %[2]d && { trap 'exit 0' TERM; sleep infinity & wait; }", dir, port)
	Serve(t, port, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script)
}

func giveTo(name string, paths ...string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	for _, p := range paths {
		if err := errors.Join(err1, err2, os.Chown(p, uid, gid)); err != nil {
			return err
		}
	}
	return nil
}

func fillYubiserver(path, apiKey string, keys []YubiserverKey) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.Exec(`INSERT INTO apikeys (nickname, secret, id) VALUES ('test', ?, 1)`, apiKey); err != nil {
		return err
	}
	for i, k := range keys {
		if _, err := tx.Exec(`INSERT INTO yubikeys (nickname, publicname, created, internalname, aeskey, active,
			counter, time) VALUES (?, ?, '', ?, ?, 1, 1, 1)`,
			fmt.Sprint(i), k.PublicID, hex.EncodeToString(k.PrivateID), hex.EncodeToString(k.AES)); err != nil {
			return err
		}
	}
	return tx.Commit()
}
