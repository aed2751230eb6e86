package otp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
)

// keyContainer is the root element of PSKC, with or without a prefix.
var keyContainer = regexp.MustCompile(`<([A-Za-z_][A-Za-z0-9_.-]*:)?KeyContainer[\s>]`)

// pskcPackage is a KeyPackage of RFC 6030. Elements are known by their local
// names: the prefixes are the writer's choice.
type pskcPackage struct {
	Device struct {
		Serial string `xml:"SerialNo"`
		User   string `xml:"UserId"`
	} `xml:"DeviceInfo"`
	Keys []pskcKey `xml:"Key"`
}

// pskcKey is a Key of RFC 6030.
type pskcKey struct {
	ID        string `xml:"Id,attr"`
	Algorithm string `xml:"Algorithm,attr"`
	Issuer    string `xml:"Issuer"`
	Friendly  string `xml:"FriendlyName"`
	User      string `xml:"UserId"`
	Suite     string `xml:"AlgorithmParameters>Suite"`
	Response  struct {
		Encoding string `xml:"Encoding,attr"`
		Length   string `xml:"Length,attr"`
		Check    string `xml:"CheckDigits,attr"`
	} `xml:"AlgorithmParameters>ResponseFormat"`
	Secret   pskcValue `xml:"Data>Secret"`
	Counter  pskcValue `xml:"Data>Counter"`
	Interval pskcValue `xml:"Data>TimeInterval"`
	Drift    pskcValue `xml:"Data>TimeDrift"`
	Policy   *struct {
		Start  string   `xml:"StartDate"`
		Expiry string   `xml:"ExpiryDate"`
		Times  string   `xml:"NumberOfTransactions"`
		Usage  []string `xml:"KeyUsage"`
		PIN    *struct {
			Mode string `xml:"PINUsageMode,attr"`
		} `xml:"PINPolicy"`
	} `xml:"Policy"`
}

// readPSKC reads RFC 6030, and the personalization tool's variant of it. A log that the
// tool still writes has no end tag, and is read all the same.
func (im *Import) readPSKC(b []byte) error {
	d := xml.NewDecoder(bytes.NewReader(b))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil } // it is UTF-8 by now
	keys := &pskcKeys{im: im}
	for {
		tok, err := d.Token()
		line, _ := d.InputPos()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			if !strings.Contains(err.Error(), "unexpected EOF") {
				im.skip(line, "not well-formed XML; what follows is not read")
			}
			return nil
		}
		start, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		if err := im.readPSKCElement(d, start, line, keys); err != nil {
			return err
		}
	}
}

func (im *Import) readPSKCElement(d *xml.Decoder, start xml.StartElement, line int, keys *pskcKeys) error {
	switch start.Name.Local {
	case "EncryptionKey":
		if d.DecodeElement(&keys.encryption, &start) != nil {
			return postern.Errorf(postern.Invalid, "line %d: how the keys are encrypted cannot be read", line)
		}
	case "MACMethod":
		if d.DecodeElement(&keys.mac, &start) != nil {
			return postern.Errorf(postern.Invalid, "line %d: the MAC method cannot be read", line)
		}
	case "KeyPackage":
		var p pskcPackage
		if d.DecodeElement(&p, &start) != nil {
			im.skip(line, "a key package that cannot be read")
			return nil
		}
		for _, k := range p.Keys {
			if err := im.addPSKC(line, p, k, keys); err != nil {
				return err
			}
		}
	}
	return nil
}

func (im *Import) addPSKC(line int, p pskcPackage, k pskcKey, keys *pskcKeys) error {
	if why := k.unusable(); why != "" {
		im.skip(line, "%s", why)
		return nil
	}
	secret, why, err := keys.value(k.Secret)
	if err != nil {
		return err
	}
	if why != "" {
		im.skip(line, "%s", why)
		return nil
	}
	if strings.HasSuffix(k.Algorithm, "#yubikey-aes") {
		im.addYubicoPSKC(line, p, k, secret)
		return nil
	}
	counter, why1, err1 := keys.number(k.Counter)
	interval, why2, err2 := keys.number(k.Interval)
	drift, why3, err3 := keys.number(k.Drift)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if why := why1 + why2 + why3; why != "" {
		im.skip(line, "%s", why)
		return nil
	}
	if drift != "" && drift != "0" {
		im.skip(line, "the authenticator's clock is known to be wrong, which cannot be imported")
		return nil
	}
	im.addOATH(line, oathFields{
		kind: pskcAlgorithm(k.Algorithm), secret: secret, account: pskcOwner(k.User, p.Device.User),
		serial: p.Device.Serial,
		label:  firstOf(k.Friendly, k.Issuer), hash: k.Suite, digits: k.Response.Length, period: interval,
		counter: counter,
	})
	return nil
}

