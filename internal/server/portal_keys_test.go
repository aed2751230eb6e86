package server

import (
	"encoding/base32"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/otp"
	"golang.org/x/crypto/ssh"
)

func TestOwnKeys(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan, eve := rig.enrolled(t, "dan"), rig.enrolled(t, "eve")
	token := otp.NewSoftToken()
	keys := rig.db.OTP()
	if err := keys.AddKeys(t.Context(), postern.Actor{},
		[]*otp.Key{{PublicID: token.PublicID, Secret: &token.Secret, Last: otp.Never}}, false); err != nil {
		t.Fatal(err)
	}
	touch := func() string {
		code, err := token.Touch(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return code.Modhex()
	}
	dan.post("/keys/yubikey", "label", "blue", "touch", "nonsense").says(t, 400, "not what a YubiKey types")
	code := touch()
	dan.post("/keys/yubikey", "label", "blue", "touch", code).says(t, 303, "")
	dan.get("/keys").says(t, 200, "blue")
	rig.mail.TakeAbout(t, "dan@example.com", "The YubiKey blue ("+token.PublicID+") was added")
	eve.post("/keys/yubikey", "label", "mine", "touch", touch()).says(t, 400, "another person has it")
	dan.post("/keys/yubikey", "label", "blue", "touch", code).says(t, 409, "registered already")
	shown := dan.post("/keys/totp", "label", "phone app")
	shown.says(t, 200, "otpauth://totp/")
	app := regexp.MustCompile(`name="app" value="([^"]+)"`).FindStringSubmatch(shown.body)[1]
	if strings.Contains(dan.get("/keys").body, "phone app") {
		t.Error("an app is listed before its first code")
	}
	secret := regexp.MustCompile(`secret=([A-Z2-7]+)`).FindStringSubmatch(shown.body)[1]
	first := totpNow(t, secret)
	dan.post("/keys/totp/first", "app", app, "first", notThatCode(first)).says(t, 403,
		"not the code that the app should show")
	eve.post("/keys/totp/first", "app", app, "first", first).says(t, 400, "too old, or not yours")
	dan.post("/keys/totp/first", "app", app, "first", first).says(t, 303, "")
	dan.post("/keys/totp/first", "app", app, "first", first).says(t, 409, "added already")
	dan.get("/keys").says(t, 200, "phone app")
	rig.mail.TakeAbout(t, "dan@example.com", "authenticator app phone app was added")
	made := dan.post("/keys/acme", "label", "www")
	made.says(t, 200, "certbot register")
	kid := regexp.MustCompile(`id="f-kid" readonly value="([^"]+)"`).FindStringSubmatch(made.body)[1]
	rig.mail.TakeAbout(t, "dan@example.com", "The ACME key www (")
	dan.post("/recovery").says(t, 200, "Print these")
	rig.mail.TakeAbout(t, "dan@example.com", "New recovery codes were made")
	eve.post("/keys/acme/status", "id", kid, "do", "disable").says(t, 404, "")
	dan.post("/keys/acme/status", "id", kid, "do", "disable").says(t, 303, "")
	all, err := rig.db.People().CredentialsOf(t.Context(), "dan")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Kind == postern.TOTP {
			eve.post("/keys", "kind", "totp", "id", c.ID, "do", "disable").says(t, 404, "no such key")
			dan.post("/keys", "kind", "totp", "id", c.ID, "do", "disable").says(t, 303, "")
		}
	}
	dan.get("/keys").says(t, 200, "Enable")
}

func TestSSHCertificateByThePages(t *testing.T) {
	rig := newPortalRig(t, nil)
	dan, eve := rig.enrolled(t, "dan"), rig.enrolled(t, "eve")
	_, line, err := freshKey()
	if err != nil {
		t.Fatal(err)
	}
	dan.post("/keys/ssh", "public_key", "ssh-ed25519 nonsense").says(t, 400, "no SSH public key")
	made := dan.post("/keys/ssh", "public_key", string(line))
	made.says(t, 200, "@cert-authority")
	rig.mail.TakeAbout(t, "dan@example.com", "A certificate for the SSH key SHA256:")
	certificate, _, _, _, err := ssh.ParseAuthorizedKey(
		[]byte(html.UnescapeString(regexp.MustCompile(`ssh-ed25519-cert-v01@openssh\.com [^<]+`).FindString(
			made.body))))
	if err != nil {
		t.Fatalf("%v in %s", err, made.body)
	}
	cert := certificate.(*ssh.Certificate)
	if !slices.Equal(cert.ValidPrincipals, []string{"dan"}) {
		t.Errorf("its principals are %v", cert.ValidPrincipals)
	}
	serial := strconv.FormatUint(cert.Serial, 10)
	dan.get("/keys").says(t, 200, serial)
	eve.post("/keys/ssh/revoke", "id", serial).says(t, 404, "no such certificate")
	keygen, dir := posterntest.Need(t, "ssh-keygen"), t.TempDir()
	revoked := func() bool {
		t.Helper()
		krl, err := rig.ca.KRL(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string][]byte{"krl": krl, "key-cert.pub": ssh.MarshalAuthorizedKey(cert)} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command(keygen, "-Q", "-f", filepath.Join(dir, "krl"),
			filepath.Join(dir, "key-cert.pub")).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "REVOKED") {
			t.Fatalf("%v: %s", err, out)
		}
		return err != nil
	}
	if revoked() {
		t.Error("revoked by another person")
	}
	dan.post("/keys/ssh/revoke", "id", serial).says(t, 303, "")
	if !revoked() {
		t.Error("sshd would still accept the certificate")
	}
}

// totpNow returns the code of a secret, in base32, at this moment.
func totpNow(t *testing.T, secret string) string {
	t.Helper()
	b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	app := otp.NewOATH(postern.TOTP, "", "")
	app.Secret = b
	return app.Code(time.Now())
}

func notThatCode(right string) string {
	return strings.Map(func(r rune) rune { return '0' + (r-'0'+5)%10 }, right)
}
