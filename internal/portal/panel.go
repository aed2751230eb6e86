package portal

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/console"
	"rsc.io/qr"
)

const recentEvents = 100

// home shows the panel to a person, and how to sign in to all others.
func (p *Portal) home(r *request) error {
	if r.who.Name == "" {
		p.unauthenticated(r, 200)
		return nil
	}
	certs, err := p.Authority.CertificatesOf(r.Context(), r.who.Name)
	if err != nil {
		return err
	}
	codes, err := p.Store.RecoveryCodes(r.Context(), r.who.Name)
	if err != nil {
		return err
	}
	orders, err := p.Store.OrdersOf(r.Context(), r.who.Name, p.now())
	if err != nil {
		return err
	}
	events, err := p.Timeline.EventsOf(r.Context(), r.who.Name, 8)
	if err != nil {
		return err
	}
	devices, servers := p.split(certs)
	p.render(r, 200, "home", page{Title: "Hello " + r.who.Name, Nav: "home", Data: map[string]any{
		"Devices": validOnly(devices), "Servers": validOnly(servers), "Codes": codes, "Orders": orders,
		"Events": events,
	}})
	return nil
}

// shown is a certificate as a list shows it.
type shown struct {
	Certificate
	State string // "valid", "expires soon", "expired", "revoked"
	Here  bool   // whether this request was made with it
	Days  int    // until it expires
}

// split sorts certificates into devices and servers, valid ones first.
func (p *Portal) split(certs []Certificate) (devices, servers []shown) {
	for _, c := range certs {
		s := p.show(c)
		if c.Server {
			servers = append(servers, s)
		} else {
			devices = append(devices, s)
		}
	}
	rank := map[string]int{"expires soon": 0, "valid": 0, "expired": 1, "revoked": 2}
	order := func(a, b shown) int {
		return cmp.Or(cmp.Compare(rank[a.State], rank[b.State]), b.NotBefore.Compare(a.NotBefore))
	}
	slices.SortStableFunc(devices, order)
	slices.SortStableFunc(servers, order)
	return devices, servers
}

func (p *Portal) show(c Certificate) shown {
	s := shown{Certificate: c, State: "valid"}
	left := c.NotAfter.Sub(p.now())
	s.Days = int(left / (24 * time.Hour))
	switch {
	case c.Revoked:
		s.State = "revoked"
	case left <= 0:
		s.State = "expired"
	case len(p.Remind) > 0 && left < slices.Max(p.Remind):
		s.State = "expires soon"
	}
	return s
}

func validOnly(all []shown) []shown {
	return slices.DeleteFunc(all, func(s shown) bool { return s.State == "revoked" || s.State == "expired" })
}

func (p *Portal) certificates(r *request) error {
	certs, err := p.Authority.CertificatesOf(r.Context(), r.who.Name)
	if err != nil {
		return err
	}
	devices, _ := p.split(certs)
	for i := range devices {
		devices[i].Here = devices[i].Serial == r.serial
	}
	p.render(r, 200, "certificates", page{Title: "Devices", Nav: "certificates", Data: devices})
	return nil
}

// ownCertificate returns one of the person's certificates. Another person's fails
// with the same error as one that does not exist.
func (p *Portal) ownCertificate(r *request) (Certificate, error) {
	c, err := p.Authority.Certificate(r.Context(), r.PathValue("serial"))
	if err == nil && (c.Person == r.who.Name || r.admin && r.Method == http.MethodGet) {
		return c, nil
	}
	if err != nil && postern.CodeOf(err) != postern.NotFound && postern.CodeOf(err) != postern.Invalid {
		return c, err
	}
	return c, postern.Errorf(postern.NotFound, "You have no such certificate.")
}

func (p *Portal) certificate(r *request) error {
	c, err := p.ownCertificate(r)
	if err != nil {
		return err
	}
	s := p.show(c)
	s.Here = c.Serial == r.serial
	leaf, err := c.Leaf()
	if err != nil {
		return err
	}
	pg := page{Title: "Certificate", Nav: "certificates", Data: map[string]any{
		"C": s, "Subject": c.Subject, "Issuer": inOrder(leaf.Issuer), "Mine": c.Person == r.who.Name,
		"Layouts": p.Authority.Layouts(), "Minimum": minPassphrase,
	}}
	if c.Server {
		pg.Nav = "servers"
		layout := r.URL.Query().Get("for")
		if !slices.Contains(p.Authority.Layouts(), layout) {
			layout = p.Authority.Layouts()[0]
		}
		l, err := p.Authority.Layout(r.Context(), layout, c, "")
		if err != nil {
			return err
		}
		pg.Data.(map[string]any)["Layout"], pg.Data.(map[string]any)["Kind"] = l, layout
	}
	if r.admin {
		h, err := p.history(r.Context(), console.Query{}.With("link", string(postern.X509Certificate)+"="+c.Serial))
		if err != nil {
			return err
		}
		pg.Data.(map[string]any)["History"] = h
	}
	p.render(r, 200, "certificate", pg)
	return nil
}