// unusable returns why a key cannot be used under its file's policy, or "". A policy
// that is not understood forbids the key (RFC 6030, section 5).
func (k pskcKey) unusable() string {
	yubico := strings.HasSuffix(k.Algorithm, "#yubikey-aes")
	switch kind := pskcAlgorithm(k.Algorithm); {
	case !yubico && oathKinds[kind] == "":
		return "neither Yubico OTP, TOTP nor HOTP"
	case !yubico && k.Response.Encoding != "" && !strings.EqualFold(k.Response.Encoding, "DECIMAL"):
		return "its codes are not decimal"
	case k.Response.Check == "true" || k.Response.Check == "1":
		return "its codes have a check digit"
	case k.Policy == nil:
		return ""
	case k.Policy.Start != "" || k.Policy.Expiry != "" || k.Policy.Times != "":
		return "it may be used for a time or a number of times only, which cannot be imported"
	case k.Policy.PIN != nil && !strings.EqualFold(k.Policy.PIN.Mode, "Local"):
		return "it is used with a PIN, which cannot be imported"
	}
	for _, usage := range k.Policy.Usage {
		if strings.EqualFold(strings.TrimSpace(usage), "OTP") {
			return ""
		}
	}
	if len(k.Policy.Usage) > 0 {
		return "it may not be used for one-time passwords"
	}
	return ""
}

// pskcAlgorithm returns the last word of an algorithm's URI; drafts had a # for
// the colon.
func pskcAlgorithm(uri string) string {
	return strings.ToLower(uri[strings.LastIndexAny(uri, ":#")+1:])
}

// pskcCN is the part of a distinguished name that names a person.
var pskcCN = regexp.MustCompile(`(?i)^\s*(?:CN|UID)\s*=\s*([^,]+)`)

// pskcOwner returns a key's owner: the name in a distinguished name, or the whole text.
func pskcOwner(names ...string) string {
	name := strings.TrimSpace(firstOf(names...))
	if m := pskcCN.FindStringSubmatch(name); m != nil {
		return strings.TrimSpace(m[1])
	}
	return name
}

func firstOf(all ...string) string {
	for _, s := range all {
		if strings.TrimSpace(s) != "" {
			return s
		}
	}
	return ""
}

// pskcUser is the form in which the personalization tool writes public and private ID.
var pskcUser = regexp.MustCompile(`^CN=([a-zA-Z ]*), UID=([0-9a-fA-F ]*)$`)

func (im *Import) addYubicoPSKC(line int, p pskcPackage, k pskcKey, secret []byte) {
	user := pskcUser.FindStringSubmatch(strings.TrimSpace(k.User))
	if len(secret) != 16 || user == nil {
		im.skip(line, "a key package without AES key, public ID or private ID")
		return
	}
	im.addKey(line, keyFields{
		serial: p.Device.Serial, publicID: user[1], privateID: user[2], key: hex.EncodeToString(secret), active: "1",
	})
}

// pskcNumber returns a counter as text. RFC 6030 writes it as a number; drafts
// and some writers encode its bytes.
func pskcNumber(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if s == "" || isNumber(s) {
		return s, true
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", false
	}
	return numberOf(b)
}

// numberOf reads an integer that was encrypted: as decimal digits or as bytes,
// the highest first.
func numberOf(b []byte) (string, bool) {
	if isNumber(string(b)) {
		return string(b), true
	}
	if len(b) > 8 {
		return "", false
	}
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return strconv.FormatUint(n, 10), true
}
