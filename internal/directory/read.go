package directory

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
)

const (
	timeout    = 10 * time.Second // for one answer
	pageSize   = 500              // entries in one answer (RFC 2696)
	maxEntries = 200_000          // of one search; more is an error
)

// Read reads a directory. It fails with [postern.Unavailable] if the directory does not
// answer, or shows no people, and with [postern.Denied] if it refuses.
func Read(ctx context.Context, c Config) (*Snapshot, error) {
	c = c.WithDefaults()
	conn, err := dial(ctx, c)
	if err != nil {
		return nil, failed(c, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s, err := (&reader{c, conn, time.Now()}).read()
	if err != nil {
		return nil, failed(c, err)
	}
	return s, nil
}

// failed says in words why a directory could not be read. It names no password.
func failed(c Config, err error) error {
	if _, ok := errors.AsType[*postern.Error](err); ok {
		return err
	}
	e, ok := errors.AsType[*ldap.Error](err)
	switch {
	case ok && e.ResultCode == ldap.LDAPResultInvalidCredentials:
		return postern.Errorf(postern.Denied, "the directory %s does not take the account %s with its password",
			c.Name, c.BindDN).WithHint("check bind_dn and the password's file")
	case ok && e.ResultCode == ldap.LDAPResultNoSuchObject:
		return postern.Errorf(postern.Unavailable, "the directory %s has no entry %s, or does not show it", c.Name,
			c.Base).
			WithHint("check base, and what the account may read")
	}
	return postern.Errorf(postern.Unavailable, "read the directory %s: %w", c.Name, err).
		WithHint("check that %s can be reached, and that its certificate is from a CA that is trusted here", c.URL)
}

// dial connects, encrypts and binds.
func dial(ctx context.Context, c Config) (*ldap.Conn, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	if config.RootCAs, err = roots(c.CA); err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ldaps": "636", "ldap": "389"}[u.Scheme]
	}
	d := &net.Dialer{Timeout: timeout}
	socket, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	if u.Scheme == "ldaps" {
		secure := tls.Client(socket, config)
		limited, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if err := secure.HandshakeContext(limited); err != nil {
			return nil, errors.Join(err, socket.Close())
		}
		socket = secure
	}
	conn := ldap.NewConn(socket, u.Scheme == "ldaps")
	conn.SetTimeout(timeout)
	conn.Start()
	if u.Scheme == "ldap" {
		if err := conn.StartTLS(config); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	if err := bind(conn, c); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// roots returns the CAs in PEM files; nil, for the system's, if there are no files.
func roots(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "the directory's CA: %w", err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, postern.Errorf(postern.Invalid, "%s has no certificate of the directory's CA in PEM", name)
		}
	}
	return pool, nil
}

func bind(conn *ldap.Conn, c Config) error {
	if c.BindDN == "" {
		return conn.UnauthenticatedBind("")
	}
	secret, err := durable.ReadCredential(c.PasswordFile)
	if err != nil {
		return postern.Errorf(postern.Denied, "the password of the directory %s: %w", c.Name, err).
			WithHint("write it into %s, which only this user may read", c.PasswordFile)
	}
	password := strings.TrimRight(string(secret), "\r\n")
	if password == "" { // a server would take it for an anonymous bind (RFC 4513 section 5.1.2)
		return postern.Errorf(postern.Denied, "%s holds no password of the directory %s", c.PasswordFile, c.Name)
	}
	return conn.Bind(c.BindDN, password)
}

// reader reads by one connection.
type reader struct {
	c    Config
	conn *ldap.Conn
	now  time.Time
}

// read reads people and groups. A directory that shows no people is one that
// cannot be read: a changed permission or base must not suspend everybody.
func (r *reader) read() (*Snapshot, error) {
	microsoft, err := r.microsoft()
	if err != nil {
		return nil, err
	}
	users, name := defaultUsers, "uid"
	if microsoft {
		users, name = microsoftUsers, "sAMAccountName"
	}
	r.c.Users, r.c.NameAttribute = cmp.Or(r.c.Users, users), cmp.Or(r.c.NameAttribute, name)
	s := &Snapshot{}
	members, err := r.members(s, microsoft)
	if err != nil {
		return nil, err
	}
	entries, err := r.search(r.c.Users, personAttributes(r.c.NameAttribute)...)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if p, ok := r.person(e, s); ok {
			p.Groups = members.of(e, p.Name)
			s.People = append(s.People, p)
		}
	}
	if len(s.People) == 0 {
		return nil, postern.Errorf(postern.Unavailable, "the directory %s shows no person below %s", r.c.Name,
			r.c.Base).
			WithHint("check base and users, and what the account may read")
	}
	return s, nil
}

// microsoft reports whether the server is Active Directory, by the capabilities of its
// root entry ([MS-ADTS] section 3.1.1.3.4.3).
func (r *reader) microsoft() (bool, error) {
	const capability = "1.2.840.113556.1.4.800"
	found, err := r.conn.Search(ldap.NewSearchRequest("", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0,
		int(timeout/time.Second), false, "(objectClass=*)", []string{"supportedCapabilities"}, nil))
	if err != nil || len(found.Entries) == 0 {
		return false, err
	}
	for _, v := range found.Entries[0].GetAttributeValues("supportedCapabilities") {
		if v == capability {
			return true, nil
		}
	}
	return false, nil
}

// search returns all entries below the base that a filter finds, page by page. An
// answer that is cut off is an error: who is missing would be suspended.
func (r *reader) search(filter string, attributes ...string) ([]*ldap.Entry, error) {
	paging := ldap.NewControlPaging(pageSize)
	request := ldap.NewSearchRequest(r.c.Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0,
		int(timeout/time.Second), false, filter, attributes, []ldap.Control{paging})
	var all []*ldap.Entry
	for {
		found, err := r.conn.Search(request)
		if err != nil {
			return nil, err
		}
		if all = append(all, found.Entries...); len(all) > maxEntries {
			return nil, postern.Errorf(postern.Unavailable, "the directory %s has more than %d entries of a kind",
				r.c.Name, maxEntries).WithHint("choose those that matter by a filter")
		}
		next, ok := ldap.FindControl(found.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(next.Cookie) == 0 {
			return all, nil
		}
		paging.SetCookie(next.Cookie)
	}
}
