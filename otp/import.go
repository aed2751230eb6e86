package otp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// maxImport bounds a file that is imported, in bytes.
const maxImport = 256 << 20

// Import is what a file from elsewhere holds.
type Import struct {
	Keys     []*Key
	Counters []Counter
	Disabled []string // public IDs of counters whose keys were disabled
	Clients  []*APIClient
	Skipped  []Skipped // lines of other things than keys: fixed passwords, HOTP slots
}

// Skipped is a line that was understood and has nothing to import.
type Skipped struct {
	Line int
	Why  string
}

// lineError says which line is wrong, never what is in it: that may be a key.
func lineError(line int, format string, args ...any) error {
	return postern.Errorf(postern.Invalid, "line %d: %w", line, fmt.Errorf(format, args...))
}

// ReadImport reads keys, counters and API clients. It knows, and tells apart by
// itself:
//
//   - the key file of yubikey-ksm ("# ykksm 1"), and the same lines as ykman
//     and the personalization tools write them,
//   - the personalization tool's traditional log and its PSKC,
//   - yubikey-val's exports of counters and of clients,
//   - SQL dumps of yubikey-val, yubikey-ksm and yubiserver, by the names of
//     their columns: of SQLite, MySQL and PostgreSQL.
//
// A log in the personalization tool's flexible format needs that format, as it
// was given there. It fails on the first line that it does not understand.
func ReadImport(r io.Reader, format string) (*Import, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxImport+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxImport:
		return nil, postern.Errorf(postern.Invalid, "the file is longer than %d bytes", maxImport).WithHint("split it; the order does not matter")
	case bytes.Contains(b, []byte("-----BEGIN PGP MESSAGE")):
		return nil, postern.Errorf(postern.Invalid, "the file is encrypted").WithHint("gpg --decrypt FILE | postern otp import -")
	}
	im := &Import{}
	switch {
	case format != "":
		err = im.readFlexible(b, format)
	case bytes.Contains(b[:min(len(b), 4096)], []byte("<KeyContainer")):
		err = im.readPSKC(b)
	case sqlStatement.Match(b):
		err = im.readSQL(b)
	default:
		err = im.readLines(b)
	}
	if err != nil {
		return nil, err
	}
	return im, nil
}

// readLines reads comma-separated lines of any of the formats.
func (im *Import) readLines(b []byte) error {
	n := 0
	for line := range bytes.Lines(b) {
		n++
		text, _, _ := strings.Cut(string(line), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		fields := strings.Split(text, ",")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if err := im.readFields(n, fields); err != nil {
			return err
		}
	}
	return nil
}

// readFields finds out what a line is: each format has something where no other
// has it.
func (im *Import) readFields(line int, f []string) error {
	switch {
	case f[0] == "LOGGING START":
		return nil
	case len(f) >= 6 && isSecretField(f[2], privateIDLength) && isSecretField(f[3], 16):
		return im.addKey(line, keyFields{serial: f[0], publicID: f[1], privateID: f[2], key: f[3], created: f[5], active: "1"})
	case len(f) >= 9 && isFlag(f[0]) && isNumber(f[1]) && isNumber(f[4]) && isNumber(f[7]):
		return im.addCounter(line, counterFields{active: f[0], modified: f[2], publicID: f[3], counter: f[4], use: f[5], low: f[6], high: f[7], nonce: f[8]})
	case len(f) >= 4 && len(f) <= 7 && isNumber(f[0]) && isFlag(f[1]) && isNumber(f[2]):
		return im.addClient(line, clientFields{id: f[0], active: f[1], created: f[2], secret: f[3]})
	}
	// The traditional log: the local date has commas in some countries.
	for i := 2; i+2 < len(f); i++ {
		if isSecretField(f[i+1], privateIDLength) && isSecretField(f[i+2], 16) {
			return im.addKey(line, keyFields{publicID: f[i], privateID: f[i+1], key: f[i+2], active: "1"})
		}
	}
	switch kind, _, _ := strings.Cut(f[0], ":"); {
	case len(f) >= 12 && (kind == "OATH-HOTP" || kind == "Static Password" || kind == "Challenge-Response"), len(f) >= 12 && kind == "Swap":
		im.skip(line, "not a Yubico OTP slot")
		return nil
	case len(f) >= 6 && isNumber(f[0]) && (f[2] == "" || isNumber(f[2])) && (isHex(f[3]) || f[3] == ""):
		im.skip(line, "not a Yubico OTP slot") // HOTP, HMAC or a password, in Yubico's format
		return nil
	}
	return lineError(line, "not a line of a known format")
}

func (im *Import) skip(line int, why string) { im.Skipped = append(im.Skipped, Skipped{line, why}) }

// squeeze takes out the blanks that the personalization tool shows in hex.
func squeeze(s string) string { return strings.ReplaceAll(s, " ", "") }

func isHex(s string) bool {
	_, err := hex.DecodeString(squeeze(s))
	return err == nil && s != ""
}

func isSecretField(s string, n int) bool { return len(squeeze(s)) == 2*n && isHex(s) }

func isNumber(s string) bool {
	_, err := strconv.ParseInt(s, 10, 64)
	return err == nil
}

func isFlag(s string) bool {
	_, ok := flags[s]
	return ok
}

var flags = map[string]bool{"1": true, "0": false, "t": true, "f": false, "true": true, "false": false, "TRUE": true, "FALSE": false}

// keyFields are a key's fields, as text.
type keyFields struct{ serial, publicID, privateID, key, created, active string }

func (im *Import) addKey(line int, f keyFields) error {
	id := strings.ToLower(squeeze(f.publicID))
	if id == "" {
		im.skip(line, "a key without a public ID cannot be told from others")
		return nil
	}
	if !ValidPublicID(id) {
		return lineError(line, "the public ID is not 1 to 16 letters of modhex")
	}
	if !isSecretField(f.privateID, privateIDLength) || !isSecretField(f.key, 16) {
		return lineError(line, "private ID and key are not 12 and 32 hexadecimal digits")
	}
	k := &Key{PublicID: id, Secret: &Secret{}, Status: postern.CredentialActive, Last: Never}
	_, _ = hex.Decode(k.Secret.PrivateID[:], []byte(squeeze(f.privateID))) // checked above
	_, _ = hex.Decode(k.Secret.Key[:], []byte(squeeze(f.key)))
	k.Serial, _ = strconv.ParseInt(f.serial, 10, 64)
	k.Created = parseDate(f.created)
	if active, known := flags[f.active]; known && !active {
		k.Status = postern.CredentialDisabled
	}
	im.Keys = append(im.Keys, k)
	return nil
}

// parseDate reads a date as these files have it, or returns no time.
func parseDate(s string) time.Time {
	for _, layout := range []string{"2006-01-02T15:04:05", time.DateTime} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() > 2000 {
			return t
		}
	}
	return time.Time{}
}

