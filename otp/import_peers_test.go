package otp_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

const (
	peerSeed = "3132333435363738393031323334353637383930"
	peerKey  = "12345678901234567890123456789012"
)

// imported reads a file that another program wrote; it must hold one
// authenticator.
func imported(t *testing.T, text []byte, o otp.ImportOptions) *otp.OATH {
	t.Helper()
	im, err := otp.ReadImport(bytes.NewReader(text), o)
	must(t, err)
	if len(im.OATH) != 1 {
		t.Fatalf("imported %d authenticators of %q, not one: %v", len(im.OATH), text, im.Skipped)
	}
	return im.OATH[0].OATH
}

func output(t *testing.T, stdin, program string, args ...string) []byte {
	t.Helper()
	posterntest.Need(t, program)
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", program, args, err, out, stderr.Bytes())
	}
	return out
}

// oathtool returns the code of the time that oathtool makes.
func oathtool(t *testing.T, at time.Time, args ...string) string {
	t.Helper()
	args = append(args, "--now", at.UTC().Format("2006-01-02 15:04:05 UTC"))
	return strings.TrimSpace(string(output(t, "", "oathtool", args...)))
}

func TestCodesAreThoseOfOathtool(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	for _, c := range []struct{ hash, digits, period string }{
		{"SHA1", "6", "30"}, {"SHA256", "8", "60"}, {"SHA512", "7", "45"},
	} {
		o := imported(t, []byte("otpauth://totp/a?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm="+c.hash+
			"&digits="+c.digits+"&period="+c.period), otp.ImportOptions{})
		want := oathtool(t, at, "--totp="+c.hash, "--digits", c.digits, "--time-step-size", c.period+"s", peerSeed)
		if got := o.Code(at); got != want {
			t.Errorf("%v: %s, oathtool has %s", c, got, want)
		}
	}
}

func TestGoogleAuthenticatorsFileIsImported(t *testing.T) {
	for _, mode := range []string{"--time-based", "--counter-based"} {
		path := filepath.Join(t.TempDir(), ".google_authenticator")
		args := []string{
			mode, "--force", "--quiet", "--rate-limit=3", "--rate-time=30", "--window-size=3",
			"--no-confirm", "--secret=" + path,
		}
		if mode == "--time-based" {
			args = append(args, "--disallow-reuse", "--step-size=60")
		}
		output(t, "", "google-authenticator", args...)
		text, err := os.ReadFile(path)
		must(t, err)
		im, err := otp.ReadImport(bytes.NewReader(text), otp.ImportOptions{})
		must(t, err)
		if len(im.OATH) != 1 || len(im.Skipped) != 1 || !strings.Contains(im.Skipped[0].Why, "emergency codes") {
			t.Fatalf("%s: %d authenticators, %v", mode, len(im.OATH), im.Skipped)
		}
		o, at := im.OATH[0].OATH, time.Now()
		secret, _, _ := strings.Cut(string(text), "\n")
		want := oathtool(t, at, "--totp", "--time-step-size=60s", "--base32", secret)
		if mode == "--counter-based" {
			want = strings.TrimSpace(string(output(t, "", "oathtool", "--counter=1", "--base32", secret)))
		}
		if got := o.Code(at); got != want {
			t.Errorf("%s: the code is %s, oathtool has %s", mode, got, want)
		}
	}
}

