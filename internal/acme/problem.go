package acme

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/postern-project/postern"
)

// Problem is a problem document (RFC 7807) with ACME's types (RFC 8555 section
// 6.7). It is also the error by which a handler refuses.
type Problem struct {
	Type        string      `json:"type"`
	Detail      string      `json:"detail"`
	Status      int         `json:"status,omitempty"`
	Identifier  *Identifier `json:"identifier,omitempty"`
	Subproblems []*Problem  `json:"subproblems,omitempty"`
	Algorithms  []string    `json:"algorithms,omitempty"`
	header      [][2]string
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

func problem(kind string, status int, format string, args ...any) *Problem {
	return &Problem{Type: "urn:ietf:params:acme:error:" + kind, Status: status, Detail: fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) *Problem {
	return problem("malformed", http.StatusBadRequest, format, args...)
}

func unauthorized(format string, args ...any) *Problem {
	return problem("unauthorized", http.StatusForbidden, format, args...)
}

func notFound(what string) *Problem {
	return problem("malformed", http.StatusNotFound, "there is no such %s", what)
}

func badNonce() *Problem {
	return problem("badNonce", http.StatusBadRequest, "the nonce is not good (any more); take the one of this answer")
}

func badSignatureAlgorithm(alg string) *Problem {
	p := problem("badSignatureAlgorithm", http.StatusBadRequest, "the algorithm %q is not accepted", alg)
	p.Algorithms = slices.Sorted(maps.Keys(algorithms))
	return p
}

func badPublicKey(why string) *Problem {
	return problem("badPublicKey", http.StatusBadRequest, "the key is not accepted: %s", why)
}

func badCSR(format string, args ...any) *Problem {
	return problem("badCSR", http.StatusBadRequest, format, args...)
}

func rejectedIdentifier(id Identifier, why string) *Problem {
	p := problem("rejectedIdentifier", http.StatusForbidden, "%s: %s", id.Value, why)
	p.Identifier = &id
	return p
}

func invalidProfile(why string) *Problem {
	return problem("invalidProfile", http.StatusBadRequest, "%s", why)
}

func unsupportedIdentifier(id Identifier) *Problem {
	p := problem("unsupportedIdentifier", http.StatusBadRequest, "names of type %q are not certified", id.Type)
	p.Identifier = &id
	return p
}

func orderNotReady(status string) *Problem {
	return problem("orderNotReady", http.StatusForbidden, "the order is %s, not ready", status)
}

func accountDoesNotExist() *Problem {
	return problem("accountDoesNotExist", http.StatusBadRequest, "there is no account with this key")
}

func externalAccountRequired() *Problem {
	return problem("externalAccountRequired", http.StatusForbidden,
		"an account needs an external account binding: make a key in the portal")
}

func invalidContact(c string) *Problem {
	return problem("invalidContact", http.StatusBadRequest, "%q is no e-mail address", c)
}

func unsupportedContact(c string) *Problem {
	return problem("unsupportedContact", http.StatusBadRequest, "%q is not mailto:", c)
}

func alreadyRevoked() *Problem {
	return problem("alreadyRevoked", http.StatusBadRequest, "the certificate is revoked already")
}

func badRevocationReason(r postern.RevocationReason) *Problem {
	return problem("badRevocationReason", http.StatusBadRequest, "certificates are not revoked for reason %d", int(r))
}

func rateLimited(detail string) *Problem {
	p := problem("rateLimited", http.StatusTooManyRequests, "%s", detail)
	p.header = append(p.header, [2]string{"Retry-After", "60"})
	return p
}

func serverInternal() *Problem {
	return problem("serverInternal", http.StatusInternalServerError,
		"something broke here; the server's log says what")
}

// problemOf returns the problem document for an error. It contains only text that
// was written for the client.
func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	switch postern.CodeOf(err) {
	case postern.Denied:
		return unauthorized("%s", err)
	case postern.Invalid:
		return malformed("%s", err)
	case postern.NotFound:
		return problem("malformed", http.StatusNotFound, "%s", err)
	case postern.TooMany:
		return rateLimited(err.Error())
	case postern.Unavailable:
		p := problem("serverInternal", http.StatusServiceUnavailable, "the server cannot do this now; try again")
		p.header = append(p.header, [2]string{"Retry-After", "10"})
		return p
	}
	return serverInternal()
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	for _, h := range p.header {
		w.Header().Set(h[0], h[1])
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p) //nolint:errcheck // the client is gone
}

// proofProblem says why a name was not proved.
func proofProblem(kind string, id Identifier, why string) *Problem {
	p := problem(kind, http.StatusForbidden, "%s: %s", id.Value, strings.TrimSpace(why))
	p.Identifier = &id
	return p
}