// counterFields are a key's last use, as text.
type counterFields struct{ active, modified, publicID, counter, use, low, high, nonce string }

func (im *Import) addCounter(line int, f counterFields) error {
	id := strings.ToLower(f.publicID)
	if !ValidPublicID(id) {
		return lineError(line, "the public ID is not 1 to 16 letters of modhex")
	}
	var n [4]int64
	for i, s := range []string{f.counter, f.use, f.low, f.high} {
		var err error
		if n[i], err = strconv.ParseInt(s, 10, 64); err != nil {
			return lineError(line, "a counter is not a number")
		}
	}
	if active, known := flags[f.active]; known && !active {
		im.Disabled = append(im.Disabled, id)
	}
	if n[0] < 0 {
		return nil // never used
	}
	last, ok := lastOf(n[0], n[1], n[2], n[3])
	if !ok {
		return lineError(line, "a counter is out of range")
	}
	if modified, err := strconv.ParseInt(f.modified, 10, 64); err == nil && modified > 0 && modified < 1<<40 {
		last.Time = time.Unix(modified, 0).UTC()
	}
	if validNonce(f.nonce) {
		last.Nonce = f.nonce
	}
	im.Counters = append(im.Counters, Counter{PublicID: id, Last: last})
	return nil
}

// lastOf puts a key's counters together, in yubikey-val's terms. Old versions
// kept the caps-lock bit in the session counter.
func lastOf(counter, use, low, high int64) (Last, bool) {
	ok := counter >= 0 && counter <= 0xffff && use >= 0 && use <= 0xff && low >= -1 && low <= 0xffff && high >= -1 && high <= 0xff
	t := Token{Counter: uint16(counter) & counterMask, Use: uint8(use)}
	return Last{Seq: t.Seq(), Timestamp: uint32(max(high, 0)<<16 | max(low, 0))}, ok
}

// clientFields are an API client's fields, as text.
type clientFields struct{ id, active, created, secret, label string }

func (im *Import) addClient(line int, f clientFields) error {
	id, err := strconv.ParseInt(f.id, 10, 64)
	if err != nil || id < 1 || id > MaxClientID {
		return lineError(line, "the API client's number is not 1 to %d", MaxClientID)
	}
	secret, err := base64.StdEncoding.DecodeString(f.secret)
	if err != nil || len(secret) > 64 {
		return lineError(line, "the API client's secret is not base64 of at most 64 bytes")
	}
	c := &APIClient{ID: id, Secret: secret, Label: f.label}
	if active, known := flags[f.active]; known && !active {
		c.Disabled = true
	}
	im.Clients = append(im.Clients, c)
	return nil
}

