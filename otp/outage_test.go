package otp_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// outage is a server whose database breaks and, perhaps, comes back.
type outage struct {
	*server
	tok *otp.SoftToken
}

// newOutage makes a database at url with a key in it, and starts a server.
func newOutage(t *testing.T, url string) *outage {
	o := &outage{server: newServer(t, url)}
	h := newRig(t, store.Config{URL: url}, otp.Config{})
	h.client1(t)
	o.tok = h.token(t, "")
	must(t, h.db.Close())
	o.start()
	o.works("at first")
	return o
}

func (o *outage) works(when string) {
	o.t.Helper()
	code := touch(o.t, o.tok)
	if got := o.present(code); got != otp.StatusOK {
		o.t.Fatalf("%s a fresh code is answered %q", when, got)
	}
	if got := o.present(code); got != otp.StatusReplayedOTP {
		o.t.Fatalf("%s a used code is answered %q", when, got)
	}
}

// broken shows fresh codes, each twice, and returns them. None may be accepted.
func (o *outage) broken(when string) (codes []string) {
	o.t.Helper()
	for range 5 {
		code := touch(o.t, o.tok)
		for range 2 {
			if got := o.present(code); got != otp.StatusBackendError {
				o.t.Errorf("%s a code is answered %q", when, got)
			}
		}
		codes = append(codes, code)
	}
	return codes
}

// recovered shows what was refused again: each may now be good, once.
func (o *outage) recovered(codes []string) {
	o.t.Helper()
	for _, code := range codes {
		accepted := 0
		for range 3 {
			if o.present(code) == otp.StatusOK {
				accepted++
			}
		}
		if accepted > 1 {
			o.t.Errorf("a code was accepted %d times", accepted)
		}
	}
	o.works("afterwards")
}

func TestDatabaseStoppedAndBack(t *testing.T) {
	pg := posterntest.StartPostgreSQL(t)
	o := newOutage(t, pg.Database())
	pg.Stop()
	codes := o.broken("with the database away")
	pg.Start()
	o.recovered(codes)
}

func TestDatabaseReadOnly(t *testing.T) {
	pg := posterntest.StartPostgreSQL(t)
	url := pg.Database()
	o := newOutage(t, url)
	// Every statement but the update of the counter works.
	pg.Exec(url,
		`CREATE FUNCTION read_only() RETURNS trigger LANGUAGE plpgsql AS `+
			`$$ BEGIN RAISE EXCEPTION 'read-only' USING ERRCODE = '25006'; END $$`)
	pg.Exec(url, "CREATE TRIGGER read_only BEFORE UPDATE ON otp_counters EXECUTE FUNCTION read_only()")
	codes := o.broken("with the database read-only")
	pg.Exec(url, "DROP TRIGGER read_only ON otp_counters")
	o.recovered(codes)
}

func TestDiskFull(t *testing.T) {
	dir := posterntest.Mounted(t, "-t", "tmpfs", "-o", "size=8m", "postern-test")
	o := newOutage(t, filepath.Join(dir, "postern.db"))
	filler := filepath.Join(dir, "filler")
	posterntest.Fill(t, filler)
	// What SQLite has allocated already may still be used.
	for i := 0; o.present(touch(t, o.tok)) == otp.StatusOK; i++ {
		if i == 5000 {
			t.Fatal("the disk does not get full")
		}
	}
	codes := o.broken("with the disk full")
	must(t, os.Remove(filler))
	o.recovered(codes)
}

// TestFileSystemTurnsReadOnly has the kernel find an error in the file system,
// which makes it read-only under the open database.
func TestFileSystemTurnsReadOnly(t *testing.T) {
	posterntest.NeedRoot(t)
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 16<<20))
	if out, err := exec.Command(posterntest.Need(t, "mkfs.ext4"), "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		posterntest.Missing(t, "needs loop devices")
	}
	dir := posterntest.Mounted(t, "-o", "loop,errors=remount-ro", image)
	o := newOutage(t, filepath.Join(dir, "postern.db"))
	t.Cleanup(o.kill) // before umount
	out, err := exec.Command("findmnt", "--noheadings", "--output", "SOURCE", dir).Output()
	must(t, err)
	device := filepath.Base(strings.TrimSpace(string(out)))
	must(t, os.WriteFile(fmt.Sprintf("/sys/fs/ext4/%s/trigger_fs_error", device), []byte("test"), 0o200))
	o.broken("with the file system read-only")
	o.kill()
}

// TestClockOff: what a code is worth does not hang on the server's clock, and
// setting it back brings no used code to life.
func TestClockOff(t *testing.T) {
	now := time.Now()
	h := newRig(t, store.Config{}, otp.Config{Now: func() time.Time { return now }})
	h.client1(t)
	h.people(t, "alice")
	tok := h.token(t, "alice")
	_, ask := h.checker(t, otp.CheckerConfig{Now: func() time.Time { return now }}, nil)
	totp := otp.NewOATH(postern.TOTP, "alice", "phone")
	must(t, h.otp.AddOATH(t.Context(), postern.Actor{}, totp))

	var used []string
	for _, off := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		now = time.Now().Add(off)
		code := touch(t, tok)
		if got, err := presentTo(http1, h.server.URL, code); got != otp.StatusOK || err != nil {
			t.Errorf("with the clock %s off a fresh code is answered %s, %v", off, got, err)
		}
		used = append(used, code)
		for _, c := range used {
			if got, err := presentTo(http1, h.server.URL, c); got != otp.StatusReplayedOTP || err != nil {
				t.Errorf("with the clock %s off a used code is answered %s, %v", off, got, err)
			}
		}
		if off != 0 {
			if _, err := ask("alice", totp.Code(time.Now())); err == nil {
				t.Errorf("with the clock %s off a TOTP code of now is accepted", off)
			}
			continue
		}
		code = totp.Code(now)
		first, second := error(nil), error(nil)
		if _, first = ask("alice", code); len(used) == 1 && first != nil {
			t.Errorf("a TOTP code: %v", first)
		}
		if _, second = ask("alice", code); second == nil {
			t.Error("a TOTP code is accepted twice")
		}
	}

	// A client does not accept the answer of a server whose clock is an hour off.
	client := func(skew time.Duration) error {
		now = time.Now().Add(time.Hour)
		c, err := otp.NewClient(otp.ClientConfig{
			ID: 1, Key: apiKey,
			URLs: []string{h.server.URL + "/wsapi/2.0/verify"}, Skew: skew,
		})
		must(t, err)
		defer c.Close()
		code, _ := otp.ParseCode(touch(t, tok))
		_, err = c.Verify(t.Context(), code)
		return err
	}
	if err := client(0); postern.CodeOf(err) != postern.Unavailable ||
		!strings.Contains(err.Error(), "differs from this one by 1h0m0s") {
		t.Errorf("a server an hour ahead: %v", err)
	}
	if err := client(2 * time.Hour); err != nil {
		t.Errorf("a server an hour ahead that may be: %v", err)
	}
}
