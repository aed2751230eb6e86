package otp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

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

var flags = map[string]bool{
	"1": true, "0": false, "t": true, "f": false, "true": true, "false": false, "TRUE": true,
	"FALSE": false,
}

// keyFields are a key's fields, as text.
type keyFields struct{ serial, publicID, privateID, key, created, active string }

func (im *Import) addKey(line int, f keyFields) {
	id := strings.ToLower(squeeze(f.publicID))
	if id == "" {
		im.skip(line, "a key without a public ID cannot be distinguished from others")
		return
	}
	if !ValidPublicID(id) {
		im.skip(line, "the public ID is not 1 to 16 letters of modhex")
		return
	}
	if !isSecretField(f.privateID, privateIDLength) || !isSecretField(f.key, 16) {
		im.skip(line, "private ID and key are not 12 and 32 hexadecimal digits")
		return
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

func (im *Import) addCounter(line int, f counterFields) {
	id := strings.ToLower(f.publicID)
	if !ValidPublicID(id) {
		im.skip(line, "the public ID is not 1 to 16 letters of modhex")
		return
	}
	var n [4]int64
	for i, s := range []string{f.counter, f.use, f.low, f.high} {
		var err error
		if n[i], err = strconv.ParseInt(s, 10, 64); err != nil {
			im.skip(line, "a counter is not a number")
			return
		}
	}
	if active, known := flags[f.active]; known && !active {
		im.Disabled = append(im.Disabled, id)
	}
	if n[0] < 0 {
		return // never used
	}
	last, ok := lastOf(n[0], n[1], n[2], n[3])
	if !ok {
		im.skip(line, "a counter is out of range")
		return
	}
	if modified, err := strconv.ParseInt(f.modified, 10, 64); err == nil && modified > 0 && modified < 1<<40 {
		last.Time = time.Unix(modified, 0).UTC()
	}
	if validNonce(f.nonce) {
		last.Nonce = f.nonce
	}
	im.Counters = append(im.Counters, Counter{PublicID: id, Last: last})
}

// lastOf returns the last use with a key's counters as yubikey-val stores them. Old
// versions stored the caps-lock bit in the session counter.
func lastOf(counter, use, low, high int64) (Last, bool) {
	ok := counter >= 0 && counter <= 0xffff && use >= 0 && use <= 0xff && low >= -1 && low <= 0xffff && high >= -1 &&
		high <= 0xff
	t := Token{Counter: uint16(counter) & counterMask, Use: uint8(use)}
	return Last{Seq: t.Seq(), Timestamp: uint32(max(high, 0)<<16 | max(low, 0))}, ok
}

// clientFields are an API client's fields, as text.
type clientFields struct{ id, active, created, secret, label string }

func (im *Import) addClient(line int, f clientFields) {
	id, err := strconv.ParseInt(f.id, 10, 64)
	if err != nil || id < 1 || id > MaxClientID {
		im.skip(line, "the API client's number is not 1 to %d", MaxClientID)
		return
	}
	secret, err := base64.StdEncoding.DecodeString(f.secret)
	if err != nil || len(secret) > 64 {
		im.skip(line, "the API client's secret is not base64 of at most 64 bytes")
		return
	}
	c := &APIClient{ID: id, Secret: secret, Label: f.label}
	if active, known := flags[f.active]; known && !active {
		c.Disabled = true
	}
	im.Clients = append(im.Clients, c)
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
			im.skip(n, "not a line of the given format")
			continue
		}
		value := map[string]string{}
		for i, name := range names {
			value[name] = m[i+1]
		}
		if !isSecretField(value["secretKeyTxt"], 16) || !isSecretField(value["pvtIdTxt"], privateIDLength) {
			im.skip(n, "not a Yubico OTP slot")
			continue
		}
		im.addKey(n, keyFields{
			serial: value["serial"], publicID: value["pubIdTxt"], privateID: value["pvtIdTxt"],
			key: value["secretKeyTxt"], created: value["timestampFixed"], active: "1",
		})
	}
	return nil
}

// yubiserverCounter reads the counter of yubiserver's table: session counter and
// use as one number, as ours.
func yubiserverCounter(publicID, counter, stamp string) (Counter, bool) {
	seq, err1 := strconv.ParseInt(counter, 10, 64)
	ticks, err2 := strconv.ParseInt(stamp, 10, 64)
	if err1 != nil || err2 != nil || seq < 0 || seq > 1<<24-1 {
		return Counter{}, false
	}
	t := Token{Counter: uint16(seq>>8) & counterMask, Use: uint8(seq)}
	return Counter{
		PublicID: strings.ToLower(publicID),
		Last:     Last{Seq: t.Seq(), Timestamp: uint32(max(0, ticks)) & maxTimestamp},
	}, true
}
