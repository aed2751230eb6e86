// Package join is a host's side of joining: it makes the host's key, gets what its sshd
// needs from a server, puts it in place, keeps it current, and undoes it.
//
// Nothing is decided here about people. The server is known by the root certificate that
// the token names: only an answer that a CA under it signed is accepted, and the token
// itself is never sent.
package join

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/sshd/setup"
)

// The files of a joined host.
const (
	dir        = "/etc/postern/host"
	stateFile  = dir + "/host.json"
	beforeFile = dir + "/before.json" // what joining replaced
	KeyFile    = dir + "/key.pem"     // mode 0600
	CertFile   = dir + "/cert.pem"    // with its intermediate
	RootFile   = dir + "/root.pem"    // all roots that are trusted
	knownHosts = "/etc/ssh/ssh_known_hosts"
)

// State is what a joined host remembers.
type State struct {
	Server string `json:"server"` // its https URL
	Host   string `json:"host"`   // the name that the server knows it by
	// Public says that the server's own certificate came from an authority that this host
	// trusts, and not from the installation's, when it joined.
	Public bool `json:"public,omitempty"`
}

// CA returns the file of the authorities that verify the server, "" for those that this
// host trusts.
func (s State) CA() string {
	if s.Public {
		return ""
	}
	return RootFile
}

// Roots returns what reads the roots under which the server's decisions must be signed; nil
// if its own certificate, which was issued under them, is enough.
func (s State) Roots() func() (*x509.CertPool, error) {
	if !s.Public {
		return nil
	}
	return func() (*x509.CertPool, error) {
		data, err := os.ReadFile(RootFile)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(data)
		return roots, err
	}
}

// Host is a computer that joins.
type Host struct {
	Root    string        // below this directory instead of /
	SSHD    setup.Applier // puts sshd's files in place
	Version string        // of the program

	through *conn // reaches the server, instead of connections of this process; nil for none

	public *x509.CertPool // the authorities that this host trusts; nil: the system's
	step   func()         // called before each change; for tests, which end there
}

// next begins a change.
func (h Host) next() {
	if h.step != nil {
		h.step()
	}
}

// This returns this host.
func This(version string) Host {
	a := setup.ThisHost()
	a.Check = a.Test
	return Host{SSHD: a, Version: version}
}

func (h Host) path(file string) string { return filepath.Join(h.Root, file) }

