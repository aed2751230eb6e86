package otp

import (
	"encoding/base64"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// readURL reads an otpauth: URL.
//
// See https://github.com/google/google-authenticator/wiki/Key-Uri-Format
func (im *Import) readURL(line int, text string) {
	u, err := url.Parse(text)
	if err != nil {
		im.skip(line, "not an otpauth: URL that can be read")
		return
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		im.skip(line, "not an otpauth: URL that can be read")
		return
	}
	issuer, account := issuerAndAccount(strings.TrimPrefix(u.Path, "/"), q.Get("issuer"))
	im.addOATH(line, oathFields{
		kind: u.Host, secret: decodeBase32(q.Get("secret")), account: account, label: issuer,
		hash: q.Get("algorithm"), digits: q.Get("digits"), period: q.Get("period"), counter: q.Get("counter"),
	})
}

// issuerAndAccount takes a label apart: issuer:account. The parameter issuer
// goes before the label's.
func issuerAndAccount(label, issuer string) (string, string) {
	before, account, ok := strings.Cut(label, ":")
	if !ok {
		return issuer, strings.TrimSpace(label)
	}
	if issuer == "" {
		issuer = before
	}
	return issuer, strings.TrimSpace(account)
}

const maxParts = 256 // of an export, and exports in a file

// readMigration reads what Google Authenticator exports as a QR code: a protocol
// buffer in a URL. Large exports have several parts.
func (im *Import) readMigration(line int, text string) {
	u, err := url.Parse(text)
	if err != nil {
		im.skip(line, "not an otpauth-migration: URL that can be read")
		return
	}
	// A + that was not escaped would be read as a blank.
	data := strings.ReplaceAll(u.Query().Get("data"), " ", "+")
	b, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		b, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(data, "="))
	}
	if err != nil || len(b) == 0 {
		im.skip(line, "not an otpauth-migration: URL that can be read")
		return
	}
	var size, index, id int64 = 1, 0, 0
	ok := eachField(b, func(field protowire.Number, number int64, value []byte) {
		switch field {
		case 1:
			im.readMigrated(line, value)
		case 3:
			size = number
		case 4:
			index = number
		case 5:
			id = number
		}
	})
	if !ok || size < 0 || size > maxParts || index < 0 || index >= max(size, 1) {
		im.skip(line, "an export of Google Authenticator that is damaged")
		return
	}
	if len(im.batches) == maxParts && im.batches[id] == nil {
		im.skip(line, "part of one export too many")
		return
	}
	im.notePart(id, size, index)
}

// readMigrated reads one authenticator of the export.
func (im *Import) readMigrated(line int, b []byte) {
	f := oathFields{secret: []byte{}}
	var name string
	ok := eachField(b, func(field protowire.Number, number int64, value []byte) {
		switch field {
		case 1:
			f.secret = value
		case 2:
			name = string(value)
		case 3:
			f.label = string(value)
		case 4:
			f.hash = choice(number, "", "SHA1", "SHA256", "SHA512", "MD5")
		case 5:
			f.digits = choice(number, "", "6", "8", "7")
		case 6:
			f.kind = choice(number, "totp", "hotp", "totp")
		case 7:
			f.counter = strconv.FormatInt(number, 10)
		}
	})
	if !ok {
		im.skip(line, "an authenticator that is damaged")
		return
	}
	f.label, f.account = issuerAndAccount(name, f.label)
	im.addOATH(line, f)
}

func choice(n int64, words ...string) string {
	if n < 0 || n >= int64(len(words)) {
		return "unknown"
	}
	return words[n]
}

// eachField calls f for each field of a protocol buffer that is a number or a
// string of bytes, and reports whether it is well-formed.
func eachField(b []byte, f func(field protowire.Number, number int64, value []byte)) bool {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			number, size := protowire.ConsumeVarint(b)
			if n = size; n >= 0 {
				f(field, int64(number), nil)
			}
		case protowire.BytesType:
			value, size := protowire.ConsumeBytes(b)
			if n = size; n >= 0 {
				f(field, 0, value)
			}
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// notePart notes that a part of an export was read.
func (im *Import) notePart(id, size, index int64) {
	parts := im.batches[id]
	if parts == nil {
		parts = make([]bool, max(size, 1))
	}
	if index < int64(len(parts)) {
		parts[index] = true
	}
	im.batches[id] = parts
}

// missingBatches says which parts of Google Authenticator's exports are not in
// the file.
func (im *Import) missingBatches() {
	for _, id := range slices.Sorted(maps.Keys(im.batches)) {
		parts := im.batches[id]
		for i, read := range parts {
			if !read {
				im.skipAt("part "+strconv.Itoa(i+1)+" of "+strconv.Itoa(len(parts)),
					"this QR code of the export is missing")
			}
		}
	}
}
