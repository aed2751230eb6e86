package join

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/sshd/setup"
	"golang.org/x/crypto/ssh"
)

// refreshEvery is how often a joined host asks the server.
const refreshEvery = time.Minute

// Follow keeps current what joining put in place, until ctx ends: the host's client
// certificate, SSH host certificates, the user CAs, the revocation list and known_hosts. It
// reports the problems, too. The server is reached through a client that verifies it and
// shows the host's certificate, at the client's own URL: this process may be root's, and
// talks to no network. Of several failures in a row the first is logged.
func (h Host) Follow(
	ctx context.Context, client *http.Client, url string, problems func(context.Context) []string, log *slog.Logger,
) {
	through := *client
	through.Timeout = requestTime
	h.through = &conn{url: url, http: &through}
	for failing := false; ; {
		changed, err := h.Refresh(ctx, problems(ctx))
		switch {
		case err != nil && !failing && ctx.Err() == nil:
			log.WarnContext(ctx, "what this host has from the server is not kept current",
				slog.Any(postern.LogError, err))
		case err == nil && failing:
			log.InfoContext(ctx, "what this host has from the server is kept current again")
		}
		for _, file := range changed {
			log.InfoContext(ctx, "renewed", slog.String(postern.LogFile, file))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(refreshEvery):
		}
	}
}

// Refresh reports what is wrong on the host, gets what is new or ends soon, and puts it in
// place: each file at once, without a restart of sshd. What cannot be renewed does not keep
// the rest from it. It returns the files that changed.
func (h Host) Refresh(ctx context.Context, problems []string) (changed []string, err error) {
	s, err := h.State()
	if err != nil {
		return nil, err
	}
	c, err := h.reach(ctx, Options{}, s)
	if err != nil {
		return nil, err
	}
	c.report = func() (postern.HostReport, error) {
		r, err := h.report()
		r.Problems = problems
		return r, err
	}
	a, err := c.refresh(ctx, host.Request{})
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, renew := range []func(context.Context, *conn, host.Answer) ([]string, error){
		h.renewTrust, h.renewIdentity, h.renewSSH, h.renewLibvirt,
	} {
		files, err := renew(ctx, c, a)
		changed, errs = append(changed, files...), append(errs, err)
	}
	return changed, errors.Join(errs...)
}

// refresh asks the server as a host that has joined.
func (c *conn) refresh(ctx context.Context, r host.Request) (a host.Answer, err error) {
	if r.Report, err = c.report(); err != nil {
		return a, err
	}
	return c.ask(ctx, r)
}

// ask asks the server as a host that has joined. An answer that is another host's is
// refused: that host may have sent on the request as its own.
func (c *conn) ask(ctx context.Context, r host.Request) (a host.Answer, err error) {
	if a, err = c.post(ctx, host.RefreshPath, r, nil); err == nil && a.Host != c.host {
		err = postern.Errorf(postern.Denied, "the server answers the host %q, and this one is %q", a.Host, c.host).
			WithHint("see whether another host's certificate is here, or another host answers in the server's place")
	}
	return a, err
}

// renewIdentity renews the host's client certificate, if it ends soon.
func (h Host) renewIdentity(ctx context.Context, c *conn, _ host.Answer) ([]string, error) {
	if !h.certificateDue() {
		return nil, nil
	}
	s, err := h.State()
	if err != nil {
		return nil, err
	}
	key, err := h.key()
	if err != nil {
		return nil, err
	}
	csr, err := key.request()
	if err != nil {
		return nil, err
	}
	a, err := c.refresh(ctx, host.Request{CSR: csr})
	if err != nil {
		return nil, err
	}
	return []string{CertFile}, h.keepIdentity(c, key, a, s)
}

// certificateDue reports whether the host's client certificate ends soon.
func (h Host) certificateDue() bool {
	data, err := os.ReadFile(h.path(CertFile))
	if err != nil {
		return true
	}
	chain, err := parseChain(data)
	return err != nil || due(chain[0].NotBefore, chain[0].NotAfter)
}

// report returns what the host says about itself.
func (h Host) report() (postern.HostReport, error) {
	r := postern.HostReport{Version: h.Version, KRL: -1}
	keys, err := h.sshKeys()
	if err != nil {
		return r, err
	}
	for _, key := range keys {
		r.Keys = append(r.Keys, ssh.FingerprintSHA256(key.public))
	}
	if len(keys) > 0 {
		r.Serves = append(r.Serves, "ssh")
	}
	for _, socket := range []string{"/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"} {
		if _, err := os.Stat(h.path(socket)); err == nil {
			r.Serves = append(r.Serves, "libvirt")
			break
		}
	}
	if krl, err := os.ReadFile(h.path(setup.KRLFile)); err == nil {
		r.KRL = krlVersion(krl)
	}
	return r, nil
}

