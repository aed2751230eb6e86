package client

import (
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/sign"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// ReadPublicKey reads an SSH public key from a file, as ssh-keygen writes it.
func ReadPublicKey(file string) (ssh.PublicKey, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "%w", err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "%s holds no SSH public key", file).
			WithHint("give the .pub file; ssh-keygen -t ed25519 makes a key")
	}
	return key, nil
}

// CertificateFile is where ssh looks for the certificate of a key (ssh(1), -i).
func CertificateFile(public string) string { return strings.TrimSuffix(public, ".pub") + "-cert.pub" }

// addToAgent gives key and certificate to the ssh-agent until the certificate
// expires.
func addToAgent(conn io.ReadWriter, key ed25519.PrivateKey, signed sign.Signed) error {
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(signed.Line))
	if err != nil {
		return err
	}
	cert, ok := public.(*ssh.Certificate)
	if !ok {
		return errNoCertificate
	}
	left := time.Until(signed.ValidBefore)
	return agent.NewClient(conn).Add(agent.AddedKey{
		PrivateKey: &key, Certificate: cert, Comment: "postern " + cert.KeyId,
		LifetimeSecs: uint32(max(left, time.Second) / time.Second),
	})
}

// addKnownHosts appends the lines that the file lacks.
func addKnownHosts(file, lines string) error {
	have, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var missing strings.Builder
	for line := range strings.Lines(lines) {
		if !strings.Contains(string(have), strings.TrimSpace(line)) {
			missing.WriteString(line)
		}
	}
	if missing.Len() == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(missing.String())
	return errors.Join(err, f.Close())
}

// homeFile returns the path of a file in the home directory.
func homeFile(name string) string {
	home, _ := os.UserHomeDir()
	return filepath.Join(home, name)
}
