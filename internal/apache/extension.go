package apache

import (
	"slices"
	"strings"
)

// extensionOIDs are the extensions by the names that OpenSSL knows them by, in
// lower case.
var extensionOIDs = map[string]string{
	"keyusage": oidKeyUsage, "x509v3 key usage": oidKeyUsage, "extendedkeyusage": oidExtKeyUsage,
	"x509v3 extended key usage": oidExtKeyUsage,
	"nscomment":                 "2.16.840.1.113730.1.13", "netscape comment": "2.16.840.1.113730.1.13",
	"nsbaseurl": "2.16.840.1.113730.1.2", "nsrevocationurl": "2.16.840.1.113730.1.3",
	"nscapolicyurl":  "2.16.840.1.113730.1.8",
	"subjectaltname": "2.5.29.17", "basicconstraints": "2.5.29.19", "certificatepolicies": "2.5.29.32",
	"crldistributionpoints":  "2.5.29.31",
	"authoritykeyidentifier": "2.5.29.35", "subjectkeyidentifier": "2.5.29.14",
	"authorityinfoaccess": "1.3.6.1.5.5.7.1.1",
	"issueraltname":       "2.5.29.18", "nameconstraints": "2.5.29.30", "qcstatements": "1.3.6.1.5.5.7.1.3",
	"nscerttype": "2.16.840.1.113730.1.1",
}

const (
	oidKeyUsage    = "2.5.29.15"
	oidExtKeyUsage = "2.5.29.37"
)

// usageNames are usages as OpenSSL prints them, in the gate's words.
var usageNames = map[string]map[string]string{
	oidKeyUsage: {
		"Digital Signature": "digitalSignature", "Non Repudiation": "nonRepudiation",
		"Key Encipherment":  "keyEncipherment",
		"Data Encipherment": "dataEncipherment", "Key Agreement": "keyAgreement", "Certificate Sign": "keyCertSign",
		"CRL Sign":      "cRLSign",
		"Encipher Only": "encipherOnly", "Decipher Only": "decipherOnly",
	},
	oidExtKeyUsage: {
		"TLS Web Client Authentication": "clientAuth", "TLS Web Server Authentication": "serverAuth",
		"E-mail Protection": "emailProtection",
		"Code Signing":      "codeSigning", "Time Stamping": "timeStamping", "OCSP Signing": "OCSPSigning",
		"Any Extended Key Usage":          "anyExtendedKeyUsage",
		"Microsoft Smartcard Login":       "1.3.6.1.4.1.311.20.2.2",
		"Microsoft Encrypted File System": "1.3.6.1.4.1.311.10.3.4", "IPSec End System": "1.3.6.1.5.5.7.3.5",
	},
}

// inExt is a test whether a text is the value of an extension, as OpenSSL prints
// it: all usages of a certificate are one text.
func (v *vocabulary) inExt(e inExt, neg bool) (atom, error) {
	v.certificate = true
	if v.shown == noneShown {
		return atom{cel: boolText(neg)}, nil
	}
	l, err := v.value(e.l)
	if err != nil {
		return atom{}, err
	}
	oid, named := extensionOIDs[strings.ToLower(e.oid)]
	if !named {
		oid = e.oid
	}
	cel := l.cel + " in cert.extension(" + quote(oid) + ")"
	switch names := usageNames[oid]; {
	case strings.Trim(oid, "0123456789.") != "":
		return atom{},
			unmatched{"PeerExtList names an extension that Postern does not know: name it by its OID, not as " + e.oid}
	case names != nil:
		if cel, err = usages(oid, l, names); err != nil {
			return atom{}, err
		}
	case named && !strings.HasPrefix(oid, "2.16.840.1.113730.1.") || strings.HasPrefix(oid, "2.5.29."):
		return atom{}, unmatched{"what OpenSSL prints of the extension " + e.oid + " has no match here"}
	}
	if neg {
		cel = "!(" + cel + ")"
	}
	return atom{l.guards, cel, 0}, nil
}

// usages is a test that a certificate has just these usages, in this order.
func usages(oid string, printed value, names map[string]string) (string, error) {
	if !printed.known {
		return "", unmatched{"usages that are not literal"}
	}
	var list []string
	for _, u := range strings.Split(printed.literal, ", ") {
		name, ok := names[u]
		if !ok {
			return "", unmatched{"the usage " + u + " is not known"}
		}
		list = append(list, quote(name))
	}
	field := "cert.key_usage"
	if oid == oidExtKeyUsage {
		field = "cert.ext_key_usage"
		if slices.Contains(list, `"1.3.6.1.4.1.311.20.2.2"`) && len(list) > 1 {
			return "", unmatched{"the order of usages of which one has no name of its own is not known"}
		}
	}
	return field + " == [" + strings.Join(list, ", ") + "]", nil
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
