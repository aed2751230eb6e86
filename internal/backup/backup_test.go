package backup_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/backup"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/otp"
)

// TestNoUsedCodeAfterARestore backs up while codes are accepted, restores, and presents
// each code again.
func TestNoUsedCodeAfterARestore(t *testing.T) {
	r := newRig(t, 6)
	stop := r.load()
	r.wait(20)
	var wg sync.WaitGroup
	made := make([]backup.Made, 2)
	to := t.TempDir()
	for i := range made { // two at once
		wg.Go(func() { made[i] = r.backup(backup.Options{To: to}) })
	}
	wg.Wait()
	r.wait(20)
	stop()
	if made[0].Path == made[1].Path {
		t.Fatalf("both are %s", made[0].Path)
	}
	empty(t, to, filepath.Base(made[0].Path), filepath.Base(made[1].Path))

	r.leave()
	for _, m := range made {
		restored := r.restore(m.Path)
		if restored.Disabled.Keys != len(r.tokens) || restored.Holds.People != 1 ||
			restored.Holds.Keys != int64(len(r.tokens)) {
			t.Errorf("restored %+v", restored)
		}
		if r.newer() == 0 {
			t.Error("every code was in the backup: nothing is tried")
		}
		r.replay()
		if err := r.st.Store.OTP().SetKeyStatus(t.Context(), r.tokens[0].PublicID,
			postern.CredentialActive); postern.CodeOf(err) != postern.Conflict {
			t.Errorf("enabled without a code: %v", err)
		}
		r.enable()
		r.replay()
		for _, token := range r.tokens {
			r.use(token)
		}
		report, err := r.st.VerifyLog(t.Context())
		must(t, err)
		if len(report.Problems) > 0 {
			t.Errorf("the timeline: %v", report.Problems)
		}
		r.leave()
	}
}

// TestAnyOtherRestoreIsNoticed puts back parts of a state in other ways, after a code was
// used, and presents it again.
func TestAnyOtherRestoreIsNoticed(t *testing.T) {
	copyTo := func(t *testing.T, from, to string) {
		must(t, os.RemoveAll(to))
		must(t, os.CopyFS(to, os.DirFS(from)))
		must(t, os.Chmod(filepath.Join(to, "kek"), 0o600))
	}
	for name, c := range map[string]struct {
		putBack func(t *testing.T, before, dir string)
	}{
		"the database": {putBack: func(t *testing.T, before, dir string) {
			must(t, os.Remove(filepath.Join(dir, state.DatabaseFile)))
			must(t, os.Link(filepath.Join(before, state.DatabaseFile), filepath.Join(dir, state.DatabaseFile)))
		}},
		"the state directory": {putBack: copyTo},
		"the state directory on another machine": {putBack: func(t *testing.T, before, dir string) {
			copyTo(t, before, dir)
			must(t, os.RemoveAll(state.SeenDir(dir)))
		}},
		"with a mark that is damaged": {putBack: func(t *testing.T, before, dir string) {
			copyTo(t, before, dir)
			must(t, os.WriteFile(filepath.Join(state.SeenDir(dir), "mark"), nil, 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1)
			must(t, r.st.Close())
			before := filepath.Join(t.TempDir(), "before")
			copyTo(t, r.dir, before)
			r.reopen()
			r.use(r.tokens[0])
			must(t, r.st.Close())
			c.putBack(t, before, r.dir)
			for range 2 { // the second start, too
				r.reopen()
				if r.newer() != 1 {
					t.Fatal("the code is known")
				}
				ok, err := r.accept(t.Context(), r.used[0])
				if ok || postern.CodeOf(err) != postern.Unavailable {
					t.Fatalf("accepted: %t, %v", ok, err)
				}
				for range 5 { // what else is written does not end it
					must(t, r.st.Store.Append(t.Context(), postern.Event{Kind: "test"}))
				}
			}
			_, err := r.st.AcceptRestored(t.Context(), false, event)
			must(t, err)
			r.replay()
			r.enable()
			r.replay()
		})
	}
}

// TestSeveralMarks keeps the mark in two places: the one that was not put back decides.
func TestSeveralMarks(t *testing.T) {
	here, far := filepath.Join(t.TempDir(), "here"), filepath.Join(t.TempDir(), "far")
	t.Setenv("POSTERN_SEEN", here+":"+far)
	r := newRig(t, 1)
	must(t, r.st.Close())
	before := t.TempDir()
	must(t, os.CopyFS(filepath.Join(before, "state"), os.DirFS(r.dir)))
	must(t, os.CopyFS(filepath.Join(before, "here"), os.DirFS(here)))
	r.reopen()
	r.use(r.tokens[0])
	must(t, r.st.Close())
	// The whole machine, but not what another one keeps.
	for from, to := range map[string]string{"state": r.dir, "here": here} {
		must(t, os.RemoveAll(to))
		must(t, os.CopyFS(to, os.DirFS(filepath.Join(before, from))))
	}
	must(t, os.Chmod(filepath.Join(r.dir, "kek"), 0o600))
	r.reopen()
	if ok, err := r.accept(t.Context(), r.used[0]); ok || err == nil {
		t.Fatal("accepted again")
	}
	// Without the far place nothing is known.
	must(t, os.Rename(far, far+".away"))
	r.reopen()
	if ok, err := r.accept(t.Context(), r.used[0]); ok || err == nil {
		t.Fatal("accepted again without the second mark")
	}
}

// TestAMarkThatFails has the mark's place fail for a while: no code is accepted, and all
// else goes on.
func TestAMarkThatFails(t *testing.T) {
	r := newRig(t, 1)
	must(t, r.st.Close())
	mark := filepath.Join(state.SeenDir(r.dir), "mark")
	must(t, os.Rename(mark, mark+".away"))
	must(t, os.Mkdir(mark, 0o700))
	r.reopen()
	code := r.touch(r.tokens[0])
	if ok, err := r.accept(t.Context(), code); ok || postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("accepted: %t, %v", ok, err)
	}
	must(t, r.st.Store.Append(t.Context(), postern.Event{Kind: "test"}))
	must(t, os.Remove(mark))
	must(t, os.Rename(mark+".away", mark))
	must(t, r.st.CheckRestored(t.Context()))
	r.use(r.tokens[0])
}