// sshKey is one of sshd's host keys.
type sshKey struct {
	file   string // the private key's
	line   string // the public key, as in authorized_keys
	public ssh.PublicKey
}

// sshKeys returns sshd's host keys.
func (h Host) sshKeys() ([]sshKey, error) {
	files, err := setup.HostKeys(h.Root)
	if err != nil {
		return nil, err
	}
	var keys []sshKey
	for _, file := range files {
		line, err := os.ReadFile(h.path(file + ".pub"))
		if err != nil {
			return nil, err
		}
		public, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "%s.pub is no SSH public key", file)
		}
		keys = append(keys, sshKey{file, strings.TrimSpace(string(line)), public})
	}
	return keys, nil
}

// sshDue reports whether the certificate of a host key is to be renewed.
func (h Host) sshDue(key sshKey, names []string) bool {
	line, err := os.ReadFile(h.path(setup.CertificateFile(key.file)))
	if err != nil {
		return true
	}
	cert, err := hostCertificate(line, key.public)
	return err != nil || !slices.Equal(cert.ValidPrincipals, names) ||
		due(time.Unix(int64(cert.ValidAfter), 0), time.Unix(int64(cert.ValidBefore), 0))
}

// hostCertificate reads a host certificate of a key.
func hostCertificate(line []byte, key ssh.PublicKey) (*ssh.Certificate, error) {
	pub, _, _, _, err := ssh.ParseAuthorizedKey(line)
	cert, ok := pub.(*ssh.Certificate)
	if err != nil || !ok || cert.CertType != ssh.HostCert || !bytes.Equal(cert.Key.Marshal(), key.Marshal()) {
		return nil, postern.Errorf(postern.Denied, "that is no host certificate of the key %s",
			ssh.FingerprintSHA256(key))
	}
	return cert, nil
}

// krlMagic begins a KRL (OpenSSH's PROTOCOL.krl); its format and its version follow.
const krlMagic = "SSHKRL\n\x00"

// krlVersion returns the version of a KRL, -1 if it is none.
func krlVersion(krl []byte) int64 {
	rest, ok := bytes.CutPrefix(krl, []byte(krlMagic))
	if !ok || len(rest) < 12 {
		return -1
	}
	return int64(binary.BigEndian.Uint64(rest[4:12]))
}

// checkAge fails if an answer has an older revocation list than the host: from a server
// that was rolled back. What was revoked since would be accepted again. After a restore
// that an administrator made, versions go on from higher ones.
func (h Host) checkAge(a host.Answer) error {
	have, err := os.ReadFile(h.path(setup.KRLFile))
	if err != nil || a.KRL == nil || krlVersion(a.KRL) >= krlVersion(have) {
		return nil // none that is there, or cannot be read, is newer
	}
	return postern.Errorf(postern.Denied, "the server sent version %d of the revocation list, and this host has %d",
		krlVersion(a.KRL), krlVersion(have)).
		WithHint("find out whether the server was restored or attacked; if it was set up anew, invite the host again")
}

// trust reads and checks an answer's files for sshd. Of what it does not bring, what is in
// place is kept.
func (h Host) trust(a host.Answer) (setup.HostTrust, error) {
	t := setup.HostTrust{Certificates: map[string][]byte{}, UserCAs: []byte(a.UserCAs), KRL: a.KRL}
	for rest := t.UserCAs; len(bytes.TrimSpace(rest)) > 0 || len(t.UserCAs) == 0; {
		_, _, _, after, err := ssh.ParseAuthorizedKey(rest)
		if err != nil {
			return t, postern.Errorf(postern.Denied, "the server sent user CAs that cannot be read")
		}
		rest = after
	}
	if t.KRL == nil {
		t.KRL, _ = os.ReadFile(h.path(setup.KRLFile))
	}
	if krlVersion(t.KRL) < 0 {
		return t, postern.Errorf(postern.Denied, "the server sent a revocation list that is none")
	}
	keys, err := h.sshKeys()
	if err != nil {
		return t, err
	}
	for _, key := range keys {
		if have, err := os.ReadFile(h.path(setup.CertificateFile(key.file))); err == nil {
			t.Certificates[key.file] = have
		}
		for _, sent := range a.SSHCertificates {
			if _, err := hostCertificate([]byte(sent), key.public); err == nil {
				t.Certificates[key.file] = []byte(sent)
			}
		}
	}
	return t, nil
}

