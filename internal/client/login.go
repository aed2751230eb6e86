package client

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os/user"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/sshd/sign"
	"golang.org/x/crypto/ssh"
)

// Login gets an SSH certificate from a server. The person authenticates with
// a client certificate, or else with a code.
type Login struct {
	Server  string // host name, or https URL
	CA      string // PEM file of the CAs to trust the server by; "": the system's
	Cert    string // PEM file of a client certificate; "": a code is asked for
	CertKey string // PEM file of its private key; "": in the same file
	Person  string // for a code; "": the user name on this computer
	// Code asks for a person's code. It is called only without a client certificate.
	Code func(person string) (string, error)
	// Key is the file of the public key, whose certificate is written beside it;
	// "": ~/.ssh/id_ed25519.pub.
	Key string
	// Agent makes a new key instead, which is only ever in the running ssh-agent.
	Agent bool
	// KnownHosts adds the CAs of the server's hosts to ~/.ssh/known_hosts.
	KnownHosts bool
}

// Run gets the certificate and puts it where ssh finds it.
func (l Login) Run(ctx context.Context) (sign.Signed, error) {
	server, err := l.connect()
	if err != nil {
		return sign.Signed{}, err
	}
	var agent net.Conn
	if l.Agent { // before a code is used up
		if agent, err = dialAgent(); err != nil {
			return sign.Signed{}, postern.Errorf(postern.Unavailable, "the ssh-agent: %w", err).
				WithHint("start ssh-agent, or leave out that the key goes there")
		}
		defer agent.Close()
	}
	key, request, err := l.request()
	if err != nil {
		return sign.Signed{}, err
	}
	signed, err := server.sign(ctx, request)
	if err != nil {
		return sign.Signed{}, err
	}
	if err := l.keep(agent, key, signed); err != nil {
		return signed, postern.Errorf(postern.Unavailable, "%w", err)
	}
	return signed, nil
}

// request returns what is asked for, and the new private key if there is one.
func (l Login) request() (fresh ed25519.PrivateKey, r signRequest, err error) {
	var public ssh.PublicKey
	if l.Agent {
		public, fresh, err = newKey()
	} else {
		public, err = ReadPublicKey(l.keyFile())
	}
	if err != nil {
		return nil, r, err
	}
	r.PublicKey = string(ssh.MarshalAuthorizedKey(public))
	if l.Cert != "" {
		return fresh, r, nil
	}
	if r.Person, err = l.person(); err != nil {
		return nil, r, err
	}
	r.Code, err = l.Code(r.Person)
	return fresh, r, err
}

func (l Login) keyFile() string {
	if l.Key == "" {
		return homeFile(".ssh/id_ed25519.pub")
	}
	return l.Key
}

func (l Login) person() (string, error) {
	if l.Person != "" {
		return l.Person, nil
	}
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

// keep puts the certificate into the agent, or beside its key.
func (l Login) keep(agent net.Conn, fresh ed25519.PrivateKey, signed sign.Signed) (err error) {
	if l.Agent {
		err = addToAgent(agent, fresh, signed)
	} else {
		err = durable.Output(CertificateFile(l.keyFile()), []byte(signed.Line), 0o644)
	}
	if err == nil && l.KnownHosts {
		err = addKnownHosts(homeFile(".ssh/known_hosts"), signed.KnownHosts)
	}
	return err
}

// newKey makes an Ed25519 key.
func newKey() (ssh.PublicKey, ed25519.PrivateKey, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	p, err := ssh.NewPublicKey(public)
	return p, key, err
}
