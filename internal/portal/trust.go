package portal

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

func (p *Portal) trustPage(r *request) error {
	var roots []shownRoot
	for _, c := range p.Authority.Roots() {
		sum := sha256.Sum256(c.Raw)
		roots = append(roots, shownRoot{
			inOrder(c.Subject), c.NotAfter, colons(sum[:]), hex.EncodeToString(sum[:]), c.PermittedDNSDomains,
		})
	}
	p.render(r, 200, "trust", page{Title: "Trust the root", Nav: "trust", Data: map[string]any{"Roots": roots}})
	return nil
}

// shownRoot is a root on the page.
type shownRoot struct {
	Subject     string
	Until       time.Time
	Fingerprint string // SHA-256, to be read
	ID          string // the same, in a URL
	Only        []string
}

// roots shows an administrator who has certificates of which root.
func (p *Portal) roots(r *request) error {
	anchors, left, err := p.Authority.Anchors(r.Context())
	if err != nil {
		return err
	}
	p.render(r, 200, "roots", page{Title: "Roots", Nav: "admin", Tab: "roots", Data: map[string]any{
		"Anchors": anchors, "Left": left,
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
	var all [][]byte
	for _, c := range p.Authority.Roots() {
		all = append(all, c.Raw)
	}
	download(r, "application/x-pem-file", "postern-root.pem", chainPEM(all))
	return nil
}

// rootDER answers with the newest root, or that with the fingerprint in the query.
func (p *Portal) rootDER(r *request) error {
	want := r.URL.Query().Get("sha256")
	for _, c := range p.Authority.Roots() {
		if sum := sha256.Sum256(c.Raw); want == "" || want == hex.EncodeToString(sum[:]) {
			download(r, "application/x-x509-ca-cert", "postern-root.crt", string(c.Raw))
			return nil
		}
	}
	return postern.Errorf(postern.NotFound, "There is no such root.")
}

// rootProfile answers with the roots as a configuration profile for Apple's systems.
func (p *Portal) rootProfile(r *request) error {
	roots := p.Authority.Roots()
	sum := sha256.Sum256(roots[0].Raw)
	name := xmlText(p.Name)
	var payloads strings.Builder
	for _, c := range roots {
		payloads.WriteString(rootPayload(c.Raw, name))
	}
	body := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>PayloadType</key><string>Configuration</string>
<key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>postern.root.%[1]x</string>
<key>PayloadUUID</key><string>%[2]s</string>
<key>PayloadDisplayName</key><string>Root certificate of %[3]s</string>
<key>PayloadContent</key><array>%[4]s</array>
</dict></plist>
`, sum[:8], uuidOf(sum[:16]), name, payloads.String())
	download(r, "application/x-apple-aspen-config", "postern-root.mobileconfig", body)
	return nil
}

// rootPayload returns a root as a part of a configuration profile.
func rootPayload(der []byte, name string) string {
	sum := sha256.Sum256(der)
	return fmt.Sprintf(`<dict>
<key>PayloadType</key><string>com.apple.security.root</string>
<key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>postern.root.%[1]x.certificate</string>
<key>PayloadUUID</key><string>%[2]s</string>
<key>PayloadDisplayName</key><string>Root of %[3]s</string>
<key>PayloadContent</key><data>%[4]s</data>
</dict>`, sum[:8], uuidOf(sum[16:]), name, base64.StdEncoding.EncodeToString(der))
}

func uuidOf(b []byte) string {
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}

func xmlText(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
