package acme

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/net/idna"
)

type orderAnswer struct {
	Status         string       `json:"status"`
	Expires        time.Time    `json:"expires"`
	Identifiers    []Identifier `json:"identifiers"`
	Authorizations []string     `json:"authorizations"`
	Finalize       string       `json:"finalize"`
	Certificate    string       `json:"certificate,omitempty"`
	Error          *Problem     `json:"error,omitempty"`
	Replaces       string       `json:"replaces,omitempty"`
	Terms
}

func writeOrder(w http.ResponseWriter, m *message, o *Order, status int) error {
	url := m.base + "/order/" + o.ID
	a := orderAnswer{
		Status: o.Status, Expires: o.Expires.Truncate(time.Second), Identifiers: o.Identifiers,
		Finalize: url + "/finalize",
		Error:    o.Error, Replaces: o.Replaces, Terms: o.Terms,
	}
	for i := range o.Authz {
		a.Authorizations = append(a.Authorizations, fmt.Sprintf("%s/authz/%s/%d", m.base, o.ID, i))
	}
	if o.Serial != "" {
		a.Certificate = m.base + "/certificate/" + o.Serial
	}
	w.Header().Set("Location", url)
	return writeJSON(w, status, a)
}

func (s *Server) newOrder(w http.ResponseWriter, r *http.Request, m *message) error {
	var req struct {
		Identifiers []Identifier `json:"identifiers"`
		Replaces    string       `json:"replaces"`
		Terms
	}
	if err := m.decode(&req); err != nil {
		return err
	}
	ids, err := s.cleanIdentifiers(req.Identifiers)
	if err != nil {
		return err
	}
	if err := s.permitAll(m, ids); err != nil {
		return err
	}
	terms, err := s.accept(req.Terms)
	if err != nil {
		return err
	}
	if req.Replaces != "" {
		if err := s.replaceable(r, m, req.Replaces, ids); err != nil {
			return err
		}
	}
	now := s.cfg.Now().UTC()
	o := Order{
		ID: newID(), Account: m.account.ID, Status: pending, Identifiers: ids, Created: now,
		Expires: now.Add(s.cfg.OrderLife), Replaces: req.Replaces, Terms: terms,
	}
	for _, id := range ids {
		o.Authz = append(o.Authz, newAuthorization(id))
	}
	if err := s.store.AddOrder(r.Context(), o, s.cfg.MaxPending); err != nil {
		return alreadyReplaced(err)
	}
	return writeOrder(w, m, &o, http.StatusCreated)
}

// cleanIdentifiers brings the names into the form in which they are certified,
// and refuses what never could be.
func (s *Server) cleanIdentifiers(in []Identifier) ([]Identifier, error) {
	if len(in) == 0 {
		return nil, malformed("an order names what it is for")
	}
	if len(in) > s.cfg.MaxNames {
		return nil, malformed("an order has at most %d names", s.cfg.MaxNames)
	}
	var out []Identifier
	for _, id := range in {
		clean, err := cleanIdentifier(id)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, clean) {
			out = append(out, clean)
		}
	}
	return out, nil
}

// permitAll refuses names that the authority does not certify, or not for this
// account.
func (s *Server) permitAll(m *message, ids []Identifier) error {
	for _, id := range ids {
		if err := s.ca.Permit([]string{id.Value}); err != nil {
			return rejectedIdentifier(id, err.Error())
		}
		if err := s.mayAct(m, m.account, id.Value); err != nil {
			return rejectedIdentifier(id, err.Error())
		}
	}
	return nil
}

// accept brings an order's terms into the form in which they are kept.
func (s *Server) accept(t Terms) (Terms, error) {
	t.NotBefore, t.NotAfter = t.NotBefore.UTC().Truncate(time.Second), t.NotAfter.UTC().Truncate(time.Second)
	t, err := s.ca.Accept(t)
	switch c := postern.CodeOf(err); {
	case err == nil:
	case c == postern.NotFound:
		return t, invalidProfile(err.Error())
	case c == postern.Invalid:
		return t, malformed("%s", err)
	}
	return t, err
}

