package otp

import (
	"encoding/csv"
	"regexp"
	"slices"
	"strings"
)

// ownersComment is the first line of privacyIDEA's CSV whose rows begin with
// the user's name, resolver and realm.
var ownersComment = regexp.MustCompile(`(?i)^#\s*version:\s*2\b`)

// readCSV reads one line of separated values.
func (im *Import) readCSV(line int, text string) {
	f, ok := splitCSV(text)
	switch {
	case !ok:
		im.skip(line, "not a line of a known format")
	case f == nil:
	case im.columns == nil && isHeader(f):
		im.columns = columnNames(f)
	case im.columns != nil && len(f) <= len(im.columns):
		im.readNamed(line, f)
	default:
		im.readFields(line, f)
	}
}

// splitCSV splits a line at commas, or else at semicolons or tabs, with or
// without quotes (RFC 4180). It returns nil for an empty line.
func splitCSV(text string) (fields []string, ok bool) {
	comma := ','
	for _, c := range []rune{';', '\t'} {
		if !strings.ContainsRune(text, comma) && strings.ContainsRune(text, c) {
			comma = c
		}
	}
	if strings.Contains(text, `"`) {
		r := csv.NewReader(strings.NewReader(text))
		r.Comma, r.FieldsPerRecord, r.TrimLeadingSpace = comma, -1, true
		var err error
		if fields, err = r.Read(); err != nil {
			return nil, false
		}
	} else {
		text, _, _ = strings.Cut(text, "#")
		if strings.TrimSpace(text) == "" {
			return nil, true
		}
		fields = strings.Split(text, string(comma))
	}
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	return fields, true
}

// columnWords are the names that columns have in header lines, and what they
// mean here. Those of yubikey-ksm's and yubikey-val's tables mean themselves.
var columnWords = map[string]string{
	"user": "account", "username": "account", "account": "account", "owner": "account", "login": "account",
	"userid": "account",
	"serial": "serial", "serialno": "serial", "serial number": "serial", "tokenserial": "serial", "token": "serial",
	"id":     "serial",
	"secret": "secret", "seed": "secret", "key": "secret", "otpkey": "secret", "hmac_key": "secret",
	"otp key": "secret",
	"type":    "kind", "tokentype": "kind", "otptype": "kind",
	"digits": "digits", "otplen": "digits", "otp length": "digits", "length": "digits", "response_length": "digits",
	"period": "period", "timestep": "period", "time step": "period", "interval": "period", "step": "period",
	"time_interval": "period",
	"hash":          "hash", "hashlib": "hash", "algorithm": "hash", "algo": "hash",
	"counter": "counter", "count": "counter", "otpcount": "counter",
	"label": "label", "issuer": "label", "description": "label", "name": "label",
	"serialnr": "serialnr", "publicname": "publicname", "internalname": "internalname", "aeskey": "aeskey",
	"lockcode": "lockcode", "creator": "creator", "created": "created", "active": "active", "hardware": "hardware",
	"modified": "modified", "yk_publicname": "yk_publicname", "yk_counter": "yk_counter", "yk_use": "yk_use",
	"yk_low": "yk_low", "yk_high": "yk_high", "nonce": "nonce", "notes": "notes",
}

// isHeader reports whether a line names columns.
func isHeader(f []string) bool {
	known := 0
	for _, word := range f {
		if columnWords[strings.ToLower(word)] != "" {
			known++
		} else if isHex(word) && len(word) >= 10 {
			return false
		}
	}
	return known >= 2
}

func columnNames(f []string) []string {
	names := make([]string, len(f))
	for i, word := range f {
		names[i] = columnWords[strings.ToLower(word)]
		if slices.Contains(names[:i], names[i]) {
			names[i] = "" // the first column of that name is used
		}
	}
	return names
}

// readNamed reads a row below a header line.
func (im *Import) readNamed(line int, f []string) {
	v := rowOf(im.columns, f)
	if im.addRow(line, "", v) {
		return
	}
	if _, ok := v["secret"]; !ok {
		im.readFields(line, f)
		return
	}
	kind := v["kind"]
	if kind == "" {
		kind = map[bool]string{true: "totp", false: "hotp"}[v["period"] != "" && v["counter"] == ""]
	}
	im.addOATH(line, oathFields{
		kind: kind, secret: DecodeSecret(v["secret"]), account: v["account"], serial: v["serial"], label: v["label"],
		hash: v["hash"], digits: v["digits"], period: v["period"], counter: v["counter"],
		disabled: isFlag(v["active"]) && !flags[v["active"]],
	})
}

// readTokenRow reads a row of LinOTP's or privacyIDEA's CSV without a header
// line: serial, secret, type, digits, period or counter, hash. It reports
// whether it is one.
func (im *Import) readTokenRow(line int, f []string) bool {
	var account string
	if im.owners && len(f) >= 5 {
		account, f = f[0], f[3:]
	}
	if len(f) < 2 || f[0] == "" {
		return false
	}
	field := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	kind := strings.ToLower(field(2))
	switch {
	case oathKinds[kind] != "":
	case kind == "" && len(f) <= 4 && isHex(f[1]) && len(f[1]) >= 20:
		kind = "hotp" // the default of both
	case slices.Contains([]string{"ocra", "ocra2", "tan", "pw", "spass", "sms", "email", "motp", "yubikey", "yubico"},
		kind):
		im.skip(line, "neither TOTP nor HOTP")
		return true
	default:
		return false
	}
	secret := DecodeSecret(f[1])
	hash := field(5)
	if hash == "" { // both derive it from the secret's length
		hash = map[int]string{32: "SHA256", 64: "SHA512"}[len(secret)]
	}
	o := oathFields{kind: kind, secret: secret, account: account, serial: f[0], digits: field(3), hash: hash}
	if kind == "totp" {
		o.period = field(4)
	} else {
		o.counter = field(4)
	}
	im.addOATH(line, o)
	return true
}
