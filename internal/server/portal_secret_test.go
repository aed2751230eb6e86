package server

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestPrivateKeysAreNeverSent has Chromium make a key, and looks for it and for the
// passphrase in all that it sent.
func TestPrivateKeysAreNeverSent(t *testing.T) {
	rig := newPortalRig(t, nil)
	rig.person(t, "dan")
	in := rig.browserFor(t, "dan") // makes the first key
	in.run(chromedp.Navigate(rig.url + "/certificates/new"))
	in.makes("tablet")
	text := output(t, "openssl", "pkcs12", "-in", in.saves(`[data-p12]`), "-passin", "pass:"+passphrase, "-noenc",
		"-nocerts")
	block, _ := pem.Decode([]byte(text[strings.Index(text, "-----BEGIN"):]))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("the key is a %T", key)
	}
	d, err := private.Bytes()
	must(t, err)
	public, err := private.PublicKey.Bytes()
	must(t, err)
	sent := rig.heard()
	if !encodes(sent, public[1:33]) {
		t.Error("not even the public key is found in what was sent")
	}
	if encodes(sent, d) {
		t.Error("the private key was sent")
	}
	if encodes(sent, []byte(passphrase)) {
		t.Error("the passphrase was sent")
	}
}

// encodes reports whether a text has some bytes in it, as they are, in hexadecimal or
// in base64, whatever stands before them.
func encodes(text string, b []byte) bool {
	texts := []string{text}
	for _, form := range []string{text, strings.ReplaceAll(text, "+", "%2B")} {
		if plain, err := url.QueryUnescape(form); err == nil {
			texts = append(texts, plain)
		}
	}
	for _, text := range texts {
		lines := strings.NewReplacer("\r", "", "\n", "", "-", "+", "_", "/").Replace(text)
		if strings.Contains(text, string(b)) || strings.Contains(strings.ToLower(text), hex.EncodeToString(b)) {
			return true
		}
		for before := range 3 {
			code := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), b...))
			if strings.Contains(lines, code[4:len(code)-2]) { // the rest depends on what stands around
				return true
			}
		}
	}
	return false
}

func TestEncodes(t *testing.T) {
	secret := []byte("grün wie 89abcdef0123456789abcde")
	for _, before := range []string{"", "x", "xy", "xyz"} {
		whole := append([]byte(before), append(secret, "after"...)...)
		for _, text := range []string{
			string(whole), url.QueryEscape(string(whole)), hex.EncodeToString(whole),
			strings.ToUpper(hex.EncodeToString(whole)), base64.StdEncoding.EncodeToString(whole),
			base64.RawURLEncoding.EncodeToString(whole), url.QueryEscape(base64.StdEncoding.EncodeToString(whole)),
			base64.StdEncoding.EncodeToString(whole)[:20] + "\r\n" + base64.StdEncoding.EncodeToString(whole)[20:],
		} {
			if !encodes("a=b\n"+text, secret) {
				t.Errorf("it is not found in %s", text)
			}
		}
	}
	if encodes(base64.StdEncoding.EncodeToString([]byte("something else that is long enough, too")), secret) {
		t.Error("it is found where it is not")
	}
}