// renewTrust writes what the host trusts. sshd reads CAs and the revocation list at each
// login.
func (h Host) renewTrust(_ context.Context, c *conn, a host.Answer) (changed []string, err error) {
	if err := h.checkAge(a); err != nil {
		return nil, err
	}
	if err := h.keepRoots(c, a); err != nil {
		return nil, err
	}
	t, err := h.trust(a)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(h.path(setup.KRLFile)); err == nil { // else there was no sshd to join
		if err := h.replace(setup.KRLFile, t.KRL, &changed); err != nil {
			return changed, err
		}
		if err := h.replace(setup.UserCAFile, t.UserCAs, &changed); err != nil {
			return changed, err
		}
	}
	return changed, h.writeKnownHosts(a.KnownHosts)
}

// renewSSH renews certificates of host keys that end soon, or are not for the names that
// the host has. sshd reads them when it is told to.
func (h Host) renewSSH(ctx context.Context, c *conn, a host.Answer) (changed []string, err error) {
	keys, err := h.sshKeys()
	if err != nil {
		return nil, err
	}
	var r host.Request
	for _, key := range keys {
		if h.sshDue(key, a.Names) {
			r.SSHKeys = append(r.SSHKeys, key.line)
		}
	}
	if len(r.SSHKeys) == 0 {
		return nil, h.notify(ctx, unreadSSHD, h.SSHD.Reload)
	}
	if a, err = c.refresh(ctx, r); err != nil {
		return nil, err
	}
	t, err := h.trust(a)
	if err != nil {
		return nil, err
	}
	if err := h.write(unreadSSHD, nil, 0o600); err != nil {
		return nil, err
	}
	for file, line := range t.Certificates {
		if err := h.replace(setup.CertificateFile(file), line, &changed); err != nil {
			return changed, err
		}
	}
	return changed, h.notify(ctx, unreadSSHD, h.SSHD.Reload)
}

// The files that are there while sshd, or libvirt, has not read what was renewed: this
// process may end before, and notifying them may fail.
const (
	unreadSSHD    = dir + "/unread-sshd"
	unreadLibvirt = dir + "/unread-libvirt"
)

// notify has a service read what was renewed, unless that was done.
func (h Host) notify(ctx context.Context, unread string, do func(context.Context) error) error {
	if _, err := os.Stat(h.path(unread)); err != nil {
		return nil // there is none
	}
	if err := do(ctx); err != nil {
		return err
	}
	return durable.Remove(h.path(unread))
}

// replace writes a file that others may read, unless it has that content, and adds it to
// those that changed.
func (h Host) replace(file string, content []byte, changed *[]string) error {
	if have, err := os.ReadFile(h.path(file)); err == nil && bytes.Equal(have, content) {
		return nil
	}
	if err := h.write(file, content, 0o644); err != nil {
		return err
	}
	*changed = append(*changed, file)
	return nil
}

// The lines around ours in ssh_known_hosts.
const (
	blockBegin = "# postern: begin\n"
	blockEnd   = "# postern: end\n"
)

// writeKnownHosts puts lines into the ssh_known_hosts of all users of this host, in the
// place of those that were put there before; "" takes them out.
func (h Host) writeKnownHosts(lines string) error {
	path := h.path(knownHosts)
	have, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	text := string(have)
	if before, rest, ok := strings.Cut(text, blockBegin); ok {
		_, after, whole := strings.Cut(rest, blockEnd)
		if !whole { // which lines behind it are the administrator's is not known
			return postern.Errorf(postern.Conflict, "%s has the line %q, and none after it that is %q", knownHosts,
				strings.TrimSpace(blockBegin), strings.TrimSpace(blockEnd)).
				WithHint("put the second behind the last line of this installation")
		}
		text = before + after
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if lines != "" {
		text += blockBegin + lines + blockEnd
	}
	_, err = os.Stat(filepath.Dir(path))
	switch {
	case text == string(have), err != nil: // without OpenSSH there is no directory
		return nil
	case text == "":
		return durable.Remove(path)
	}
	return h.write(knownHosts, []byte(text), 0o644)
}
