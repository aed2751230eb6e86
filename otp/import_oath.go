package otp

import (
	"encoding/base32"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern-project/postern"
)

// oathFields are an authenticator's fields, as in a file. Empty fields have the default
// that all programs share: SHA-1, 6 digits, 30 seconds, 0.
type oathFields struct {
	kind     string // totp, hotp; hmac is another word for hotp
	secret   []byte // nil: it could not be decoded
	account  string // of the owner
	serial   string
	label    string
	hash     string // SHA1, HmacSHA256, HMAC-SHA-512 …
	digits   string
	period   string
	counter  string // of HOTP
	used     bool   // counter is the last one that was used, not the next one
	last     int64  // the last step of TOTP that was used
	disabled bool
}

var oathKinds = map[string]postern.CredentialKind{
	"totp": postern.TOTP, "hotp": postern.HOTP, "hmac": postern.HOTP,
}

func (im *Import) addOATH(n int, f oathFields) {
	o := NewOATH(oathKinds[strings.ToLower(f.kind)], "", clip(f.label, 64))
	var bad string
	set := func(value, what string, lowest, highest int64, to func(int64)) {
		if value == "" {
			return
		}
		v, err := strconv.ParseInt(value, 10, 64)
		if err != nil || v < lowest || v > highest {
			bad = what
			return
		}
		to(v)
	}
	switch {
	case o.Kind == "":
		im.skip(n, "neither TOTP nor HOTP")
		return
	case f.secret == nil:
		im.skip(n, "the secret cannot be decoded")
		return
	}
	o.Secret, o.Hash = f.secret, HashName(f.hash)
	set(f.digits, "number of digits", 6, 8, func(v int64) { o.Digits = int(v) })
	if o.Kind == postern.TOTP {
		set(f.period, "period", 1, 3600, func(v int64) { o.Period = time.Duration(v) * time.Second })
		o.Moving = max(o.Moving, f.last)
	} else {
		set(f.counter, "counter", 0, 1<<53, func(v int64) { o.Moving = v - 1 })
		if f.used {
			o.Moving++
		}
	}
	if f.disabled {
		o.Status = postern.CredentialDisabled
	}
	if bad != "" {
		im.skip(n, "the %s is out of range", bad)
		return
	}
	if err := o.Validate(); err != nil {
		im.skip(n, "%s", err)
		return
	}
	im.OATH = append(im.OATH, &ImportedOATH{OATH: o, Place: im.place(n), Account: f.account, Serial: f.serial})
}

// HashName returns OATH's name of a hash, or "" for one that OATH does not have.
func HashName(s string) string {
	s = strings.ToUpper(strings.TrimSpace(s))
	s = strings.NewReplacer("-", "", "_", "", "HMAC", "").Replace(s)
	if s == "" {
		return "SHA1"
	}
	if oathHashes[s] == nil {
		return ""
	}
	return s
}

// clip returns at most n bytes of s, cut between two runes.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "")
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

const maxSecretText = 1024 // letters of a secret, more than any valid one has

// decodeBase32 decodes a secret as authenticator apps show it: any case, with
// or without blanks, dashes and padding. It returns nil for anything else.
func decodeBase32(s string) []byte {
	if len(s) > maxSecretText {
		return nil
	}
	s = strings.NewReplacer(" ", "", "-", "", "=", "").Replace(strings.ToUpper(strings.TrimSpace(s)))
	b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(s)
	if err != nil || s == "" {
		return nil
	}
	return b
}

// DecodeSecret decodes a secret that is hexadecimal or base32. A secret that could be
// both is hexadecimal if it is long enough.
func DecodeSecret(s string) []byte {
	s = squeeze(strings.TrimSpace(s))
	if len(s) > maxSecretText {
		return nil
	}
	if b, err := hex.DecodeString(s); err == nil && len(b) >= 10 {
		return b
	}
	return decodeBase32(s)
}

// Assign assigns each key and authenticator to a person. If person is not "", it is that
// one; else it is the one that owners (see [ParseOwners]) have for one of its names.
// For an authenticator it may also be the person of its account, which find returns,
// or "". An authenticator without a person is not imported.
func (im *Import) Assign(person string, owners map[string]string, find func(account string) (string, error)) error {
	for _, k := range im.Keys {
		k.Person = firstOf(person, owners[k.PublicID], owners[strconv.FormatInt(k.Serial, 10)])
	}
	var kept []*ImportedOATH
	for _, o := range im.OATH {
		o.Person = firstOf(person, owners[strings.ToLower(o.Account)], owners[strings.ToLower(o.Serial)])
		if o.Person == "" && o.Account != "" {
			var err error
			if o.Person, err = find(o.Account); err != nil {
				return err
			}
		}
		switch {
		case o.Person != "":
			kept = append(kept, o)
		case o.Account == "" && o.Serial == "":
			im.skipAt(o.Place, "the file does not name its owner")
		default:
			im.skipAt(o.Place, "there is no person "+strconv.QuoteToASCII(clip(firstOf(o.Account, o.Serial), 100)))
		}
	}
	im.OATH = kept
	return nil
}

// Empty reports whether there is nothing to import.
func (im *Import) Empty() bool {
	return len(im.Keys)+len(im.OATH)+len(im.Counters)+len(im.Disabled)+len(im.Clients) == 0
}

// Check fails if there is nothing to import, or if something cannot be imported and
// the rest is not wanted without it.
func (im *Import) Check(rest bool) error {
	skipped := len(im.Skipped) + im.Unlisted
	switch {
	case im.Empty():
		return postern.Errorf(postern.Invalid, "the file holds nothing that can be imported")
	case skipped > 0 && !rest:
		return postern.Errorf(postern.Invalid, "%d entries of the file cannot be imported, so nothing was", skipped).
			WithHint("correct the file, or import the rest of it")
	}
	return nil
}
