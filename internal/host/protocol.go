package host

import (
	"bytes"
	"encoding/json"

	"github.com/postern-project/postern"
)

// The paths of the server's API for hosts. Roots is for GET, and returns the root
// certificates (PEM), with which a host compares its token. The others are for POST: a
// request to Join is signed with a token, one to Refresh shows the host's client
// certificate. Their answers are signed, see [OpenAnswer]; errors are not.
const (
	Prefix      = "/api/host/"
	RootsPath   = Prefix + "roots"
	JoinPath    = Prefix + "join"
	RefreshPath = Prefix + "refresh"
)

// SignatureHeader has the signature of a request to Join, in base64: see [Token.Sign]. The
// HTTPS server takes headers that begin with Postern from requests.
const SignatureHeader = "Join-Signature"

// Bounds of a request and of an answer, bytes, and of the SSH keys in a request.
const (
	maxRequest = 64 << 10
	MaxAnswer  = 16 << 20
	maxKeys    = 8
)

// Request is what a host sends.
type Request struct {
	Nonce []byte `json:"nonce,omitempty"` // random, so that no answer is for two requests
	Token []byte `json:"token,omitempty"` // to Join: the token's public key
	// CSR asks for a client certificate (PKCS#10, PEM). Nothing but its key is used.
	CSR string `json:"csr,omitempty"`
	// Libvirt asks for a server certificate for libvirt (PKCS#10, PEM): with RefreshPath alone.
	Libvirt string             `json:"libvirt,omitempty"`
	SSHKeys []string           `json:"ssh_keys,omitempty"` // that need a host certificate, as in authorized_keys
	Report  postern.HostReport `json:"report"`
}

// Answer is what a host gets.
type Answer struct {
	Host            string   `json:"host"`
	Names           []string `json:"names"`                      // all by which clients reach it
	Certificate     string   `json:"certificate,omitempty"`      // PEM, with its intermediate
	Libvirt         string   `json:"libvirt,omitempty"`          // PEM, with its intermediate
	SSHCertificates []string `json:"ssh_certificates,omitempty"` // in the order of the keys
	Trust
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// Trust is what a host trusts.
type Trust struct {
	Roots      string `json:"roots"`         // root certificates, PEM
	UserCAs    string `json:"user_cas"`      // what TrustedUserCAKeys of sshd_config(5) names
	KnownHosts string `json:"known_hosts"`   // lines for ssh_known_hosts
	KRL        []byte `json:"krl,omitempty"` // what RevokedKeys names; nil if the host has it
	KRLVersion int64  `json:"krl_version"`
}

// parseRequest reads what a host sends, and checks its bounds.
func parseRequest(body []byte) (Request, error) {
	var r Request
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(&r); err != nil || d.More() {
		return r, postern.Errorf(postern.Invalid, "the request is not one JSON object of at most %d KiB",
			maxRequest>>10)
	}
	if len(r.SSHKeys) > maxKeys {
		return r, postern.Errorf(postern.Invalid, "more than %d SSH keys", maxKeys)
	}
	return r, nil
}
