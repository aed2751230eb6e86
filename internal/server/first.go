package server

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/store"
)

// ConfigFile is the configuration in the state directory.
const ConfigFile = "Caddyfile"

// rootFile holds the roots in the state directory, for who tries the sample.
const rootFile = "root.pem"

var (
	//go:embed sample/Caddyfile
	sampleCaddyfile string
	//go:embed sample/index.html
	sampleIndex string
	//go:embed sample/guarded.html
	sampleGuarded string
	//go:embed sample/style.css
	sampleStyle string
)

// Sample is the sample configuration, and the certificate that grants access to its
// guarded page.
type Sample struct {
	Site         string // URL, without a slash at its end
	Portal       string // likewise
	ACME         string // URL of the directory, at localhost: few programs but browsers resolve names below it
	Person       string // whose certificate it is, an administrator
	Root         string // PEM file of the root certificate
	PKCS12       string // the certificate and its key for a browser
	Certificate  string // PEM file, with its chain
	Key          string // PEM file
	PasswordFile string // whose first line is the PKCS#12 file's password
}

// begin finds the configuration. If there is none, it writes the sample and its pages,
// and adds a person who may see the guarded one.
func (s *server) begin(ctx context.Context) (*Sample, error) {
	if s.opts.Config != "" {
		return nil, nil
	}
	if text, err := os.ReadFile(s.file); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return s.again(string(text)), nil
	}
	first := &Sample{
		Site:   fmt.Sprintf("https://localhost:%d", s.opts.HTTPSPort),
		Portal: fmt.Sprintf("https://id.localhost:%d", s.opts.HTTPSPort),
		ACME:   fmt.Sprintf("https://localhost:%d%s/directory", s.acmePort, acme.Prefix),
		Person: s.opts.Person,
		Root:   s.state.Path(rootFile),
	}
	first.files(s.state.Path("first"))
	if err := first.enrol(ctx, s); err != nil {
		return nil, err
	}
	return first, s.writeSample(first)
}

// The sample's addresses in its configuration.
var (
	sampleSite   = regexp.MustCompile(`(?m)^(https://localhost:[0-9]+) \{$`)
	samplePortal = regexp.MustCompile(`(?m)^\s*portal (https://id\.localhost:[0-9]+) (https://localhost:[0-9]+)$`)
)

// again finds what the first run made. It returns nil if the configuration is not the
// sample's any more, or if the certificate is gone.
func (s *server) again(config string) *Sample {
	site, portal := sampleSite.FindStringSubmatch(config), samplePortal.FindStringSubmatch(config)
	made, err := filepath.Glob(s.state.Path("first/*.p12"))
	if site == nil || portal == nil || err != nil || len(made) != 1 || !strings.Contains(config, "require /guarded*") {
		return nil
	}
	first := &Sample{
		Site: site[1], Portal: portal[1], ACME: portal[2] + acme.Prefix + "/directory",
		Person: strings.TrimSuffix(filepath.Base(made[0]), ".p12"), Root: s.state.Path(rootFile),
	}
	first.files(s.state.Path("first"))
	return first
}

// files names the files of the certificate.
func (f *Sample) files(dir string) {
	f.PKCS12 = filepath.Join(dir, f.Person+".p12")
	f.Certificate = filepath.Join(dir, f.Person+".crt")
	f.Key = filepath.Join(dir, f.Person+".key")
	f.PasswordFile = filepath.Join(dir, f.Person+".password")
}

// samplePorts fails if the sample is to be made and one of its ports is in use. It
// chooses a free port where none was given.
func (s *server) samplePorts() error {
	if _, err := os.Stat(s.file); err == nil || !errors.Is(err, fs.ErrNotExist) {
		if err == nil && s.opts.Ports {
			s.log.Warn("the ports that were given take no effect: those in the existing configuration do",
				slog.String(postern.LogFile, s.file))
		}
		return nil
	}
	ports := []*int{&s.opts.HTTPSPort, &s.opts.HTTPPort, &s.acmePort}
	for _, port := range ports {
		if *port == 0 {
			continue
		}
		if err := front.Listenable(fmt.Sprintf("127.0.0.1:%d", *port)); err != nil {
			return err
		}
	}
	for _, port := range ports {
		if err := choosePort(port); err != nil {
			return err
		}
	}
	return nil
}

// choosePort replaces 0 by a free port, which the sample then keeps.
func choosePort(port *int) error {
	if *port != 0 {
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return postern.Errorf(postern.Unavailable, "find a free port: %w", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		*port = a.Port
	}
	return l.Close()
}

// writeSample writes the sample's pages and then its configuration: from the latter the
// next run knows that all was written.
func (s *server) writeSample(first *Sample) error {
	site := s.state.Path("site")
	text := strings.NewReplacer("{person}", first.Person, "{root}", site, "{https}", fmt.Sprint(s.opts.HTTPSPort),
		"{http}", fmt.Sprint(s.opts.HTTPPort), "{portal}", first.Portal, "{acme}", fmt.Sprint(s.acmePort), "{state}",
		s.state.Dir)
	if err := os.MkdirAll(filepath.Join(site, "guarded"), 0o755); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"index.html": sampleIndex, "guarded/index.html": sampleGuarded, "style.css": sampleStyle,
	} {
		if err := s.state.Ensure(filepath.Join("site", name), []byte(text.Replace(content)), 0o644); err != nil {
			return err
		}
	}
	if err := s.state.Ensure(rootFile, ca.EncodeCertificates(s.authority.Roots()...), 0o644); err != nil {
		return err
	}
	return s.state.Ensure(ConfigFile, []byte(text.Replace(sampleCaddyfile)), 0o644)
}

// enrol adds the first person, an administrator, and writes a client
// certificate for them. The next run completes one that was interrupted.
func (f *Sample) enrol(ctx context.Context, s *server) error {
	err := s.state.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.AddPerson(ctx, postern.Person{Name: f.Person, Groups: []string{people.AdminGroup}}); err != nil {
			return err
		}
		return tx.Append(ctx, people.ByHand(postern.Event{Kind: postern.EventPersonAdded, Person: f.Person}))
	})
	if err != nil && postern.CodeOf(err) != postern.Conflict {
		return err
	}
	dir := filepath.Dir(f.PKCS12)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(f.PKCS12); err == nil {
		return nil
	}
	key, err := ca.GenerateKey(ca.P256)
	if err != nil {
		return err
	}
	issued, err := s.authority.IssueClient(ctx, ca.ClientRequest{
		Person: f.Person, Label: "first run",
		Key: key.Public(),
	})
	if err != nil {
		return err
	}
	return f.write(dir, ca.Bundle{Issued: issued, Key: key, Dir: dir, Password: rand.Text()})
}

// write writes the certificate's files; the PKCS#12 file comes last.
func (f *Sample) write(dir string, b ca.Bundle) error {
	p12, err := ca.EncodePKCS12(b.Key, b.Issued, b.Password, false)
	if err != nil {
		return err
	}
	keyPEM, err := ca.EncodeKey(b.Key, nil)
	if err != nil {
		return err
	}
	return ca.WriteFiles(dir, []ca.File{
		{Name: filepath.Base(f.PasswordFile), Data: []byte(b.Password + "\n"), Mode: 0o600},
		{Name: filepath.Base(f.Certificate), Data: b.Issued.PEM(), Mode: 0o600},
		{Name: filepath.Base(f.Key), Data: keyPEM, Mode: 0o600},
		{Name: filepath.Base(f.PKCS12), Data: p12, Mode: 0o600},
	}, true)
}
