package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/sshd/sign"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/term"
)

type sshLoginOptions struct {
	server     string
	person     string
	key        string
	clientCert string
	clientKey  string
	ca         string
	agent      bool
	knownHosts bool
}

func newSSHLogin(a *app) *cobra.Command {
	var o sshLoginOptions
	cmd := &cobra.Command{
		Use:   "login SERVER",
		Short: "Get a short-lived SSH certificate for your key",
		Long: `Ask a Postern server for a certificate for your SSH key: one code in the morning
instead of one for each host. It is written beside the key, where ssh finds it.

You prove yourself with a client certificate (--cert, --cert-key), or else with a
code, which is asked for on the terminal or read from standard input.

With --agent a fresh key is made, that no file ever holds, and given to the
running ssh-agent with its certificate until that expires.`,
		Example: "  postern ssh login id.example.com\n  postern ssh login id.example.com --agent --cert alice.pem --cert-key alice.key",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.server = args[0]
			return a.sshLogin(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.person, "person", "", "your `NAME` there (default: your user name here)")
	f.StringVar(&o.key, "key", "", "the public key `FILE` (default ~/.ssh/id_ed25519.pub)")
	f.StringVar(&o.clientCert, "cert", "", "prove yourself with the client certificate in this `FILE`, PEM")
	f.StringVar(&o.clientKey, "cert-key", "", "its private key `FILE`, PEM (default: in the same file)")
	f.StringVar(&o.ca, "ca", "", "trust the server by the certificates in this `FILE`, PEM (default: the system's)")
	f.BoolVar(&o.agent, "agent", false, "make a key and give it to the ssh-agent")
	f.BoolVar(&o.knownHosts, "known-hosts", false, "make the house's hosts known in ~/.ssh/known_hosts")
	return cmd
}

func (a *app) sshLogin(ctx context.Context, o sshLoginOptions) error {
	client, err := loginClient(o)
	if err != nil {
		return err
	}
	var fresh ed25519.PrivateKey
	var public []byte
	file := o.key
	if o.agent {
		if fresh, public, err = freshKey(); err != nil {
			return err
		}
	} else {
		if file == "" {
			file = homeFile(".ssh/id_ed25519.pub")
		}
		key, err := readPublicKey(file)
		if err != nil {
			return err
		}
		public = ssh.MarshalAuthorizedKey(key)
	}
	request := map[string]string{"public_key": string(public)}
	if o.clientCert == "" {
		if request["person"], request["code"], err = a.askCode(o); err != nil {
			return err
		}
	}
	signed, err := requestCertificate(ctx, client, o.server, request)
	if err != nil {
		return err
	}
	if o.agent {
		err = giveAgent(fresh, signed)
	} else {
		err = durable.Output(certificateFile(file), []byte(signed.Line), 0o644)
	}
	if err != nil {
		return postern.Errorf(postern.Unavailable, "%w", err)
	}
	if o.knownHosts {
		if err := addKnownHosts(homeFile(".ssh/known_hosts"), signed.KnownHosts); err != nil {
			return postern.Errorf(postern.Unavailable, "%w", err)
		}
	}
	fmt.Fprintf(a.out, "certificate %d opens %s until %s\n", signed.Serial, strings.Join(signed.Principals, ", "), signed.ValidBefore.Local().Format("2006-01-02 15:04"))
	return nil
}

// loginClient returns an HTTP client that trusts the server as told, and shows
// the client certificate if there is one.
func loginClient(o sshLoginOptions) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.ca != "" {
		b, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, postern.Errorf(postern.NotFound, "%w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(b) {
			return nil, postern.Errorf(postern.Invalid, "%s holds no certificate", o.ca)
		}
	}
	if o.clientCert != "" {
		key := o.clientKey
		if key == "" {
			key = o.clientCert
		}
		pair, err := tls.LoadX509KeyPair(o.clientCert, key)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "client certificate: %w", err)
		}
		// Send it whatever names the server lists.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// freshKey makes a key and the line of its public half.
func freshKey() (ed25519.PrivateKey, []byte, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, nil, err
	}
	return key, ssh.MarshalAuthorizedKey(p), nil
}

// askCode returns who asks, and a code: typed on a terminal without echo, or
// read from standard input.
func (a *app) askCode(o sshLoginOptions) (person, code string, err error) {
	person = o.person
	if person == "" {
		u, err := user.Current()
		if err != nil {
			return "", "", err
		}
		person = u.Username
	}
	var b []byte
	if in, ok := a.in.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		fmt.Fprintf(a.err, "Code for %s: ", person)
		b, err = term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(a.err)
	} else {
		b, err = io.ReadAll(io.LimitReader(a.in, 1<<10))
	}
	if err != nil {
		return "", "", postern.Errorf(postern.Invalid, "no code: %w", err)
	}
	return person, strings.TrimSpace(string(b)), nil
}

// requestCertificate asks the server to sign.
func requestCertificate(ctx context.Context, client *http.Client, server string, request map[string]string) (sign.Signed, error) {
	var signed sign.Signed
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return signed, postern.Errorf(postern.Invalid, "%q is not the name or https URL of a server", server)
	}
	body, err := json.Marshal(request)
	if err != nil {
		return signed, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.JoinPath("/ssh/sign").String(), bytes.NewReader(body))
	if err != nil {
		return signed, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return signed, postern.Errorf(postern.Unavailable, "%w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return signed, postern.Errorf(postern.Unavailable, "%w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var refusal struct{ Error, Hint string }
		if json.Unmarshal(answer, &refusal) != nil || refusal.Error == "" {
			refusal.Error = "the server answers " + resp.Status
		}
		code := postern.Denied
		if resp.StatusCode >= 500 {
			code = postern.Unavailable
		}
		return signed, postern.Errorf(code, "%s", refusal.Error).WithHint("%s", refusal.Hint)
	}
	if err := json.Unmarshal(answer, &signed); err != nil || signed.Line == "" {
		return signed, postern.Errorf(postern.Unavailable, "the server's answer is no certificate")
	}
	return signed, nil
}

// giveAgent hands key and certificate to the ssh-agent, until it expires.
func giveAgent(key ed25519.PrivateKey, signed sign.Signed) error {
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(signed.Line))
	if err != nil {
		return err
	}
	cert, ok := public.(*ssh.Certificate)
	if !ok {
		return postern.Errorf(postern.Unavailable, "the server's answer is no certificate")
	}
	conn, err := net.Dial("unix", os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return fmt.Errorf("the ssh-agent: %w", err)
	}
	defer conn.Close()
	left := time.Until(signed.ValidBefore)
	return agent.NewClient(conn).Add(agent.AddedKey{
		PrivateKey: &key, Certificate: cert, Comment: "postern " + cert.KeyId, LifetimeSecs: uint32(max(left, time.Second) / time.Second),
	})
}

// addKnownHosts appends the lines that the file lacks.
func addKnownHosts(file, lines string) error {
	have, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
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
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// homeFile returns the path of a file in the home directory.
func homeFile(name string) string {
	home, _ := os.UserHomeDir()
	return filepath.Join(home, name)
}
