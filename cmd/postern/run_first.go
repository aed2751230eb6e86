package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
)

// configFile is the configuration in the state directory.
const configFile = "Caddyfile"

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

// firstRun is what the first run made, so that somebody can get in.
type firstRun struct {
	address  string
	portal   string
	person   string
	root     string
	p12      string
	cert     string
	key      string
	password string // file
}

// begin finds the configuration. Where there is none it makes the sample's, its
// pages, and somebody who may see the guarded one.
func (s *server) begin(ctx context.Context) (*firstRun, error) {
	if s.file != "" {
		return nil, nil
	}
	s.file = s.state.Path(configFile)
	if text, err := os.ReadFile(s.file); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return s.again(string(text)), nil
	}
	for _, port := range []*int{&s.opts.httpsPort, &s.opts.httpPort} {
		if err := choosePort(port); err != nil {
			return nil, err
		}
	}
	first := &firstRun{
		address: fmt.Sprintf("https://localhost:%d", s.opts.httpsPort),
		portal:  fmt.Sprintf("https://id.localhost:%d", s.opts.httpsPort),
		person:  invokingUser(),
		root:    s.state.Path("root.pem"),
	}
	first.files(s.state.Path("first"))
	if err := first.enrol(ctx, s); err != nil {
		return nil, err
	}
	return first, s.writeSample(first)
}

// The sample's addresses, as its configuration has them.
var (
	sampleSite   = regexp.MustCompile(`(?m)^(https://localhost:[0-9]+) \{$`)
	samplePortal = regexp.MustCompile(`(?m)^\s*portal (https://id\.localhost:[0-9]+)$`)
)

// again finds what the first run made, as long as the configuration is still
// about the sample and the certificate is there; else it returns nil.
func (s *server) again(config string) *firstRun {
	site, portal := sampleSite.FindStringSubmatch(config), samplePortal.FindStringSubmatch(config)
	made, err := filepath.Glob(s.state.Path("first/*.p12"))
	if site == nil || portal == nil || err != nil || len(made) != 1 || !strings.Contains(config, "require /guarded*") {
		return nil
	}
	first := &firstRun{
		address: site[1], portal: portal[1], person: strings.TrimSuffix(filepath.Base(made[0]), ".p12"), root: s.state.Path("root.pem"),
	}
	first.files(s.state.Path("first"))
	return first
}

// files names the files of the certificate.
func (f *firstRun) files(dir string) {
	f.p12 = filepath.Join(dir, f.person+".p12")
	f.cert = filepath.Join(dir, f.person+".crt")
	f.key = filepath.Join(dir, f.person+".key")
	f.password = filepath.Join(dir, f.person+".password")
}

// choosePort puts a port that is free in the place of 0: the sample keeps it.
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

// writeSample writes the sample's pages, and last its configuration, which is
// what tells the next run that all of it is there.
func (s *server) writeSample(first *firstRun) error {
	site := s.state.Path("site")
	text := strings.NewReplacer("{person}", first.person, "{root}", site, "{https}", fmt.Sprint(s.opts.httpsPort),
		"{http}", fmt.Sprint(s.opts.httpPort), "{portal}", first.portal, "{state}", s.state.Dir)
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
	if err := s.state.Ensure("root.pem", ca.EncodeCertificates(s.authority.Root()), 0o644); err != nil {
		return err
	}
	return s.state.Ensure(configFile, []byte(text.Replace(sampleCaddyfile)), 0o644)
}

// invokingUser returns the name of whoever started the program, as a person's.
func invokingUser() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	name = strings.ToLower(name)
	if !postern.ValidName(name) {
		return "admin"
	}
	return name
}

// enrol adds the first person, an administrator, and writes a client
// certificate for them. A run that was cut short is finished by the next.
func (f *firstRun) enrol(ctx context.Context, s *server) error {
	err := s.state.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.AddPerson(ctx, postern.Person{Name: f.person, Groups: []string{adminGroup}}); err != nil {
			return err
		}
		return tx.Append(ctx, byHand(postern.Event{Kind: postern.EventPersonAdded, Person: f.person}))
	})
	if err != nil && postern.CodeOf(err) != postern.Conflict {
		return err
	}
	dir := filepath.Dir(f.p12)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(f.p12); err == nil {
		return nil
	}
	key, err := ca.GenerateKey(ca.P256)
	if err != nil {
		return err
	}
	issued, err := s.authority.IssueClient(ctx, ca.ClientRequest{Person: f.person, Label: "first run", Key: key.Public()})
	if err != nil {
		return err
	}
	return f.write(dir, ca.Bundle{Issued: issued, Key: key, Dir: dir, Password: rand.Text()})
}

// write writes the certificate's files; the PKCS#12 file comes last.
func (f *firstRun) write(dir string, b ca.Bundle) error {
	p12, err := ca.EncodePKCS12(b.Key, b.Issued, b.Password, false)
	if err != nil {
		return err
	}
	keyPEM, err := ca.EncodeKey(b.Key, nil)
	if err != nil {
		return err
	}
	return ca.WriteFiles(dir, []ca.File{
		{Name: filepath.Base(f.password), Data: []byte(b.Password + "\n"), Mode: 0o600},
		{Name: filepath.Base(f.cert), Data: b.Issued.PEM(), Mode: 0o600},
		{Name: filepath.Base(f.key), Data: keyPEM, Mode: 0o600},
		{Name: filepath.Base(f.p12), Data: p12, Mode: 0o600},
	}, true)
}

// print says how to get in.
func (f *firstRun) print(w io.Writer) {
	fmt.Fprintf(w, `
  site      %s/           anybody may see it
  guarded   %s/guarded/   only %s may
  portal    %s/

  The certificate that opens it:
    for a browser  %s
    its password   is in %s
    trust first    %s

  Or from here:
    curl --cacert %s --cert %s --key %s %s/guarded/

`, f.address, f.address, f.person, f.portal, f.p12, f.password, f.root, f.root, f.cert, f.key, f.address)
}