// TestADamagedBackupIsRefused changes bytes all over a backup, and cuts it.
func TestADamagedBackupIsRefused(t *testing.T) {
	r := newRig(t, 1)
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	for name, to := range map[string][]age.Recipient{"plain": nil, "encrypted": {identity.Recipient()}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			made := r.backup(backup.Options{To: filepath.Join(dir, "good"), Encrypt: to})
			good, err := os.ReadFile(made.Path)
			must(t, err)
			try := func(b []byte) error {
				path := filepath.Join(dir, "bad")
				must(t, os.WriteFile(path, b, 0o600))
				_, err := backup.Check(t.Context(), path, []age.Identity{identity})
				empty(t, dir, "bad", "good")
				return err
			}
			must(t, try(good))
			for at := 0; at < len(good); at += max(1, len(good)/80) {
				bad := bytes.Clone(good)
				bad[at] ^= 1 << (at % 8)
				if try(bad) == nil {
					t.Errorf("byte %d of %d was changed", at, len(good))
				}
			}
			for _, n := range []int{0, 1, 20, len(good) / 2, len(good) - 40, len(good) - 1} {
				if try(good[:n]) == nil {
					t.Errorf("cut to %d of %d bytes", n, len(good))
				}
			}
			if try(append(bytes.Clone(good), 0)) == nil {
				t.Error("a byte was added")
			}
		})
	}
}

// TestABackupIsOpenedByOthers reads one with age, zstd and tar.
func TestABackupIsOpenedByOthers(t *testing.T) {
	r := newRig(t, 1)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	run := func(name string, args ...string) []byte {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), posterntest.Need(t, name), args...).Output()
		must(t, err)
		return out
	}
	run("age-keygen", "-o", key)
	to, err := backup.Recipients([]string{strings.TrimSpace(string(run("age-keygen", "-y", key)))})
	must(t, err)
	made := r.backup(backup.Options{To: filepath.Join(dir, "b"), Encrypt: to})
	run("age", "-d", "-i", key, "-o", filepath.Join(dir, "b.zst"), made.Path)
	archive := tar.NewReader(bytes.NewReader(run("zstd", "-dc", filepath.Join(dir, "b.zst"))))
	var names []string
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		names = append(names, h.Name)
	}
	if got := strings.Join(names, " "); got != "manifest.json state/kek state/log.vkey state/postern.db" {
		t.Error(got)
	}
	ids, err := backup.Identities(key)
	must(t, err)
	_, err = backup.Check(t.Context(), made.Path, ids)
	must(t, err)
}