func chainPEM(chain [][]byte) string {
	var b strings.Builder
	for _, der := range chain {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.String()
}

func (p *Portal) certificatePEM(r *request) error {
	c, err := p.ownCertificate(r)
	if err != nil {
		return err
	}
	download(r, "application/pem-certificate-chain", fileName(c)+".pem", chainPEM(c.Chain))
	return nil
}

// fileName returns a name for a certificate's file: letters, digits, dots and
// dashes only.
func fileName(c Certificate) string {
	name := c.Person + "-" + c.Label
	if c.Server && len(c.Names) > 0 {
		name = strings.Replace(c.Names[0], "*", "wildcard", 1)
	}
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, name), "-.")
}

func download(r *request, kind, name, body string) {
	r.w.Header().Set("Content-Type", kind)
	r.w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	_, _ = r.w.Write([]byte(body))
}

func (p *Portal) newDevicePage(r *request) error {
	p.render(r, 200, "device", p.devicePage())
	return nil
}

func (p *Portal) devicePage() page {
	return page{Title: "Add a device", Nav: "certificates", Data: enrolment{Minimum: minPassphrase}}
}

// newDevice issues a client certificate for another key of the person.
func (p *Portal) newDevice(r *request) error {
	res, err := p.addDevice(r)
	if err != nil {
		p.invalid(r, err, "device", p.devicePage())
		return nil
	}
	return p.renderIssued(r, res)
}

func (p *Portal) addDevice(r *request) (issuance, error) {
	label, req, err := p.clientForm(r)
	if err != nil {
		return issuance{}, err
	}
	again, err := p.freshKey(r.Context(), req, r.who.Name, label)
	if err != nil || again != nil {
		return asBefore(again, r.who), err
	}
	return p.issue(r, r.who, Enrolment{Purpose: Enrol, Label: label},
		func(e Enrolment) (Certificate, Enrolled, error) {
			return p.Authority.IssueClient(r.Context(), p.actor(r), r.who.Name, label, req, e)
		})
}

// asBefore is the issuance of a certificate whose first answer was lost; empty
// if c is nil.
func asBefore(c *Certificate, who postern.Person) issuance {
	if c == nil {
		return issuance{}
	}
	return issuance{Certificate: *c, Person: who, Again: true}
}

// deviceLink shows a link, also as a QR code, to open on the other device.
func (p *Portal) deviceLink(r *request) error {
	if err := p.limit(r.Context(), "device/"+r.who.Name, 20, time.Hour); err != nil {
		return err
	}
	made, err := p.Links.Device(r.Context(), p.actor(r), r.who)
	if err != nil {
		return err
	}
	p.renderLink(r, "Open this on the other device", "certificates", made)
	return nil
}

func (p *Portal) renderLink(r *request, title, nav string, made Made) {
	code, err := qr.Encode(made.URL, qr.M)
	if err != nil {
		p.fail(r, err)
		return
	}
	p.render(r, 200, "link", page{
		Title: title, Nav: nav,
		Data: map[string]any{"Made": made, "Size": code.Size + 8, "Path": qrPath(code)},
	})
}

// qrPath returns the dark modules as one SVG path, inside a quiet zone of 4.
func qrPath(c *qr.Code) string {
	var b strings.Builder
	for y := range c.Size {
		for x := range c.Size {
			if c.Black(x, y) {
				b.WriteString("M" + strconv.Itoa(x+4) + " " + strconv.Itoa(y+4) + "h1v1h-1z")
			}
		}
	}
	return b.String()
}

// renew issues a successor: for the key of a request that the page made, or, if
// there is no request, for the same key.
func (p *Portal) renew(r *request) error {
	c, err := p.ownCertificate(r)
	if err != nil {
		return err
	}
	next, err := p.renewed(r, c)
	if err != nil {
		return err
	}
	if wantsJSON(r) && !next.Server {
		return p.renderIssued(r, issuance{Certificate: next, Person: r.who})
	}
	p.redirect(r, "/certificates/"+next.Serial+"?done=renewed")
	return nil
}

