package docs_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/postern-project/postern/internal/posterntest"
)

// sample is what the pictures show, on a host on which the first tutorial was
// followed.
const sample = `set -e
cd
postern user add alice --email alice@example.com --full-name 'Alice Example' --group admin
postern user add bob --email bob@example.com --full-name 'Bob Example' --group audit
postern user add erin --email erin@example.com
postern user suspend erin
postern ca issue --client alice --label laptop --out alice >password
postern ca issue --client bob --label workstation --out bob
postern ca issue --server www.example.com --out www
postern otp token new token.json
postern otp token csv token.json | postern otp import --person alice -
postern otp verify $(postern otp token touch token.json)
`

// page is one picture: where it is, and what is done there first.
type page struct {
	name, url string
	then      string // an expression to run on the page
	leads     string // the heading of the page that then leads to; "" if it stays
	status    int    // of the answer; 0 means 200
}

const (
	portal   = "https://id.example.internal"
	openAll  = `document.querySelectorAll("details").forEach(d => d.open = true)`
	makeHere = `(() => { const f = document.querySelector("[data-make]"); ` +
		`f.querySelector("[name=label]").value = "tablet"; ` +
		`f.querySelector("[data-pass]").value = f.querySelector("[data-pass2]").value = "long enough a passphrase" })()`
)

var unauthenticatedPages = []page{
	{name: "refusal", url: "https://www.example.internal/wp-admin/", status: 403},
	{name: "welcome", url: portal + "/"},
	{name: "enrol", url: "LINK"},
	{name: "recover", url: portal + "/recover"},
	{name: "trust", url: portal + "/trust"},
	{name: "import", url: portal + "/import"},
	{name: "not-found", url: portal + "/nowhere", status: 404},
}

var alicesPages = []page{
	{name: "home", url: portal + "/"},
	{name: "certificates", url: portal + "/certificates"},
	{name: "certificate", url: portal + "/certificates/SERIAL"},
	{name: "certificate-new", url: portal + "/certificates/new", then: makeHere},
	{
		name: "server-new", url: portal + "/servers/new",
		then: `document.querySelector("[name=names]").value = "db.example.com\n*.db.example.com"`,
	},
	{
		name: "server-order", url: portal + "/servers/new",
		then: `document.querySelector("[name=names]").value = "db.example.com"; ` +
			`document.querySelector("form[action='/servers/new'] button").click()`,
		leads: "Certificate for db.example.com",
	},
	{
		name: "authenticator", url: portal + "/keys",
		then:  `document.querySelector("[action='/keys/totp'] button").click()`,
		leads: "Show this to your app",
	},
	{name: "keys", url: portal + "/keys", then: openAll},
	{name: "recovery", url: portal + "/recovery"},
	{name: "events", url: portal + "/events"},
	{name: "admin-now", url: portal + "/admin"},
	{name: "admin-timeline", url: portal + "/admin/timeline"},
	{name: "admin-entry", url: portal + "/admin/timeline/5"},
	{name: "admin-people", url: portal + "/admin/people"},
	{name: "admin-person", url: portal + "/admin/people/bob"},
	{name: "admin-names", url: portal + "/admin/names"},
}

// TestScreenshots opens the pages that the manual shows, of the program that a
// tutorial has set up. With -screenshots it writes them to images, for a phone and
// a desktop, light and dark.
func TestScreenshots(t *testing.T) {
	h := newHost(t)
	phpFPM(h)
	h.followPage("tutorials/close-wordpress.md")
	h.Must(sample)
	root, certificate, password := filepath.Join(t.TempDir(), "root.pem"), filepath.Join(t.TempDir(), "alice.p12"),
		h.output("sed -n 's/^password *\\(\\S*\\).*/\\1/p' password")
	h.fetch("/root/root.pem", root)
	h.fetch("/root/alice/alice.p12", certificate)

	link := h.output("postern user invite bob | grep -o 'https://[^ ]*'")
	serial := h.output("openssl x509 -in alice/alice.pem -noout -serial | cut -d= -f2 | tr A-F a-f | sed 's,^0*,,'")
	there := strings.NewReplacer("LINK", link, "SERIAL", serial)
	proxy := h.forward("127.0.0.1:443")
	visitor, alice := posterntest.NewBrowser(t), posterntest.NewBrowser(t)
	visitor.Trust(root)
	alice.Trust(root)
	alice.Import(certificate, password)
	for _, as := range []struct {
		ctx   context.Context
		pages []page
	}{
		{visitor.Open(false, chromedp.Flag("host-resolver-rules", "MAP * "+proxy)), unauthenticatedPages},
		{alice.Open(true, chromedp.Flag("host-resolver-rules", "MAP * "+proxy)), alicesPages},
	} {
		for _, p := range as.pages {
			t.Run(p.name, func(t *testing.T) {
				p.url = there.Replace(p.url)
				show(t, as.ctx, p)
			})
		}
	}
}

