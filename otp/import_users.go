package otp

import (
	"bytes"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// usersLine is how a line of users.oath begins.
var usersLine = regexp.MustCompile(`^[A-Za-z]{3,5}(/[A-Za-z0-9]+)*[ \t]+[^ \t,;]+[ \t]`)

// usersKind is the first word of such a line: HOTP, HOTP/E/6, HOTP/T30/8.
var usersKind = regexp.MustCompile(`^(?i:HOTP|TOTP)(?:/(?:E|T([0-9]{1,4})))?(?:/([0-9]))?$`)

// readUser reads a line of users.oath, the file of liboath's pam_oath and of
// Apache's mod_authn_otp: type, user, PIN, secret in hexadecimal, counter, last
// code, time of that. Where there is a last code, pam_oath keeps the counter of
// that code and not the next.
func (im *Import) readUser(line int, text string) {
	f := strings.Fields(text)
	kind := usersKind.FindStringSubmatch(f[0])
	switch {
	case kind == nil || len(f) < 4:
		im.skip(line, "not a line of users.oath that can be read")
		return
	case f[2] != "-" && f[2] != "+":
		im.skip(line, "the user has a PIN, which cannot be imported")
		return
	}
	secret, err := hex.DecodeString(f[3])
	if err != nil || len(f[3]) > maxSecretText {
		secret = nil
	}
	o := oathFields{kind: "hotp", account: f[1], secret: secret, period: kind[1], digits: kind[2]}
	if kind[1] != "" || strings.EqualFold(f[0][:1], "T") {
		o.kind = "totp"
	}
	if len(f) > 4 && f[4] != "-" {
		o.counter = f[4]
	}
	if len(f) > 6 {
		o.used = true
		o.last = usedStep(f[6], o.period)
	}
	if o.kind == "totp" && o.counter != "" && o.counter != "0" {
		im.skip(line, "the user's clock is known to be wrong, which cannot be imported")
		return
	}
	im.addOATH(line, o)
}

// usedStep returns the latest step of TOTP that could be accepted at that time.
func usedStep(when, period string) int64 {
	t, err := time.ParseInLocation("2006-01-02T15:04:05L", when, time.Local)
	if err != nil || t.After(time.Now()) {
		t = time.Now()
	}
	seconds, err := strconv.ParseInt(period, 10, 64)
	if err != nil || seconds <= 0 {
		seconds = 30
	}
	return t.Unix()/seconds + TOTPSkew
}

// googleSecret is the first line of a .google_authenticator file.
var googleSecret = regexp.MustCompile(`^[A-Z2-7]{16,256}=*[ \t]*(\r?\n|$)`)

// readGoogle reads the .google_authenticator file of pam_google_authenticator:
// the secret, options, and emergency codes. See its FILEFORMAT.
func (im *Import) readGoogle(b []byte) {
	f := oathFields{}
	n, first, codes, firstCode := 0, 0, 0, 0
	for raw := range bytes.Lines(b) {
		n++
		text := strings.TrimSpace(string(raw))
		option, isOption := strings.CutPrefix(text, `"`)
		switch {
		case text == "":
		case isOption:
			im.googleOption(n, &f, strings.Fields(option))
		case f.secret == nil:
			f.secret, first = decodeBase32(text), n
		case len(text) == 8 && isNumber(text):
			if codes++; codes == 1 {
				firstCode = n
			}
		default:
			im.skip(n, "not a line of a .google_authenticator file")
		}
	}
	im.addOATH(first, f)
	if codes > 0 {
		im.skip(firstCode,
			"%d emergency codes, which are too short to be stored safely; make backup codes for the person", codes)
	}
}

func (im *Import) googleOption(n int, f *oathFields, words []string) {
	if len(words) == 0 {
		return
	}
	switch arguments := words[1:]; words[0] {
	case "RATE_LIMIT", "WINDOW_SIZE": // the same for all people here
	case "TOTP_AUTH":
		f.kind = firstOf(f.kind, "totp") // HOTP_COUNTER goes before it
	case "STEP_SIZE":
		f.period = strings.Join(arguments, " ")
	case "HOTP_COUNTER":
		f.kind, f.counter = "hotp", strings.Join(arguments, " ")
	case "DISALLOW_REUSE":
		for _, a := range arguments {
			if step, err := strconv.ParseInt(a, 10, 64); err == nil && step < 1<<40 {
				f.last = max(f.last, step)
			}
		}
	case "TIME_SKEW":
		if len(arguments) == 1 && arguments[0] != "0" {
			im.skip(n, "the clock of the phone is known to be wrong, which cannot be imported: set it right")
		}
	default:
		if !strings.HasPrefix(words[0], "LAST") && words[0] != "RESETTING_TIME_SKEW" {
			im.skip(n, "an option that is not known")
		}
	}
}
