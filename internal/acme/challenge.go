package acme

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/postern-project/postern"
)

// The ways to prove a name.
const (
	http01    = "http-01"
	dns01     = "dns-01"
	tlsALPN01 = "tls-alpn-01"
)

// patience is how long an answer waits for a validation, so that most clients
// see its end at once.
const patience = 2 * time.Second

// challenge starts a validation, or returns the state of one.
func (s *Server) challenge(w http.ResponseWriter, r *http.Request, m *message) error {
	o, err := s.orderOf(m)
	if err != nil {
		return err
	}
	i, j := number(r, "authz"), number(r, "challenge")
	a, c := o.find(i, j)
	if c == nil {
		return notFound("challenge")
	}
	if m.postAsGet() || c.Status != pending || a.Status != pending || o.Status != pending {
		return s.writeChallenge(w, m, o, i, j)
	}
	var req struct{}
	if err := m.decode(&req); err != nil {
		return err
	}
	auth, err := keyAuthorization(c.Token, m.key)
	if err != nil {
		return err
	}
	v := validation{
		order: o.ID, account: *m.account, authz: i, challenge: j, name: a.Identifier, kind: c.Type,
		token: c.Token, auth: auth, address: m.address,
	}
	select {
	case s.busy <- struct{}{}:
	default:
		return rateLimited("too many names are being looked at; try again in a moment")
	}
	done := make(chan *Order, 1)
	s.work.Go(func() {
		defer func() { <-s.busy }()
		done <- s.validate(s.ctx, v)
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case settled := <-done:
		if settled != nil {
			o = settled
		}
	case <-timer.C:
		if o, err = s.markProcessing(r.Context(), v); err != nil {
			return err
		}
	case <-r.Context().Done():
		return r.Context().Err()
	}
	return s.writeChallenge(w, m, o, i, j)
}

func (s *Server) writeChallenge(w http.ResponseWriter, m *message, o *Order, i, j int) error {
	c := answerChallenge(m, o, i, j)
	if c.Status == processing {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Add("Link", fmt.Sprintf(`<%s/authz/%s/%d>;rel="up"`, m.base, o.ID, i))
	return writeJSON(w, http.StatusOK, c)
}

// keyAuthorization binds a token to an account's key (RFC 8555 section 8.1).
func keyAuthorization(token string, key *jose.JSONWebKey) (string, error) {
	print, err := thumbprint(key)
	return token + "." + print, err
}

// validation is one look at a name.
type validation struct {
	order            string
	account          Account
	authz, challenge int
	name             Identifier
	kind             string
	token, auth      string
	address          string
}

// markProcessing says that a validation takes longer: should the server stop
// now, the next one takes it up.
func (s *Server) markProcessing(ctx context.Context, v validation) (*Order, error) {
	o, err := s.store.ChangeOrder(ctx, v.order, func(o *Order) error {
		if _, c := o.find(v.authz, v.challenge); c.Status == pending {
			c.Status = processing
		}
		return nil
	})
	return &o, err
}

// validate looks at a name and writes down what it saw. It returns nil if it
// was stopped, or could not write.
func (s *Server) validate(ctx context.Context, v validation) *Order {
	problem := s.prove(ctx, v)
	if ctx.Err() != nil {
		return nil
	}
	now := s.cfg.Now().UTC()
	var events []postern.Event
	if problem != nil {
		events = append(events, postern.Event{
			Kind: postern.EventACMEOrder, Outcome: postern.Refused, Person: v.account.Person, Address: v.address,
			Object: v.name.Value,
			Reason: problem.Detail, Details: map[string]string{"account": v.account.ID, "challenge": v.kind},
		})
	}
	o, err := s.store.ChangeOrder(ctx, v.order, func(o *Order) error {
		a, c := o.find(v.authz, v.challenge)
		if a.Status != pending || c.Status != pending && c.Status != processing {
			return nil
		}
		if problem != nil {
			c.Status, c.Error, a.Status = invalid, problem, invalid
		} else {
			c.Status, c.Validated, a.Status = valid, now, valid
		}
		o.settle(now)
		return nil
	}, events...)
	if err != nil {
		s.log.ErrorContext(ctx, "acme: the result of a validation cannot be stored", postern.LogOrder, v.order,
			postern.LogError, err)
		return nil
	}
	return &o
}

// resume continues the validations that were under way when the last server
// stopped, and removes old orders.
func (s *Server) resume(ctx context.Context) {
	orders, err := s.store.Processing(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.ErrorContext(ctx, "acme: the validations that were under way cannot be continued", postern.LogError, err)
	}
	for _, o := range orders {
		account, err := s.store.Account(ctx, o.Account)
		if err != nil {
			continue
		}
		for i, a := range o.Authz {
			for j, c := range a.Challenges {
				if c.Status == processing && ctx.Err() == nil {
					s.resumeOne(ctx, &o, account, i, j)
				}
			}
		}
	}
	for ctx.Err() == nil {
		if err := s.store.RemoveOrders(ctx, s.cfg.Now().Add(-7*24*time.Hour)); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "acme: old orders could not be removed", postern.LogError, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Hour):
		}
	}
}

