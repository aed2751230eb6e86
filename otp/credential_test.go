package otp_test

import (
	"bytes"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

func TestCredential(t *testing.T) {
	k, err := otp.NewKey("")
	if err != nil {
		t.Fatal(err)
	}
	if c := k.Credential(); c.ID != k.PublicID || c.Secret != otp.SecretHere || c.Counter != nil {
		t.Errorf("a fresh key: %+v", c)
	}
	k.Secret, k.Last.Seq = nil, 19<<8|7
	if c := k.Credential(); c.Secret != otp.SecretUpstream || *c.Counter != 19 || *c.Use != 7 {
		t.Errorf("a key whose secret is upstream: %+v", c)
	}
	d := otp.NewOATH(postern.HOTP, "alice", "phone")
	d.Moving = 4
	if c := d.Credential(); c.Kind != postern.HOTP || c.Person != "alice" || c.Label != "phone" || *c.Counter != 4 {
		t.Errorf("an authenticator: %+v", c)
	}
	if c := otp.NewOATH(postern.TOTP, "alice", "").Credential(); c.Counter != nil {
		t.Errorf("one that goes by time counts: %+v", c)
	}
}

func TestConfirm(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	d := otp.NewOATH(postern.TOTP, "alice", "")
	code := d.Code(now)
	if err := d.Confirm("000", now); postern.CodeOf(err) != postern.Denied || d.Moving != -1 {
		t.Errorf("a wrong code: %v", err)
	}
	if err := d.Confirm(code[:3]+" "+code[3:], now); err != nil || d.Moving < 0 {
		t.Errorf("the first code: %v", err)
	}
	if err := d.Confirm(code, now); postern.CodeOf(err) != postern.Denied {
		t.Errorf("it again: %v", err)
	}
}

// TestYkmanScript has a stand-in for ykman show what it is asked for and answered.
func TestYkmanScript(t *testing.T) {
	for _, id := range []string{"abc", "vvc", strings.Repeat("c", 18), "Vvcc"} {
		if _, err := otp.NewKey(id); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("the public ID %q: %v", id, err)
		}
	}
	k, err := otp.NewKey("vvccccbdefgh")
	if err != nil {
		t.Fatal(err)
	}
	sh := exec.Command("sh")
	sh.Stdin = strings.NewReader("ykman() { echo \"$@\"; cat; }\n" + strings.ReplaceAll(k.YkmanScript(2), "exec ", ""))
	out, err := sh.Output()
	privateID, key := k.YkmanAnswers()
	want := "otp yubiotp 2 --public-id vvccccbdefgh\n" + privateID + "\n" + key + "\ny\n"
	if err != nil || string(out) != want || len(privateID) != 12 || len(key) != 32 {
		t.Errorf("%v\n%s\nnot\n%s", err, out, want)
	}
}

func TestParseAPIKey(t *testing.T) {
	const secret = "EHmo8FMxuhumBlTinC4uYL0Mgwg="
	_, want, err := otp.ParseAPIKey([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	client := otp.APIClient{ID: 2, Secret: want}
	for text, id := range map[string]int64{
		secret: 0, secret + "\n": 0, " " + secret + " \r\n": 0,
		secret + "\nmore\n": 0, client.Text(): 2,
	} {
		if got, key, err := otp.ParseAPIKey([]byte(text)); got != id || !bytes.Equal(key, want) || err != nil {
			t.Errorf("%q: %d, %x, %v", text, got, key, err)
		}
	}
	client.Secret = nil
	for _, text := range []string{
		"", "\n", client.Text(), "id two\nkey " + secret, "id 2\nkey =",
		"id -2\nkey " + secret, "!",
	} {
		if id, key, err := otp.ParseAPIKey([]byte(text)); postern.CodeOf(err) != postern.Invalid || id != 0 ||
			key != nil {
			t.Errorf("%q: %d, %x, %v", text, id, key, err)
		}
	}
}

func TestTakeKey(t *testing.T) {
	const secret = "EHmo8FMxuhumBlTinC4uYL0Mgwg="
	for _, c := range []struct {
		known int64
		text  string
		want  int64 // 0: refused
	}{
		{0, "id 2\nkey " + secret, 2},
		{2, "id 2\nkey " + secret, 2},
		{2, secret, 2},
		{3, "id 2\nkey " + secret, 0},
		{0, secret, 0},
		{2, "!", 0},
	} {
		cfg := otp.ClientConfig{ID: c.known}
		switch err := cfg.TakeKey([]byte(c.text)); {
		case c.want == 0 && (postern.CodeOf(err) != postern.Invalid || cfg.Key != nil):
			t.Errorf("%d and %q: %x, %v", c.known, c.text, cfg.Key, err)
		case c.want != 0 && (err != nil || cfg.ID != c.want || len(cfg.Key) != 20):
			t.Errorf("%d and %q: %d, %x, %v", c.known, c.text, cfg.ID, cfg.Key, err)
		}
	}
}

func TestParseNetworks(t *testing.T) {
	got, err := otp.ParseNetworks([]string{"192.0.2.12", "192.0.2.0/24", "2001:db8::1"})
	want := []netip.Prefix{
		netip.MustParsePrefix("192.0.2.12/32"), netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("2001:db8::1/128"),
	}
	if !slices.Equal(got, want) || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "val2.example.com", "192.0.2.0/33"} {
		if _, err := otp.ParseNetworks([]string{text}); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseAPIKey(f *testing.F) {
	f.Add([]byte("id 2\nkey EHmo8FMxuhumBlTinC4uYL0Mgwg=\n"))
	f.Add([]byte("EHmo8FMxuhumBlTinC4uYL0Mgwg="))
	f.Fuzz(func(t *testing.T, text []byte) {
		id, key, err := otp.ParseAPIKey(text)
		if err != nil {
			return
		}
		again := otp.APIClient{ID: id, Secret: key}
		if id2, key2, err := otp.ParseAPIKey([]byte(again.Text())); id2 != id || !bytes.Equal(key2, key) ||
			err != nil {
			t.Errorf("%d %x: %d %x, %v", id, key, id2, key2, err)
		}
	})
}