// TestWhatPamOathAcceptedIsNotAcceptedAgain signs in by the real pam_oath, and
// then imports what it has written.
func TestWhatPamOathAcceptedIsNotAcceptedAgain(t *testing.T) {
	posterntest.NeedRoot(t)
	path := filepath.Join(posterntest.OpenDir(t), "users.oath")
	service := "postern-test-oath"
	must(t, os.WriteFile("/etc/pam.d/"+service, []byte("auth required pam_oath.so usersfile="+path+" window=20\n"),
		0o644))
	t.Cleanup(func() { os.Remove("/etc/pam.d/" + service) })
	for _, c := range []struct{ kind, used, next string }{{"HOTP", "359152", "969429"}, {"HOTP/T30", "", ""}} {
		must(t, os.WriteFile(path, []byte(c.kind+" root - "+peerSeed+"\n"), 0o600))
		now := time.Now()
		if c.used == "" {
			c.used = oathtool(t, now, "--totp", peerSeed)
		}
		output(t, c.used+"\n", "pamtester", service, "root", "authenticate")
		text, err := os.ReadFile(path)
		must(t, err)
		o := imported(t, text, otp.ImportOptions{})
		if at, ok := o.Match(c.used, now); ok && at > o.Moving {
			t.Errorf("%s: the code that pam_oath accepted is new here", c.kind)
		}
		if c.next != "" {
			if at, ok := o.Match(c.next, now); !ok || at <= o.Moving {
				t.Errorf("%s: the next code is not accepted", c.kind)
			}
		}
	}
}

func TestPSKCOfOtherProgramsIsImported(t *testing.T) {
	dir := t.TempDir()
	table := filepath.Join(dir, "in.csv")
	must(t, os.WriteFile(table, []byte("serial,secret,counter,algorithm,response_length\nF1,"+peerSeed+",5,hotp,6\n"),
		0o600))
	password := otp.ImportOptions{Password: func() ([]byte, error) { return []byte("qwerty"), nil }}
	for _, c := range []struct {
		name    string
		args    []string
		options otp.ImportOptions
	}{
		{"plain", nil, otp.ImportOptions{}},
		{"with a password", []string{"--password", "qwerty"}, password},
		{
			"with a key",
			[]string{"--secret", peerKey},
			otp.ImportOptions{Key: []byte("\x12\x34\x56\x78\x90\x12\x34\x56\x78\x90\x12\x34\x56\x78\x90\x12")},
		},
	} {
		text := output(t, "", "csv2pskc", append([]string{"--secret-encoding", "hex", table}, c.args...)...)
		if got := imported(t, text, c.options).Code(time.Now()); got != "254676" { // RFC 4226, appendix D
			t.Errorf("%s: the code is %s", c.name, got)
		}
		output(t, string(text), "pskctool", "--info", "/dev/stdin") // it is PSKC to others, too
	}
}

func TestYubiserversDatabaseIsImported(t *testing.T) {
	posterntest.Need(t, "yubiserver-admin")
	empty, err := os.ReadFile("/etc/yubiserver/yubiserver.sqlite.init")
	must(t, err)
	path := filepath.Join(t.TempDir(), "yubiserver.sqlite")
	must(t, os.WriteFile(path, empty, 0o600))
	output(t, "", "yubiserver-admin", "-b", path, "-y", "-a", "alice", "idkfefrdhtru", "609963eae7b5",
		"c68c9df8cbfe7d2f994cb904046c7218")
	output(t, "", "yubiserver-admin", "-b", path, "-o", "-a", "dave", "cccc00000001", peerSeed)
	output(t, "", "yubiserver-admin", "-b", path, "-p", "-a", "radius", "abcdefghijklmnopqrst")
	output(t, "", "sqlite3", path, `CREATE VIEW clients AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n)
		SELECT i FROM n`)
	text, err := store.DumpSQLite(t.Context(), path, otp.ImportedTables...)
	must(t, err)
	im, err := otp.ReadImport(bytes.NewReader(text), otp.ImportOptions{})
	must(t, err)
	if len(im.Keys) != 1 || len(im.Counters) != 1 || len(im.Clients) != 1 || len(im.OATH) != 1 ||
		len(im.Skipped) != 0 {
		t.Fatalf("imported %+v", im)
	}
	if o := im.OATH[0]; o.Account != "dave" || im.Keys[0].PublicID != "idkfefrdhtru" {
		t.Errorf("imported %+v", o)
	}
	must(t, os.WriteFile(path, append(empty[:100:100], "broken"...), 0o600))
	if _, err := store.DumpSQLite(t.Context(), path, otp.ImportedTables...); err == nil {
		t.Error("a broken database is read")
	}
}