func (s *Server) resumeOne(ctx context.Context, o *Order, account Account, i, j int) {
	a, c := o.find(i, j)
	var key jose.JSONWebKey
	if key.UnmarshalJSON(account.Key) != nil {
		return
	}
	auth, err := keyAuthorization(c.Token, &key)
	if err != nil {
		return
	}
	s.busy <- struct{}{}
	defer func() { <-s.busy }()
	s.validate(ctx, validation{
		order: o.ID, account: account, authz: i, challenge: j, name: a.Identifier, kind: c.Type,
		token: c.Token, auth: auth,
	})
}

// prove looks at a name in the way that the challenge asks for.
func (s *Server) prove(ctx context.Context, v validation) *Problem {
	switch v.kind {
	case http01:
		return s.proveHTTP(ctx, v)
	case dns01:
		return s.proveDNS(ctx, v)
	case tlsALPN01:
		return s.proveALPN(ctx, v)
	}
	return serverInternal()
}

// proveHTTP implements RFC 8555 section 8.3.
func (s *Server) proveHTTP(ctx context.Context, v validation) *Problem {
	body, err := s.prober.File(ctx, v.name.Value, "/.well-known/acme-challenge/"+v.token, 4096)
	if err != nil {
		return proofProblem("connection", v.name, err.Error())
	}
	if !same(strings.TrimRight(string(body), " \t\r\n"), v.auth) {
		return proofProblem("incorrectResponse", v.name, "the file is there, but does not hold the key authorization")
	}
	return nil
}

// proveDNS implements RFC 8555 section 8.4.
func (s *Server) proveDNS(ctx context.Context, v validation) *Problem {
	records, err := s.prober.TXT(ctx, "_acme-challenge."+v.name.Value)
	if err != nil {
		return proofProblem("dns", v.name, err.Error())
	}
	sum := sha256.Sum256([]byte(v.auth))
	want := base64.RawURLEncoding.EncodeToString(sum[:])
	for _, r := range records {
		if same(r, want) {
			return nil
		}
	}
	return proofProblem("incorrectResponse", v.name, "there is a TXT record, but with another value")
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// acmeIdentifier is RFC 8737's certificate extension.
var acmeIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// alpnProtocol is what a tls-alpn-01 handshake offers.
const alpnProtocol = "acme-tls/1"

// proveALPN implements RFC 8737 section 3, and RFC 8738 section 6 for addresses.
func (s *Server) proveALPN(ctx context.Context, v validation) *Problem {
	serverName := v.name.Value
	addr, isIP := identifierIP(v.name.Value)
	if isIP {
		serverName = reverseName(addr.AsSlice())
	}
	der, protocol, err := s.prober.ALPN(ctx, v.name.Value, serverName, alpnProtocol)
	if err != nil {
		return proofProblem("tls", v.name, err.Error())
	}
	if protocol != alpnProtocol {
		return proofProblem("tls", v.name, "the server did not take up the protocol "+alpnProtocol)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return proofProblem("incorrectResponse", v.name, "the server's certificate can't be read")
	}
	named := len(leaf.DNSNames) == 1 && len(leaf.IPAddresses) == 0 && strings.EqualFold(leaf.DNSNames[0], v.name.Value)
	if isIP {
		named = len(leaf.IPAddresses) == 1 && len(leaf.DNSNames) == 0 && leaf.IPAddresses[0].Equal(addr.AsSlice())
	}
	if !named || len(leaf.EmailAddresses)+len(leaf.URIs) > 0 {
		return proofProblem("incorrectResponse", v.name, "the server's certificate is not for this name alone")
	}
	sum := sha256.Sum256([]byte(v.auth))
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		return serverInternal()
	}
	for _, ext := range leaf.Extensions {
		if ext.Id.Equal(acmeIdentifier) && ext.Critical && bytes.Equal(ext.Value, want) {
			return nil
		}
	}
	return proofProblem("incorrectResponse", v.name, "the server's certificate does not carry the key authorization")
}

// reverseName is an address in the form in which DNS looks up its name.
func reverseName(ip []byte) string {
	var b strings.Builder
	if len(ip) == 4 {
		fmt.Fprintf(&b, "%d.%d.%d.%d.in-addr.arpa", ip[3], ip[2], ip[1], ip[0])
		return b.String()
	}
	for i := len(ip) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "%x.%x.", ip[i]&15, ip[i]>>4)
	}
	return b.String() + "ip6.arpa"
}