func cleanIdentifier(id Identifier) (Identifier, error) {
	switch id.Type {
	case "ip":
		a, ok := identifierIP(id.Value)
		if !ok || a.Unmap().String() != id.Value { // RFC 8738 section 3: an IPv4 address has the form of one
			return id, malformed("%q is no IP address in its usual form", id.Value)
		}
		return id, nil
	case "dns":
		name := strings.ToLower(strings.TrimSuffix(id.Value, "."))
		base := strings.TrimPrefix(name, "*.")
		ascii, err := idna.Lookup.ToASCII(base)
		if err != nil || ascii != base || !postern.ValidHostName(base) {
			return id, malformed("%q is no host name in ASCII form", id.Value)
		}
		return Identifier{"dns", name}, nil
	}
	return id, unsupportedIdentifier(id)
}

func newAuthorization(id Identifier) *Authorization {
	a := &Authorization{Status: pending, Identifier: id}
	kinds := []string{http01, dns01, tlsALPN01}
	switch {
	case strings.HasPrefix(id.Value, "*."):
		a.Wildcard, a.Identifier.Value = true, id.Value[2:]
		kinds = []string{dns01}
	case id.Type == "ip":
		kinds = []string{http01, tlsALPN01}
	}
	for _, k := range kinds {
		a.Challenges = append(a.Challenges, &Challenge{Type: k, Status: pending, Token: newToken()})
	}
	return a
}

// orderOf returns the order in the request's path if it is the account's own. The
// answer for another account's order is the same as for one that does not exist.
func (s *Server) orderOf(m *message) (*Order, error) {
	if m.order == nil {
		return nil, notFound("order")
	}
	m.order.settle(s.cfg.Now())
	return m.order, nil
}

func (s *Server) order(w http.ResponseWriter, r *http.Request, m *message) error {
	o, err := s.orderOf(m)
	if err != nil {
		return err
	}
	return writeOrder(w, m, o, http.StatusOK)
}

// finalize issues the certificate. It becomes durable together with the order's
// last state: of several requests for one order, on any server, one issues, and
// the others are answered as if they had come later.
func (s *Server) finalize(w http.ResponseWriter, r *http.Request, m *message) error {
	o, err := s.orderOf(m)
	if err != nil {
		return err
	}
	if o.Status != ready {
		return writeFinished(w, m, o)
	}
	if _, err := s.accept(o.Terms); err != nil { // the profile is gone, or the time has passed
		return err
	}
	der, err := s.csrFor(m, o)
	if err != nil {
		return err
	}
	by := postern.Actor{Person: m.account.Person, Address: m.address}
	done, err := s.ca.Issue(r.Context(), by, der, o.names(), o.Terms,
		Finish{Order: o.ID, Change: func(o *Order, a Account, serial string) (postern.Event, error) {
			if err := s.mayAct(m, &a, o.names()...); err != nil { // not suspended, nor recovered, since
				return postern.Event{}, err
			}
			if o.settle(s.cfg.Now()); o.Status != ready {
				return postern.Event{}, errNotReadyNow
			}
			o.Status, o.Serial = valid, serial
			return postern.Event{
				Kind: postern.EventACMEOrder, Outcome: postern.OK, Person: m.account.Person, Address: m.address,
				Object:  strings.Join(o.names(), " "),
				Links:   []postern.Link{{Kind: string(postern.X509Certificate), ID: serial}},
				Details: map[string]string{"account": m.account.ID},
			}, nil
		}})
	switch c := postern.CodeOf(err); {
	case err == nil:
		return writeOrder(w, m, &done, http.StatusOK)
	case errors.Is(err, errNotReadyNow):
		return writeFinished(w, m, &done)
	case c == postern.Denied, c == postern.Invalid:
		return badCSR("%s", err)
	case o.Replaces != "":
		return alreadyReplaced(err)
	}
	return err
}

// writeFinished answers a request to finalize an order that is not ready.
func writeFinished(w http.ResponseWriter, m *message, o *Order) error {
	if o.Status != valid {
		return orderNotReady(o.Status)
	}
	return writeOrder(w, m, o, http.StatusOK)
}

// errNotReadyNow says that an order has left the state ready since it was read.
var errNotReadyNow = errors.New("the order is not ready any more")

// alreadyReplaced says a Conflict in ACME's words (RFC 9773 section 7.4), and
// leaves other errors as they are.
func alreadyReplaced(err error) error {
	if postern.CodeOf(err) == postern.Conflict {
		return problem("alreadyReplaced", http.StatusConflict, "%s", err)
	}
	return err
}

