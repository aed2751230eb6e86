package otp

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

// The vectors are those of RFC 4226, appendix D, and RFC 6238, appendix B.

func TestHOTPVectors(t *testing.T) {
	o := &OATH{Kind: postern.HOTP, Secret: []byte("12345678901234567890"), Hash: "SHA1", Digits: 6}
	for i, want := range strings.Fields("755224 287082 359152 969429 338314 254676 287922 162583 399871 520489") {
		if got := o.code(int64(i)); got != want {
			t.Errorf("HOTP %d is %s, want %s", i, got, want)
		}
	}
}

func TestTOTPVectors(t *testing.T) {
	seed := strings.Repeat("1234567890", 7)
	for _, c := range []struct {
		at                   int64
		sha1, sha256, sha512 string
	}{
		{59, "94287082", "46119246", "90693936"},
		{1111111109, "07081804", "68084774", "25091201"},
		{1111111111, "14050471", "67062674", "99943326"},
		{1234567890, "89005924", "91819424", "93441116"},
		{2000000000, "69279037", "90698825", "38618901"},
		{20000000000, "65353130", "77737706", "47863826"},
	} {
		for _, v := range []struct {
			hash string
			size int
			want string
		}{{"SHA1", 20, c.sha1}, {"SHA256", 32, c.sha256}, {"SHA512", 64, c.sha512}} {
			o := &OATH{
				Kind: postern.TOTP, Secret: []byte(seed[:v.size]), Hash: v.hash, Digits: 8,
				Period: 30 * time.Second, Moving: -1,
			}
			if err := o.Validate(); err != nil {
				t.Fatal(err)
			}
			if got := o.Code(time.Unix(c.at, 0)); got != v.want {
				t.Errorf("%s at %d is %s, want %s", v.hash, c.at, got, v.want)
			}
		}
	}
}

func TestMatchTakesNearCodesOnly(t *testing.T) {
	now := time.Unix(1700000000, 0)
	totp := NewOATH(postern.TOTP, "alice", "phone")
	for steps, want := range map[int]bool{-2: false, -1: true, 0: true, 1: true, 2: false, 120: false, -120: false} {
		code := totp.Code(now.Add(time.Duration(steps) * 30 * time.Second))
		if _, ok := totp.Match(code, now); ok != want {
			t.Errorf("a code %d steps off: %v", steps, ok)
		}
	}
	hotp := NewOATH(postern.HOTP, "alice", "fob")
	hotp.Moving = 41
	for at, want := range map[int64]bool{41: false, 42: true, 51: true, 52: false} {
		if got, ok := hotp.Match(hotp.code(at), now); ok != want || ok && got != at {
			t.Errorf("counter %d: %d, %v", at, got, ok)
		}
	}
	if _, ok := totp.Match("", now); ok {
		t.Error("an empty code matches")
	}
}

func TestOTPAuthURL(t *testing.T) {
	o := NewOATH(postern.TOTP, "alice", "phone")
	o.Secret = []byte("12345678901234567890")
	u, err := url.Parse(o.URL("My Org"))
	if err != nil {
		t.Fatal(err)
	}
	want := "otpauth://totp/My%20Org:alice?algorithm=SHA1&digits=6&issuer=My%20Org&period=30&" +
		"secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	if u.String() != want {
		t.Errorf("got %s\nwant %s", u, want)
	}
}

func TestTakeSecret(t *testing.T) {
	for _, text := range []string{"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "3132333435363738393031323334353637383930"} {
		o := NewOATH(postern.TOTP, "alice", "phone")
		if err := o.TakeSecret(text); err != nil || string(o.Secret) != "12345678901234567890" {
			t.Errorf("%s: %q, %v", text, o.Secret, err)
		}
	}
	if err := new(OATH).TakeSecret("no secret!"); postern.CodeOf(err) != postern.Invalid {
		t.Error(err)
	}
}

func TestLockoutGrows(t *testing.T) {
	last := time.Duration(0)
	for n := range int64(100) {
		d := Lockout(n)
		if d < last || n < 5 && d != 0 || n == 5 && d != time.Minute || d > 6*time.Hour {
			t.Errorf("after %d wrong codes: %s", n, d)
		}
		last = d
	}
	if last != 6*time.Hour {
		t.Errorf("the longest is %s", last)
	}
}

func TestRecoveryCodes(t *testing.T) {
	codes, hashes := NewBackupCodes("alice")
	if len(codes) != 10 || len(hashes) != 10 {
		t.Fatalf("%d codes", len(codes))
	}
	for i, c := range codes {
		for _, typed := range []string{
			c, strings.ToUpper(c), " " + strings.ReplaceAll(c, "-", "") + "\n",
			strings.ReplaceAll(c, "0", "O"), strings.ReplaceAll(c, "1", "l"),
		} {
			if h, ok := backupHash("alice", typed); !ok || h != hashes[i] {
				t.Errorf("%q is not read as %q", typed, c)
			}
		}
		if h, _ := backupHash("bob", c); h == hashes[i] {
			t.Error("bob's hash is alice's")
		}
	}
	for _, bad := range []string{
		"", "123456", codes[0] + "x", codes[0][1:], strings.Repeat("c", 44),
		strings.Repeat("-", 1<<20),
	} {
		if _, ok := backupHash("alice", bad); ok {
			t.Errorf("%q is accepted as a backup code", bad)
		}
	}
}
