package front

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/postern-project/postern/posterntest"
	"software.sslmate.com/src/go-pkcs12"
)

// pkcs12 writes a holder's key and certificates to a file and returns its name.
func (h *house) pkcs12(t *testing.T, who *holder, issuers ...*holder) string {
	t.Helper()
	chain := who.pass
	for _, i := range issuers {
		chain = append(chain, i.cert)
	}
	data, err := pkcs12.Modern.Encode(who.key, who.cert, chain, "password")
	if err != nil {
		t.Fatal(err)
	}
	return h.file(t, who.cert.Subject.CommonName+".p12", string(data))
}

// visit opens a page and returns its text. The name is that of a screenshot,
// kept if POSTERN_SCREENSHOTS names a directory.
func visit(t *testing.T, ctx context.Context, url, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Navigate(url)); err != nil {
		t.Errorf("%s: %v", url, err)
		return ""
	}
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
	if err != nil {
		t.Errorf("%s: %v", url, err)
		return ""
	}
	shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Errorf("%s: %v", url, err)
	}
	if dir := os.Getenv("POSTERN_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), shot, 0o644); err != nil {
			t.Error(err)
		}
	}
	return text
}

// TestABrowser visits with Chromium: who has the certificate sees the guarded
// page; who has none, or only another CA's, sees why not, and nobody is asked for one on a public
// page.
func TestABrowser(t *testing.T) {
	h, https, _ := attackedHouse(t)
	Mount("https://id.localhost/")
	alice := h.pkcs12(t, h.person(t, "alice"), h.client, h.root)
	elsewhere := issue(t, nil, authority("Elsewhere CA"))
	stranger := h.pkcs12(t, issue(t, elsewhere, person("stranger")), elsewhere)
	root := h.file(t, "root.pem", string(h.root.pem()))
	base := fmt.Sprintf("https://localhost:%d", https)

	t.Run("with the certificate", func(t *testing.T) {
		b := posterntest.NewBrowser(t)
		b.Trust(root)
		b.Import(alice, "password")
		ctx := b.Open(true)
		if got := visit(t, ctx, base+"/", "alice-public"); got != public {
			t.Errorf("public page: %q", got)
		}
		if got := visit(t, ctx, base+"/wp-admin/", "alice-guarded"); got != secret {
			t.Errorf("guarded page: %q", got)
		}
	})
	t.Run("with another CA's", func(t *testing.T) {
		b := posterntest.NewBrowser(t)
		b.Trust(root)
		b.Import(stranger, "password")
		ctx := b.Open(false) // a question would never be answered
		if got := visit(t, ctx, base+"/", "stranger-public"); got != public {
			t.Errorf("public page: %q", got)
		}
		if got := visit(t, ctx, base+"/wp-admin/", "stranger-guarded"); !strings.Contains(got, "showed no certificate") || !strings.Contains(got, "Get a certificate") {
			t.Errorf("guarded page: %q", got)
		}
	})
}