// csrFor reads the request to finalize an order and checks that it asks for
// just the order's names.
func (s *Server) csrFor(m *message, o *Order) ([]byte, error) {
	var req struct {
		CSR string `json:"csr"`
	}
	if err := m.decode(&req); err != nil {
		return nil, err
	}
	der, err := base64.RawURLEncoding.DecodeString(req.CSR)
	if err != nil {
		return nil, badCSR("the certificate request is not base64url")
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, badCSR("the certificate request can't be read")
	}
	if sameKey(csr.PublicKey, m.key.Key) {
		return nil, badCSR("the account's own key can't be certified")
	}
	asked := map[string]bool{}
	for _, n := range csr.DNSNames {
		asked[strings.ToLower(strings.TrimSuffix(n, "."))] = true
	}
	for _, ip := range csr.IPAddresses {
		asked[ip.String()] = true
	}
	if cn := strings.ToLower(csr.Subject.CommonName); cn != "" {
		if !slices.Contains(o.names(), cn) {
			return nil, badCSR("the common name %q is not one of the order's names", cn)
		}
		asked[cn] = true
	}
	for _, n := range o.names() {
		if !asked[n] {
			return nil, badCSR("the certificate request lacks the order's name %s", n)
		}
		delete(asked, n)
	}
	for n := range asked {
		return nil, badCSR("the certificate request asks for %s, which the order does not have", n)
	}
	if len(csr.EmailAddresses)+len(csr.URIs) > 0 {
		return nil, badCSR("the certificate request asks for more than server names")
	}
	return der, nil
}

func (s *Server) certificate(w http.ResponseWriter, r *http.Request, m *message) error {
	if m.order == nil {
		return notFound("certificate")
	}
	c, err := s.ca.Certificate(r.Context(), m.order.Serial)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	_, err = w.Write(c.Chain)
	return ignoreGone(err)
}

// ignoreGone drops the error of a write to a client that has disconnected.
func ignoreGone(error) error { return nil }

type authzAnswer struct {
	Status     string            `json:"status"`
	Expires    time.Time         `json:"expires"`
	Identifier Identifier        `json:"identifier"`
	Wildcard   bool              `json:"wildcard,omitempty"`
	Challenges []challengeAnswer `json:"challenges"`
}

type challengeAnswer struct {
	Type      string     `json:"type"`
	URL       string     `json:"url"`
	Token     string     `json:"token"`
	Status    string     `json:"status"`
	Validated *time.Time `json:"validated,omitempty"`
	Error     *Problem   `json:"error,omitempty"`
}

func authzStatus(o *Order, a *Authorization, now time.Time) string {
	if a.Status == pending && !now.Before(o.Expires) {
		return invalid
	}
	if a.Status == valid && !now.Before(o.Expires) && o.Status != valid {
		return expired
	}
	return a.Status
}

func answerChallenge(m *message, o *Order, i, j int) challengeAnswer {
	c := o.Authz[i].Challenges[j]
	a := challengeAnswer{
		Type: c.Type, URL: fmt.Sprintf("%s/challenge/%s/%d/%d", m.base, o.ID, i, j), Token: c.Token,
		Status: c.Status, Error: c.Error,
	}
	if !c.Validated.IsZero() {
		t := c.Validated.Truncate(time.Second)
		a.Validated = &t
	}
	return a
}

func number(r *http.Request, name string) int {
	n, err := strconv.Atoi(r.PathValue(name))
	if err != nil {
		return -1
	}
	return n
}

func (s *Server) authorization(w http.ResponseWriter, r *http.Request, m *message) error {
	o, err := s.orderOf(m)
	if err != nil {
		return err
	}
	i := number(r, "authz")
	a, _ := o.find(i, -1)
	if a == nil {
		return notFound("authorization")
	}
	if !m.postAsGet() {
		var req struct {
			Status string `json:"status"`
		}
		if err := m.decode(&req); err != nil {
			return err
		}
		if req.Status != deactivated {
			return malformed("an authorization's status can be set to deactivated")
		}
		changed, err := s.store.ChangeOrder(r.Context(), o.ID, func(o *Order) error {
			if a, _ := o.find(i, -1); a.Status == pending || a.Status == valid {
				a.Status = deactivated
			}
			o.settle(s.cfg.Now())
			return nil
		})
		if err != nil {
			return err
		}
		o, a = &changed, changed.Authz[i]
	}
	answer := authzAnswer{
		Status: authzStatus(o, a, s.cfg.Now()), Expires: o.Expires.Truncate(time.Second), Identifier: a.Identifier,
		Wildcard: a.Wildcard,
	}
	for j := range a.Challenges {
		answer.Challenges = append(answer.Challenges, answerChallenge(m, o, i, j))
	}
	return writeJSON(w, http.StatusOK, answer)
}
