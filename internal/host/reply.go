package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"

	"github.com/postern-project/postern"
)

// Where a host trusts a server's own certificate because of a public authority, the replies
// to its questions about logins and to its events are signed, too, as the answers of this
// API are. The signature is in a header: other clients ask for none.

// The headers of a request that asks for a signed reply, and of the reply.
const (
	nonceHeader = "Reply-Nonce"
	replyHeader = "Reply-Signature" // base64 of a replySignature as JSON
)

// Bounds of a nonce, of a request and of a reply, bytes.
const (
	maxNonce      = 64
	maxReplied    = 2 << 20
	maxReply      = 256 << 10
	nonceLen      = 16
	maxReplyProof = 16 << 10
)

// replySignature is what signs a reply.
type replySignature struct {
	Signature []byte `json:"signature"`
	Signer    string `json:"signer"` // PEM, with its chain
}

// hashRequest begins the hash of a host's request; its body follows.
func hashRequest(name string, r *http.Request, nonce string) hash.Hash {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s\x00", name, r.Method, r.URL.RequestURI(), nonce)
	return h
}

// replyStatement is what is signed; it begins as no other statement of a CA does.
func replyStatement(request hash.Hash, status int, reply []byte) []byte {
	text := request.Sum([]byte("postern host reply\x00"))
	return append(fmt.Appendf(text, "%d\x00", status), reply...)
}

// isDecision reports whether a reply with that status takes effect on a host: others say
// that there is none.
func isDecision(status int) bool { return status == http.StatusOK || status == http.StatusBadRequest }

// SignReplies has the replies of a service signed for the host that asks, if it wants that.
// name returns the host by its client certificate, and sign is that of an [Authority].
func SignReplies(
	service http.Handler, name func(*http.Request) (string, error),
	sign func(ctx context.Context, message []byte) (signature, chain []byte, err error), log *slog.Logger,
) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nonce := r.Header.Get(nonceHeader)
		if nonce == "" || len(nonce) > maxNonce {
			service.ServeHTTP(w, r)
			return
		}
		host, err := name(r)
		if err != nil {
			service.ServeHTTP(w, r) // which refuses it
			return
		}
		request := hashRequest(host, r, nonce)
		read := *r
		read.Body = readCloser{io.TeeReader(r.Body, request), r.Body}
		reply := &buffered{ResponseWriter: w, status: http.StatusOK}
		service.ServeHTTP(reply, &read)
		if isDecision(reply.status) {
			_, _ = io.CopyN(io.Discard, read.Body, maxReplied) // a service may reply before it has read all
			s, err := signReply(r.Context(), replyStatement(request, reply.status, reply.body.Bytes()), sign)
			if err != nil {
				log.WarnContext(r.Context(), "a reply to a host is not signed", slog.Any(postern.LogError, err))
			}
			w.Header().Set(replyHeader, s)
		}
		w.WriteHeader(reply.status)
		_, _ = w.Write(reply.body.Bytes())
	})
}

func signReply(
	ctx context.Context, message []byte,
	sign func(ctx context.Context, message []byte) (signature, chain []byte, err error),
) (string, error) {
	signature, chain, err := sign(ctx, message)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(replySignature{signature, string(chain)})
	return base64.StdEncoding.EncodeToString(text), err
}

// readCloser reads from one, and closes another.
type readCloser struct {
	io.Reader
	io.Closer
}

// buffered keeps a reply until it is signed.
type buffered struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (b *buffered) WriteHeader(status int)         { b.status = status }
func (b *buffered) Write(text []byte) (int, error) { return b.body.Write(text) }
func (b *buffered) Unwrap() http.ResponseWriter    { return b.ResponseWriter } // for deadlines

// VerifyReplies returns a transport of a host of that name which passes on no decision of a
// server that was not signed for the very request by a delegate of a CA under one of the
// roots. It is safe for concurrent use.
func VerifyReplies(next http.RoundTripper, name string, roots func() (*x509.CertPool, error)) http.RoundTripper {
	return verifying{next, name, roots}
}

type verifying struct {
	next  http.RoundTripper
	name  string
	roots func() (*x509.CertPool, error)
}

// RoundTrip implements [http.RoundTripper].
func (v verifying) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	var random [nonceLen]byte
	rand.Read(random[:])
	nonce := base64.RawURLEncoding.EncodeToString(random[:])
	asked := r.Clone(r.Context())
	asked.Header.Set(nonceHeader, nonce)
	if r.Body != nil {
		asked.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		asked.Body, _ = asked.GetBody()
	}
	res, err := v.next.RoundTrip(asked)
	if err != nil || !isDecision(res.StatusCode) {
		return res, err
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	if err != nil {
		return nil, err
	}
	request := hashRequest(v.name, r, nonce)
	request.Write(body)
	if err := v.verify(res.Header.Get(replyHeader), replyStatement(request, res.StatusCode, reply)); err != nil {
		return nil, err
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(reply)), int64(len(reply))
	return res, nil
}

func (v verifying) verify(header string, statement []byte) error {
	var s replySignature
	text, err := base64.StdEncoding.DecodeString(header)
	if err != nil || len(text) > maxReplyProof || json.Unmarshal(text, &s) != nil {
		return errNotSigned("it has no signature")
	}
	roots, err := v.roots()
	if err != nil {
		return err
	}
	signer, err := verifySigner([]byte(s.Signer), roots)
	if err != nil {
		return err
	}
	if signer.CheckSignature(x509.ECDSAWithSHA256, statement, s.Signature) != nil {
		return errNotSigned("the signature is not valid for this request")
	}
	return nil
}