func (p *Portal) renewed(r *request, c Certificate) (Certificate, error) {
	if !c.Valid(p.now()) {
		return c,
			postern.Errorf(postern.Denied, "This certificate has expired or is revoked, so it cannot be renewed.").
				WithHint("Make a new one.")
	}
	if c.Server {
		// Proofs that need no person are repeated.
		if err := p.recheck(r.Context(), r.who, c.Names); err != nil {
			return c, err
		}
	}
	csr, err := csrBytes(r)
	if err != nil {
		return c, err
	}
	var req *Request
	if len(csr) > 0 {
		parsed, err := p.Authority.ParseCSR(csr)
		if err != nil {
			return c, err
		}
		again, err := p.freshKey(r.Context(), parsed, c.Person, c.Label)
		switch {
		case err != nil:
			return c, err
		case again != nil && again.Serial == c.Serial:
			return c,
				wrong("csr", "That is the key of the certificate itself. Make a new key, or renew without a request.")
		case again != nil:
			return *again, nil
		}
		req = &parsed
	}
	res, err := p.issue(r, r.who, Enrolment{}, func(e Enrolment) (Certificate, Enrolled, error) {
		return p.Authority.Renew(r.Context(), p.actor(r), c.Serial, req, e)
	})
	return res.Certificate, err
}

// revoke revokes one of the person's certificates, or, for an administrator, any.
// With the certificate of a device, the person's unused one-time links become void,
// since they may have been made with it.
func (p *Portal) revoke(r *request) error {
	ctx := r.Context()
	c, err := p.Authority.Certificate(ctx, r.PathValue("serial"))
	if err != nil && postern.CodeOf(err) != postern.NotFound && postern.CodeOf(err) != postern.Invalid {
		return err
	}
	if err != nil || c.Person != r.who.Name && !r.admin {
		return postern.Errorf(postern.NotFound, "You have no such certificate.")
	}
	reasons := map[string]postern.RevocationReason{
		"lost": postern.KeyCompromise, "replaced": postern.Superseded, "unused": postern.CessationOfOperation,
	}
	reason, ok := reasons[r.PostForm.Get("reason")]
	if !ok {
		reason = postern.Unspecified
	}
	if err := p.Authority.Revoke(ctx, p.actor(r), c.Serial, reason); err != nil {
		return err
	}
	p.mailRevoked(ctx, c, r.who.Name)
	back := "/certificates?done=revoked"
	switch {
	case c.Person != r.who.Name:
		back = "/admin/people/" + c.Person + "?done=revoked"
	case c.Server:
		back = "/servers?done=revoked"
	case reason == postern.KeyCompromise && c.Serial != r.serial:
		back = "/keys?done=lost"
	}
	p.redirect(r, back)
	return nil
}

func (p *Portal) mailRevoked(ctx context.Context, c Certificate, by string) {
	who, err := p.People.Person(ctx, c.Person)
	if err != nil {
		return
	}
	what := "the certificate of your device \"" + c.Label + "\""
	if c.Server {
		what = "the server certificate for " + strings.Join(c.Names, ", ")
	}
	p.queue(ctx, revokedMessage(p.Config, who, what, by, p.now()))
}

func (p *Portal) events(r *request) error {
	events, err := p.Timeline.EventsOf(r.Context(), r.who.Name, recentEvents)
	if err != nil {
		return err
	}
	p.render(r, 200, "events", page{Title: "Events", Nav: "events", Data: events})
	return nil
}

// certificateFiles answers with the files of a server's layout, without the key.
func (p *Portal) certificateFiles(r *request) error {
	c, err := p.ownCertificate(r)
	if err != nil {
		return err
	}
	kind := r.URL.Query().Get("for")
	if !c.Server || !slices.Contains(p.Authority.Layouts(), kind) {
		return postern.Errorf(postern.NotFound, "There are no such files.")
	}
	l, err := p.Authority.Layout(r.Context(), kind, c, "")
	if err != nil {
		return err
	}
	format, pack, mime := "tar", tarred, "application/x-tar"
	if r.URL.Query().Get("as") == "zip" {
		format, pack, mime = "zip", zipped, "application/zip"
	}
	b, err := pack(l, c.NotBefore)
	if err != nil {
		return err
	}
	download(r, mime, fileName(c)+"-"+kind+"."+format, string(b))
	return nil
}

// tarred packs a layout's files into a tar archive.
func tarred(l Layout, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range l.Files {
		h := &tar.Header{
			Name: f.Path, Mode: int64(f.Mode), Size: int64(len(f.Body)), ModTime: at,
			Typeflag: tar.TypeReg,
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(f.Body)); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// zipped packs them into a zip archive.
func zipped(l Layout, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range l.Files {
		h := &zip.FileHeader{Name: f.Path, Method: zip.Deflate, Modified: at}
		h.SetMode(fs.FileMode(f.Mode))
		part, err := w.CreateHeader(h)
		if err != nil {
			return nil, err
		}
		if _, err := part.Write([]byte(f.Body)); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}
