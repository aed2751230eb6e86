package portal

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

func (p *Portal) trustPage(r *request) error {
	root := p.Authority.Root()
	sum := sha256.Sum256(root.Raw)
	p.render(r, 200, "trust", page{Title: "Trust the root", Nav: "trust", Data: map[string]any{
		"Subject": inOrder(root.Subject), "Until": root.NotAfter, "Fingerprint": colons(sum[:]),
		"Only": root.PermittedDNSDomains,
	}})
	return nil
}

// inOrder writes a name as the certificate has it: O=Example,CN=Example Root CA.
func inOrder(name pkix.Name) string {
	parts := name.ToRDNSequence()
	slices.Reverse(parts) // String begins at the end
	return parts.String()
}

// colons writes bytes as fingerprints are read: AB:CD:….
func colons(b []byte) string {
	parts := make([]string, len(b))
	for i := range b {
		parts[i] = strings.ToUpper(hex.EncodeToString(b[i : i+1]))
	}
	return strings.Join(parts, ":")
}

func (p *Portal) importPage(r *request) error {
	p.render(r, 200, "import", page{Title: "Import your certificate", Nav: "import"})
	return nil
}

func (p *Portal) rootPEM(r *request) error {
	download(r, "application/x-pem-file", "postern-root.pem",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Authority.Root().Raw})))
	return nil
}

func (p *Portal) rootDER(r *request) error {
	download(r, "application/x-x509-ca-cert", "postern-root.crt", string(p.Authority.Root().Raw))
	return nil
}

// rootProfile answers with the root as a configuration profile for Apple's systems.
func (p *Portal) rootProfile(r *request) error {
	root := p.Authority.Root().Raw
	sum := sha256.Sum256(root)
	name := xmlText(p.Name)
	body := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>PayloadType</key><string>Configuration</string>
<key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>postern.root.%[1]x</string>
<key>PayloadUUID</key><string>%[2]s</string>
<key>PayloadDisplayName</key><string>Root certificate of %[3]s</string>
<key>PayloadContent</key><array><dict>
<key>PayloadType</key><string>com.apple.security.root</string>
<key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>postern.root.%[1]x.certificate</string>
<key>PayloadUUID</key><string>%[4]s</string>
<key>PayloadDisplayName</key><string>Root of %[3]s</string>
<key>PayloadContent</key><data>%[5]s</data>
</dict></array>
</dict></plist>
`, sum[:8], uuidOf(sum[:16]), name, uuidOf(sum[16:]), base64.StdEncoding.EncodeToString(root))
	download(r, "application/x-apple-aspen-config", "postern-root.mobileconfig", body)
	return nil
}

func uuidOf(b []byte) string {
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}

func xmlText(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