// TestBackupWhileTheKeyIsReplaced has each backup open with the key that is in it.
func TestBackupWhileTheKeyIsReplaced(t *testing.T) {
	r, to := newRig(t, 1), t.TempDir()
	done := make(chan error)
	go func() {
		var err error
		for n := 0; n < 15 && err == nil; n++ {
			_, err = state.Rekey(t.Context(), r.dir, state.RekeyOptions{})
		}
		done <- err
	}()
	for {
		made := r.backup(backup.Options{To: filepath.Join(to, "b")})
		_, err := backup.Check(t.Context(), made.Path, nil)
		must(t, err)
		select {
		case err := <-done:
			must(t, err)
			return
		default:
		}
	}
}

// TestOldBackupsAreRemoved keeps the newest, and what is not a backup of this state.
func TestOldBackupsAreRemoved(t *testing.T) {
	r, to := newRig(t, 0), t.TempDir()
	must(t, os.WriteFile(filepath.Join(to, "notes"), nil, 0o600))
	r.backup(backup.Options{To: to})
	r.backup(backup.Options{To: to})
	last := r.backup(backup.Options{To: to, Keep: 1})
	if last.Removed != 2 {
		t.Errorf("removed %d", last.Removed)
	}
	empty(t, to, "notes", filepath.Base(last.Path))

	// One whose name is of the future neither counts nor takes the place of the newest.
	series, _, _ := strings.Cut(filepath.Base(last.Path), time.Now().UTC().Format("2006"))
	future := series + "29991231T000000.000Z.tar.zst"
	must(t, os.WriteFile(filepath.Join(to, future), nil, 0o600))
	next := r.backup(backup.Options{To: to, Keep: 1})
	if next.Removed != 1 {
		t.Errorf("beside one of the future, removed %d", next.Removed)
	}
	empty(t, to, "notes", filepath.Base(next.Path), future)
}

// TestADatabaseElsewhere has the database where POSTERN_DATABASE says. A backup has it, and is
// restored only to where it is then used.
func TestADatabaseElsewhere(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "live.db")
	t.Setenv("POSTERN_DATABASE", elsewhere)
	r := newRig(t, 1)
	made := r.backup(backup.Options{To: t.TempDir()})
	r.use(r.tokens[0])
	r.leave()

	before, err := os.ReadFile(elsewhere)
	must(t, err)
	_, err = backup.Check(t.Context(), made.Path, nil)
	must(t, err)
	_, err = backup.Restore(t.Context(), made.Path, r.dir, nil, event)
	if postern.CodeOf(err) != postern.Conflict || !strings.Contains(postern.HintOf(err), "POSTERN_DATABASE") {
		t.Errorf("restored beside the database that is used: %v", err)
	}
	empty(t, r.dir, "run.pid")
	after, err := os.ReadFile(elsewhere)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the database that is used was changed")
	}

	t.Setenv("POSTERN_DATABASE", filepath.Join(r.dir, state.DatabaseFile))
	r.restore(made.Path)
	if r.newer() != 1 {
		t.Error("the database is not that of the backup")
	}
	r.replay()
}

