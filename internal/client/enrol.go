package client

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/sign"
)

// Enrol makes an SSH key in a FIDO2 key, and has the server keep it with what proves that
// it is in one.
type Enrol struct {
	// Login is the server and how the person authenticates. Its Key is the file of the
	// public key to make; "": ~/.ssh/id_TYPE.pub, as ssh-keygen names it.
	Login
	Type     string // as for ssh-keygen -t: ed25519-sk or ecdsa-sk
	Label    string
	Provider string // a library of FIDO2 keys, as for ssh-keygen -w; "": OpenSSH's own
	NoPIN    bool   // the FIDO2 key needs a touch alone
	Resident bool   // the FIDO2 key keeps the key's handle, for other computers
	// Keygen runs ssh-keygen, which asks for a PIN and a passphrase.
	Keygen func(*exec.Cmd) error
}

// Run makes the key and enrols it. A key that the server refuses is left where it is.
func (e Enrol) Run(ctx context.Context) (sign.EnrolAnswer, error) {
	var answer sign.EnrolAnswer
	server, err := e.connect()
	if err != nil {
		return answer, err
	}
	q := sign.EnrolRequest{Label: e.Label}
	who := ""
	if e.Cert == "" {
		if q.Person, err = e.person(); err != nil {
			return answer, err
		}
		who = "?person=" + url.QueryEscape(q.Person)
	}
	var c sign.ChallengeAnswer
	if err := server.ask(ctx, http.MethodGet, "/ssh/challenge"+who, nil, &c); err != nil {
		return answer, err
	}
	if err := e.make(ctx, c.Challenge, &q); err != nil {
		return answer, err
	}
	if e.Cert == "" {
		if q.Code, err = e.Code(q.Person); err != nil {
			return answer, err
		}
	}
	err = server.ask(ctx, http.MethodPost, "/ssh/enrol", q, &answer)
	return answer, err
}

// make has ssh-keygen make a key for a challenge.
func (e Enrol) make(ctx context.Context, challenge []byte, q *sign.EnrolRequest) error {
	private := strings.TrimSuffix(e.Key, ".pub")
	if private == "" {
		private = homeFile(".ssh/id_" + strings.ReplaceAll(e.Type, "-", "_"))
	}
	if _, err := os.Lstat(private); !errors.Is(err, fs.ErrNotExist) {
		return postern.Errorf(postern.Conflict, "there is a key in %s already", private).
			WithHint("name another file, or move that one away")
	}
	dir, err := os.MkdirTemp("", "postern-enrol-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	asked, answered := filepath.Join(dir, "challenge"), filepath.Join(dir, "attestation")
	if err := os.WriteFile(asked, challenge, 0o600); err != nil {
		return err
	}
	args := []string{"-t", e.Type, "-f", private, "-O", "challenge=" + asked, "-O", "write-attestation=" + answered}
	for option, set := range map[string]bool{"verify-required": !e.NoPIN, "resident": e.Resident} {
		if set {
			args = append(args, "-O", option)
		}
	}
	if e.Provider != "" {
		args = append(args, "-w", e.Provider)
	}
	if err := e.Keygen(exec.CommandContext(ctx, "ssh-keygen", args...)); err != nil {
		return postern.Errorf(postern.Unavailable, "ssh-keygen made no key: %w", err).
			WithHint("OpenSSH 8.5 or newer with libfido2, and a FIDO2 key that is plugged in, are needed")
	}
	if q.Attestation, err = os.ReadFile(answered); err != nil {
		return err
	}
	public, err := os.ReadFile(private + ".pub")
	q.PublicKey, q.Challenge = string(public), challenge
	return err
}
