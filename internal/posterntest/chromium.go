package posterntest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Browser is a Chromium with a home and a certificate database of its own.
type Browser struct {
	Home string
	t    testing.TB
}

// NewBrowser makes the home of a Chromium, with an empty certificate database.
func NewBrowser(t testing.TB) *Browser {
	t.Helper()
	Need(t, "chromium")
	b := &Browser{Home: t.TempDir(), t: t}
	for _, db := range b.databases() {
		if err := os.MkdirAll(db, 0o700); err != nil {
			t.Fatal(err)
		}
		b.run("certutil", "-d", "sql:"+db, "-N", "--empty-password")
	}
	return b
}

// databases are the places where Chromium looks for certificates: the old and
// the new one.
func (b *Browser) databases() []string {
	return []string{filepath.Join(b.Home, ".pki/nssdb"), filepath.Join(b.Home, ".local/share/pki/nssdb")}
}

func (b *Browser) run(program string, args ...string) {
	b.t.Helper()
	cmd := exec.Command(Need(b.t, program), args...)
	cmd.Env = append(os.Environ(), "HOME="+b.Home)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// Trust makes the browser trust a root certificate, a PEM file, for servers.
func (b *Browser) Trust(file string) {
	b.t.Helper()
	for _, db := range b.databases() {
		b.run("certutil", "-d", "sql:"+db, "-A", "-t", "C,,", "-n", "root "+filepath.Base(file), "-i", file)
	}
}

// Import puts a PKCS#12 file into the browser's database.
func (b *Browser) Import(file, password string) {
	b.t.Helper()
	for _, db := range b.databases() {
		b.run("pk12util", "-d", "sql:"+db, "-i", file, "-W", password, "-K", "")
	}
}

// Open starts the browser and returns a context for chromedp. With choose, it
// shows a certificate that a site asks for without asking its user, by a policy that
// only this browser sees; without, a question to the user would never be
// answered. It ends with the test.
func (b *Browser) Open(choose bool, flags ...chromedp.ExecAllocatorOption) context.Context {
	b.t.Helper()
	tmp, err := os.MkdirTemp("", "chromium") // short, for the name of a socket
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { os.RemoveAll(tmp) })
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(b.launcher(choose)),
		chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true), // nor is one imitated by the processor
		chromedp.Flag("disable-software-rasterizer", true),
		chromedp.WindowSize(1024, 768),
		chromedp.Env("HOME="+b.Home, "TMPDIR="+tmp, "XDG_CONFIG_HOME="+b.Home+"/.config",
			"XDG_DATA_HOME="+b.Home+"/.local/share"),
	)
	opts = append(opts, flags...)
	ctx, stop := context.WithTimeout(b.t.Context(), 15*time.Minute)
	ctx, cancel := chromedp.NewExecAllocator(ctx, opts...)
	ctx, end := chromedp.NewContext(ctx, chromedp.WithErrorf(b.t.Logf))
	b.t.Cleanup(func() { end(); cancel(); stop() })
	if err := chromedp.Do(ctx); err != nil {
		b.t.Fatal(err)
	}
	return ctx
}

// launcher writes the program that starts Chromium, in a mount namespace where
// its policies are ours.
func (b *Browser) launcher(choose bool) string {
	b.t.Helper()
	chromium := Need(b.t, "chromium")
	path := filepath.Join(b.Home, fmt.Sprintf("chromium-%v", choose))
	script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", chromium)
	if choose {
		policies := filepath.Join(b.Home, "etc/policies/managed")
		if err := os.MkdirAll(policies, 0o755); err != nil {
			b.t.Fatal(err)
		}
		policy := `{"AutoSelectCertificateForUrls": ["{\"pattern\":\"*\",\"filter\":{}}"]}`
		if err := os.WriteFile(filepath.Join(policies, "postern.json"), []byte(policy), 0o644); err != nil {
			b.t.Fatal(err)
		}
		script = fmt.Sprintf("#!/bin/sh\nexec %s --mount --map-root-user sh -c 'mount --bind %s /etc/chromium && "+
			"exec %s \"$@\"' sh \"$@\"\n",
			Need(b.t, "unshare"), filepath.Join(b.Home, "etc"), chromium)
	}
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		b.t.Fatal(err)
	}
	return path
}