// TestLinksOutOfTheStateAreLeftOut follows links within the state, and names the others.
func TestLinksOutOfTheStateAreLeftOut(t *testing.T) {
	r := newRig(t, 0)
	secret := filepath.Join(t.TempDir(), "shadow")
	must(t, os.WriteFile(secret, []byte("root's"), 0o600))
	up, err := filepath.Rel(r.dir, secret)
	must(t, err)
	must(t, os.Mkdir(filepath.Join(r.dir, "ca"), 0o700))
	for name, target := range map[string]string{
		"inside": "kek", "gone": "nothing", "ca/absolute": secret, "relative": up, "directory": filepath.Dir(secret),
	} {
		must(t, os.Symlink(target, filepath.Join(r.dir, name)))
	}
	made := r.backup(backup.Options{To: t.TempDir()})
	if got := strings.Join(made.LeftOut, " "); got != "ca/absolute directory relative" {
		t.Errorf("left out %q", got)
	}
	var names []string
	for _, f := range made.Files {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "inside kek log.vkey postern.db" {
		t.Errorf("it has %q", got)
	}
	r.leave()
	restored := r.restore(made.Path)
	if len(restored.LeftOut) != 3 {
		t.Errorf("the backup names %q", restored.LeftOut)
	}
}

// TestWhatIsValidOnceIsVoid restores what people have besides YubiKeys.
func TestWhatIsValidOnceIsVoid(t *testing.T) {
	r := newRig(t, 0)
	ctx, now := t.Context(), time.Now()
	add := func(kind postern.CredentialKind) *otp.OATH {
		o := otp.NewOATH(kind, "alice", "")
		must(t, r.st.Store.OTP().AddOATH(ctx, postern.Actor{}, o))
		return o
	}
	totp, hotp := add(postern.TOTP), add(postern.HOTP)
	code := [32]byte{1}
	must(t, r.st.Store.OTP().SetBackupCodes(ctx, postern.Actor{}, "alice", [][32]byte{code}))
	link := portal.Link{Hash: [32]byte{2}, Person: "alice", Created: now, Expires: now.Add(time.Hour)}
	must(t, r.st.Store.Portal().PutLink(ctx, postern.Actor{}, portal.Fresh{
		Link: link, Event: postern.Event{Kind: "test"},
	}))
	guess := func(o *otp.OATH) otp.Verdict {
		g, err := r.st.Store.OTP().Guess(ctx, otp.Guess{
			Person: "alice", Code: o.Code(now), Now: now,
			Events: func(postern.Link) []postern.Event { return []postern.Event{{Kind: "test"}} },
		})
		must(t, err)
		return g.Verdict
	}
	use := func() (backupCode otp.Verdict, link error) {
		events := []postern.Event{{Kind: "test"}}
		backupCode, err := r.st.Store.OTP().UseBackupCode(ctx, "alice", code, events)
		must(t, err)
		return backupCode, r.st.Store.Portal().AnswerLink(ctx, postern.Actor{}, [32]byte{2}, now, nil, events[0])
	}
	made := r.backup(backup.Options{To: t.TempDir()})
	for _, o := range []*otp.OATH{totp, hotp} {
		if v := guess(o); v != otp.Accepted {
			t.Fatalf("%s before: %v", o.Kind, v)
		}
	}
	if v, err := use(); v != otp.Accepted || err != nil {
		t.Fatalf("before: %v, %v", v, err)
	}
	r.leave()
	restored := r.restore(made.Path)
	if d := restored.Disabled; d.Keys != 1 || d.Codes != 1 || d.Links != 1 {
		t.Errorf("%+v", d)
	}
	for _, o := range []*otp.OATH{totp, hotp} {
		if v := guess(o); v == otp.Accepted {
			t.Errorf("%s is valid again", o.Kind)
		}
	}
	if v, err := use(); v == otp.Accepted || err == nil {
		t.Errorf("valid again: %v, %v", v, err)
	}
	// An authenticator by time goes on with its next codes; one by a counter is to be
	// replaced.
	now = now.Add(2 * time.Minute)
	if v := guess(totp); v != otp.Accepted {
		t.Errorf("later codes: %v", v)
	}
	err := r.st.Store.OTP().SetOATHStatus(ctx, postern.Actor{}, postern.HOTP, hotp.ID, postern.CredentialActive)
	if postern.CodeOf(err) != postern.Conflict {
		t.Errorf("enabled: %v", err)
	}
}

// TestNumbersGoOn issues before a restore and after it: no number is given twice.
func TestNumbersGoOn(t *testing.T) {
	r := newRig(t, 0)
	authority, _, err := ca.Ensure(t.Context(), ca.Config{}, r.st.Store.CA())
	must(t, err)
	numbers := func() (serial uint64, crls map[string]int64) {
		serial, err := r.st.Store.CA().SSHSerials(t.Context(), 1)
		must(t, err)
		crls = map[string]int64{}
		for _, id := range []string{"root", "server", "client"} {
			crl, err := authority.CRL(t.Context(), id)
			must(t, err)
			crls[id] = crl.Number
		}
		return serial, crls
	}
	made := r.backup(backup.Options{To: t.TempDir()})
	serial, crls := numbers()
	r.leave()
	r.restore(made.Path)
	authority, err = ca.Open(t.Context(), ca.Config{}, r.st.Store.CA())
	must(t, err)
	again, more := numbers()
	if again <= serial {
		t.Errorf("SSH serial %d after %d", again, serial)
	}
	for id, n := range crls {
		if more[id] <= n {
			t.Errorf("revocation list %d of %s after %d", more[id], id, n)
		}
	}
}
