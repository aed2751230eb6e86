package host

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
)

// Authority issues what hosts need. It is safe for concurrent use.
type Authority interface {
	// Admit uses up the token that has this hash for the key of a request (PKCS#10, PEM), and returns
	// the host that it admits with its client certificate (PEM). Denied: the token admits
	// no host with that key.
	Admit(ctx context.Context, by postern.Actor, hash, csr []byte) (h postern.Host, chain []byte, err error)
	// Renew issues the next client certificate to a host that showed one.
	Renew(ctx context.Context, by postern.Actor, h Shown, csr []byte) (chain []byte, err error)
	// ServerCertificate issues a server certificate for a request (PKCS#10, PEM) that asks for
	// names of the host alone; Denied for any other name.
	ServerCertificate(ctx context.Context, by postern.Actor, h postern.Host, csr []byte) (chain []byte, err error)
	// SSHCertificate issues a host certificate for one of a host's SSH keys, as a line.
	SSHCertificate(ctx context.Context, by postern.Actor, h postern.Host, key ssh.PublicKey) (string, error)
	// Sign signs a message by ECDSA with SHA-256, with the key of a delegate of a CA that may
	// sign OCSP answers, and returns the delegate's chain, PEM.
	Sign(ctx context.Context, message []byte) (signature, chain []byte, err error)
	// Roots returns the root certificates, PEM.
	Roots() []byte
	// Trust returns what hosts trust, without the KRL if that has the version given.
	Trust(ctx context.Context, krl int64) (Trust, error)
	// Reported keeps what a host says about itself.
	Reported(ctx context.Context, host string, r postern.HostReport) error
}

// Shown is a host, with the serial number of the client certificate that it showed.
type Shown struct {
	postern.Host
	Serial string
}

// Config is a handler's.
type Config struct {
	Authority Authority
	// Identify returns the host that sends a request, by its client certificate; an
	// error refuses the request.
	Identify func(*http.Request) (Shown, error)
	Address  func(*http.Request) string // the client's IP address
	Log      *slog.Logger
}

// maxBusy is how many requests to join are answered at a time: clients are not
// authenticated before.
const maxBusy = 8

// readTime is how long a client may take to send its request.
const readTime = 20 * time.Second

// NewHandler returns the server's API for hosts. It is safe for concurrent use.
func NewHandler(c Config) http.Handler {
	h := &handler{Config: c, slots: make(chan struct{}, maxBusy)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+RootsPath, h.roots)
	mux.HandleFunc("POST "+JoinPath, func(w http.ResponseWriter, r *http.Request) { h.answer(w, r, h.join) })
	mux.HandleFunc("POST "+RefreshPath, func(w http.ResponseWriter, r *http.Request) { h.answer(w, r, h.refresh) })
	return mux
}

func (h *handler) roots(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(h.Authority.Roots())
}

type handler struct {
	Config
	slots chan struct{}
}

func (h *handler) answer(
	w http.ResponseWriter, r *http.Request, do func(r *http.Request, body []byte) (Answer, error),
) {
	answer, err := h.signed(w, r, do)
	status := http.StatusOK
	if err != nil {
		code := postern.CodeOf(err)
		a := Answer{Error: err.Error(), Hint: postern.HintOf(err)}
		if code == postern.Internal {
			a.Error = "something broke"
		}
		answer, status = a, code.HTTPStatus()
		h.Log.WarnContext(r.Context(), "a host was refused", slog.Any(postern.LogError, err),
			slog.String(postern.LogAddress, h.Address(r)))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

// signed reads a request, and returns the signed answer.
func (h *handler) signed(
	w http.ResponseWriter, r *http.Request, do func(r *http.Request, body []byte) (Answer, error),
) (answer any, err error) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "read the request: %w", err)
	}
	a, err := do(r, body)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	signature, chain, err := h.Authority.Sign(r.Context(), statement(body, text))
	return signedAnswer{Answer: text, Signature: signature, Signer: string(chain)}, err
}

// join admits a host whose request a token signed.
func (h *handler) join(r *http.Request, body []byte) (Answer, error) {
	req, err := parseRequest(body)
	if err != nil {
		return Answer{}, err
	}
	signature, _ := base64.StdEncoding.DecodeString(r.Header.Get(SignatureHeader)) // else it is not valid
	if err := verifyRequest(req.Token, body, signature); err != nil {
		return Answer{}, err
	}
	keys, err := parseKeys(req.SSHKeys)
	if err != nil {
		return Answer{}, err
	}
	select { // not before: clients that send slowly would keep all hosts from joining
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		return Answer{}, postern.Errorf(postern.TooMany, "too many hosts join at a time").WithHint("try again")
	}
	by := postern.Actor{Address: h.Address(r)}
	joined, chain, err := h.Authority.Admit(r.Context(), by, hashOf(req.Token), []byte(req.CSR))
	if err != nil {
		return Answer{}, err
	}
	return h.supply(r.Context(), joined, Answer{Certificate: string(chain)}, by, req, keys)
}

// refresh answers a host that has joined.
func (h *handler) refresh(r *http.Request, body []byte) (Answer, error) {
	shown, err := h.Identify(r) // now that it has sent: it may have been suspended meanwhile
	if err != nil {
		return Answer{}, err
	}
	req, err := parseRequest(body)
	if err != nil {
		return Answer{}, err
	}
	keys, err := parseKeys(req.SSHKeys)
	if err != nil {
		return Answer{}, err
	}
	by := postern.Actor{Address: h.Address(r)}
	var a Answer
	if req.CSR != "" {
		chain, err := h.Authority.Renew(r.Context(), by, shown, []byte(req.CSR))
		if err != nil {
			return Answer{}, err
		}
		a.Certificate = string(chain)
	}
	if req.Libvirt != "" {
		chain, err := h.Authority.ServerCertificate(r.Context(), by, shown.Host, []byte(req.Libvirt))
		if err != nil {
			return Answer{}, err
		}
		a.Libvirt = string(chain)
	}
	return h.supply(r.Context(), shown.Host, a, by, req, keys)
}

// parseKeys reads SSH public keys.
func parseKeys(lines []string) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for _, line := range lines {
		key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil || len(rest) > 0 {
			return nil, postern.Errorf(postern.Invalid, "%.80q is not one SSH public key", line)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// supply adds to an answer what a host needs besides its client certificate.
func (h *handler) supply(
	ctx context.Context, to postern.Host, a Answer, by postern.Actor, req Request, keys []ssh.PublicKey,
) (Answer, error) {
	a.Host, a.Names = to.Name, to.All()
	for _, key := range keys {
		line, err := h.Authority.SSHCertificate(ctx, by, to, key)
		if err != nil {
			return Answer{}, err
		}
		a.SSHCertificates = append(a.SSHCertificates, line)
	}
	var err error
	if a.Trust, err = h.Authority.Trust(ctx, req.Report.KRL); err != nil {
		return Answer{}, err
	}
	return a, h.Authority.Reported(ctx, to.Name, req.Report)
}