// output runs a command as root and returns its one line.
func (h *host) output(command string) string {
	h.T.Helper()
	out, code := h.Root.Run(command)
	if code != 0 || strings.TrimSpace(out) == "" {
		h.T.Fatalf("%s: exit %d: %q", command, code, out)
	}
	return strings.TrimSpace(out)
}

// fetch copies a file from the host.
func (h *host) fetch(path, to string) {
	h.T.Helper()
	b, err := os.ReadFile(h.Inside(path))
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		h.T.Fatal(err)
	}
}

// forward makes an address of the host's network reachable from the test's own, at
// the address that it returns.
func (h *host) forward(address string) string {
	h.T.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.T.Fatal(err)
	}
	h.T.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := posterntest.InNetwork(h.PID, func() (net.Conn, error) { return net.Dial("tcp", address) })
			if err != nil {
				from.Close()
				continue
			}
			go func() { _, _ = io.Copy(to, from); to.Close() }()
			go func() { _, _ = io.Copy(from, to); from.Close() }()
		}
	}()
	return l.Addr().String()
}

// show opens a page and, for make screenshots, keeps pictures of it.
func show(t *testing.T, ctx context.Context, p page) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, posterntest.Patience)
	defer cancel()
	do := func(steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatal(err)
		}
	}
	do(chromedp.Navigate(p.url), chromedp.WaitVisible(chromedp.CSS("h1")))
	status, err := chromedp.Run(ctx,
		chromedp.Evaluate[int](`performance.getEntriesByType("navigation")[0].responseStatus`))
	if err != nil || status != cmp.Or(p.status, 200) {
		t.Fatalf("%s answers %d %v", p.url, status, err)
	}
	if p.then != "" {
		if _, err := chromedp.Run(ctx, chromedp.Evaluate[any](p.then+"; null")); err != nil {
			t.Fatal(err)
		}
	}
	if p.leads != "" {
		waitFor(t, ctx, p.leads)
	}
	if !*screenshots {
		return
	}
	for _, width := range []int64{390, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			do(chromedp.EmulateViewport(width, 600))
			if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia,
				emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
					{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
				}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond) // until it is drawn
			shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			keep(t, fmt.Sprintf("%s-%d-%s.png", p.name, width, scheme), shot)
		}
	}
}

// waitFor waits for the page with a heading. While one page takes the place of
// another, none can be asked.
func waitFor(t *testing.T, ctx context.Context, heading string) {
	t.Helper()
	for {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("h1")?.innerText ?? ""`))
		if err == nil && got == heading {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the heading is %q, not %q: %v", got, heading, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// keep writes a picture with 256 colours at most.
func keep(t *testing.T, name string, shot []byte) {
	t.Helper()
	from, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	few := image.NewPaletted(from.Bounds(), palette(from))
	draw.Draw(few, few.Bounds(), from, from.Bounds().Min, draw.Src)
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, few); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 100<<10 {
		t.Errorf("%s has %d bytes", name, b.Len())
	}
	if err := os.WriteFile(filepath.Join("images", name), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// palette returns the colours that a picture has most of.
func palette(from image.Image) color.Palette {
	counts := map[color.Color]int{}
	r := from.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			counts[from.At(x, y)]++
		}
	}
	var colours color.Palette
	for c := range counts {
		colours = append(colours, c)
	}
	slices.SortFunc(colours, func(a, b color.Color) int { return counts[b] - counts[a] })
	return colours[:min(len(colours), 256)]
}