// flexible finds the variables of the personalization tool's flexible format.
var flexible = regexp.MustCompile(`\{[A-Za-z0-9]+\}`)

// readFlexible reads a log whose lines were written by a format with variables
// in braces, among them {pubIdTxt}, {pvtIdTxt} and {secretKeyTxt}.
func (im *Import) readFlexible(b []byte, format string) error {
	if len(format) > 1024 {
		return postern.Errorf(postern.Invalid, "the format is too long")
	}
	format = strings.NewReplacer("{endl}", "", "{tab}", "\t").Replace(format)
	var pattern strings.Builder
	var names []string
	pattern.WriteString("^")
	for at := 0; at < len(format); {
		where := flexible.FindStringIndex(format[at:])
		if where == nil {
			pattern.WriteString(regexp.QuoteMeta(format[at:]))
			break
		}
		pattern.WriteString(regexp.QuoteMeta(format[at:at+where[0]]) + "(.*?)")
		names = append(names, format[at+where[0]+1:at+where[1]-1])
		at += where[1]
	}
	pattern.WriteString("$")
	re, err := regexp.Compile(pattern.String())
	if err != nil {
		return postern.Errorf(postern.Invalid, "the format cannot be read")
	}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		text := strings.TrimSpace(string(line))
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		m := re.FindStringSubmatch(text)
		if m == nil {
			return lineError(n, "not a line of the given format")
		}
		value := map[string]string{}
		for i, name := range names {
			value[name] = m[i+1]
		}
		if !isSecretField(value["secretKeyTxt"], 16) || !isSecretField(value["pvtIdTxt"], privateIDLength) {
			im.skip(n, "not a Yubico OTP slot")
			continue
		}
		err := im.addKey(n, keyFields{
			serial: value["serial"], publicID: value["pubIdTxt"], privateID: value["pvtIdTxt"],
			key: value["secretKeyTxt"], created: value["timestampFixed"], active: "1",
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pskcKey is a KeyPackage as the personalization tool writes it.
type pskcKey struct {
	Serial string `xml:"DeviceInfo>SerialNo"`
	Key    struct {
		Algorithm string `xml:"Algorithm,attr"`
		Secret    string `xml:"Data>Secret>PlainValue"`
		User      string `xml:"UserId"`
	} `xml:"Key"`
}

// pskcUser is where the tool puts public and private ID.
var pskcUser = regexp.MustCompile(`^CN=([a-zA-Z ]*), UID=([0-9a-fA-F ]*)$`)

// readPSKC reads the tool's flavour of RFC 6030. A log that is still open has
// no end, which is no harm.
func (im *Import) readPSKC(b []byte) error {
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		line, _ := d.InputPos()
		if err != nil {
			if strings.Contains(err.Error(), "unexpected EOF") {
				return nil
			}
			return lineError(line, "not well-formed XML")
		}
		start, ok := tok.(xml.StartElement)
		if !ok || start.Name.Local != "KeyPackage" {
			continue
		}
		var k pskcKey
		if err := d.DecodeElement(&k, &start); err != nil {
			return lineError(line, "a key package that cannot be read")
		}
		if err := im.addPSKC(line, k); err != nil {
			return err
		}
	}
}

func (im *Import) addPSKC(line int, k pskcKey) error {
	if !strings.HasSuffix(k.Key.Algorithm, "#yubikey-aes") {
		im.skip(line, "not a Yubico OTP slot")
		return nil
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(k.Key.Secret))
	user := pskcUser.FindStringSubmatch(strings.TrimSpace(k.Key.User))
	if err != nil || len(secret) != 16 || user == nil {
		return lineError(line, "a key package without AES key, public ID or private ID")
	}
	return im.addKey(line, keyFields{serial: k.Serial, publicID: user[1], privateID: user[2], key: hex.EncodeToString(secret), active: "1"})
}

// addYubiserver takes over the counter of yubiserver's table: session counter
// and use as one number, as ours.
func (im *Import) addYubiserver(line int, publicID, counter, stamp string) error {
	seq, err1 := strconv.ParseInt(counter, 10, 64)
	ticks, err2 := strconv.ParseInt(stamp, 10, 64)
	if err1 != nil || err2 != nil || seq < 0 || seq > 1<<24-1 {
		return lineError(line, "a counter is out of range")
	}
	t := Token{Counter: uint16(seq>>8) & counterMask, Use: uint8(seq)}
	im.Counters = append(im.Counters, Counter{
		PublicID: strings.ToLower(publicID),
		Last:     Last{Seq: t.Seq(), Timestamp: uint32(max(0, ticks)) & maxTimestamp},
	})
	return nil
}