// State returns what the host remembers of joining: NotFound if it has not joined.
func (h Host) State() (State, error) {
	var s State
	data, err := durable.ReadSecret(h.path(stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, errNotJoined
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	return s, err
}

var errNotJoined = postern.Errorf(postern.NotFound, "this host has not joined").
	WithHint("invite the host on the server, and run what that prints")

func (h Host) remember(s State) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return h.write(stateFile, append(data, '\n'), 0o600)
}

// write writes a file of the host's in one step.
func (h Host) write(file string, data []byte, mode fs.FileMode) error {
	h.next()
	if err := durable.Replace(h.path(file), data, mode); err != nil {
		return notWritten(file, err)
	}
	return nil
}

func notWritten(file string, err error) error {
	return postern.Errorf(postern.Unavailable, "write %s: %w", file, err).WithHint("see whether the disk is full")
}

// Options say how a host joins.
type Options struct {
	Server string // its https URL, or host name
	Token  string // as [host.Token.Text] writes it; may be "" for a host that has joined
	Apply  bool   // false: only say what would change
}

// Result is what joining changed, or would.
type Result struct {
	Host    string   `json:"host,omitempty"` // "" if that is not known yet
	Server  string   `json:"server"`
	Applied bool     `json:"applied"`
	Files   []string `json:"files"`            // written, or to be
	Backup  string   `json:"backup,omitempty"` // directory with what was replaced
	Agent   string   `json:"agent,omitempty"`  // what was done about the agent's unit
}

// Join joins the host, or repairs what joining made. A call that was killed is completed
// by the next one with the same token.
func (h Host) Join(ctx context.Context, o Options) (Result, error) {
	s, err := h.State()
	joined := err == nil
	if err != nil && postern.CodeOf(err) != postern.NotFound {
		return Result{}, err
	}
	if !joined && o.Token == "" {
		return Result{}, errNotJoined
	}
	c, err := h.reach(ctx, o, s)
	if err != nil {
		return Result{}, err
	}
	r := Result{Host: s.Host, Server: c.url}
	if r.Files, err = h.wouldWrite(); err != nil || !o.Apply {
		return r, err
	}
	key, err := h.key()
	if err != nil {
		return r, err
	}
	a, err := h.admit(ctx, c, key, o, joined && s.Server == c.url)
	if err == nil && o.Token == "" { // a token may be another installation's
		err = h.checkAge(a)
	}
	if err == nil {
		err = h.leaveOther(ctx, a)
	}
	if err != nil {
		return r, err
	}
	s.Server, s.Host, s.Public = c.url, a.Host, c.public
	if err := h.keepIdentity(c, key, a, s); err != nil {
		return r, err
	}
	if r.Backup, err = h.apply(ctx, a); err != nil {
		return r, err
	}
	if _, err := h.Refresh(ctx, nil); err != nil { // the server knows the host by its certificate, and what it has
		return r, err
	}
	r.Host, r.Applied, r.Agent = s.Host, true, h.startAgent(ctx)
	return r, nil
}

// wouldWrite returns the files that joining writes, or why sshd's cannot be written.
func (h Host) wouldWrite() ([]string, error) {
	keys, err := setup.HostKeys(h.Root)
	if err != nil {
		return nil, err
	}
	t := setup.HostTrust{Certificates: map[string][]byte{}}
	for _, key := range keys {
		t.Certificates[key] = []byte{}
	}
	files, err := t.Files(h.Root)
	list := []string{stateFile, KeyFile, CertFile, RootFile, knownHosts}
	for _, f := range files {
		list = append(list, f.Path)
	}
	return list, err
}

// admit gets what the host needs: by its certificate where that is valid still, else by
// the token.
func (h Host) admit(ctx context.Context, c *conn, key hostKey, o Options, joined bool) (host.Answer, error) {
	var req host.Request
	keys, err := h.sshKeys()
	if err != nil {
		return host.Answer{}, err
	}
	for _, k := range keys {
		req.SSHKeys = append(req.SSHKeys, k.line)
	}
	if req.Report, err = h.report(); err != nil {
		return host.Answer{}, err
	}
	req.Report.KRL = -1 // what the host has may be another installation's
	if req.CSR, err = key.request(); err != nil {
		return host.Answer{}, err
	}
	if joined {
		a, err := c.ask(ctx, req)
		if err == nil || postern.CodeOf(err) != postern.Denied || o.Token == "" {
			return a, err
		}
	}
	if o.Token == "" { // it had joined another server
		return host.Answer{}, errNotJoined
	}
	token, err := host.ParseToken(o.Token)
	if err != nil {
		return host.Answer{}, err
	}
	return c.post(ctx, host.JoinPath, req, &token)
}

// keepIdentity writes by what the host is known, and what it knows the server by. The
// state comes last: with it the host has joined.
func (h Host) keepIdentity(c *conn, key hostKey, a host.Answer, s State) error {
	if err := key.check(a.Certificate, c.roots); err != nil {
		return err
	}
	if err := h.keepRoots(c, a); err != nil {
		return err
	}
	if err := h.write(CertFile, []byte(a.Certificate), 0o644); err != nil {
		return err
	}
	return h.remember(s)
}

// keepRoots writes the roots that the server names, one of which verified it.
func (h Host) keepRoots(c *conn, a host.Answer) error {
	roots, err := parseChain([]byte(a.Roots))
	known := func(r *x509.Certificate) bool {
		_, err := r.Verify(x509.VerifyOptions{Roots: c.roots})
		return err == nil
	}
	if err != nil || !slices.ContainsFunc(roots, known) {
		return postern.Errorf(postern.Denied, "the server sent root certificates of which none is known here")
	}
	return h.replace(RootFile, []byte(a.Roots), new([]string))
}

// apply puts what an answer brought in place for sshd and ssh. It returns the directory
// with what was replaced.
func (h Host) apply(ctx context.Context, a host.Answer) (backup string, err error) {
	t, err := h.trust(a)
	if err != nil {
		return "", err
	}
	files, err := t.Files(h.Root)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", h.writeKnownHosts(a.KnownHosts)
	}
	if err := h.rememberBefore(files); err != nil {
		return "", err
	}
	h.next()
	if backup, err = h.SSHD.Keep(ctx, files); err != nil {
		return "", err
	}
	return backup, h.writeKnownHosts(a.KnownHosts)
}

// rememberBefore keeps what files replace, once: joining again replaces what joining wrote.
func (h Host) rememberBefore(files []setup.File) error {
	known, err := h.before()
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(slices.Clone(files), func(f setup.File) bool {
		return slices.ContainsFunc(known, func(k setup.File) bool { return k.Path == f.Path })
	})
	now, err := setup.Before(h.Root, files)
	if err != nil {
		return err
	}
	data, err := json.Marshal(append(known, now...))
	if err != nil {
		return err
	}
	return h.write(beforeFile, data, 0o600)
}

// before returns what joining replaced; nothing if the host has not joined.
func (h Host) before() (files []setup.File, err error) {
	data, err := durable.ReadSecret(h.path(beforeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &files)
	}
	return files, err
}
