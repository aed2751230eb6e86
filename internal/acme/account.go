package acme

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/postern-project/postern"
)

// newID returns an identifier that cannot be guessed: 26 characters.
func newID() string { return strings.ToLower(rand.Text()) }

// newToken returns a challenge's token: 256 random bits in base64url, which is
// what clients take it for: certbot decodes it and encodes it again.
func newToken() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

type accountRequest struct {
	Contact  []string        `json:"contact"`
	Terms    bool            `json:"termsOfServiceAgreed"`
	Existing bool            `json:"onlyReturnExisting"`
	Binding  json.RawMessage `json:"externalAccountBinding"`
	Status   string          `json:"status"`
}

type accountAnswer struct {
	Status  string          `json:"status"`
	Contact []string        `json:"contact,omitempty"`
	Terms   bool            `json:"termsOfServiceAgreed,omitempty"`
	Binding json.RawMessage `json:"externalAccountBinding,omitempty"`
	Orders  string          `json:"orders"`
	Key     json.RawMessage `json:"key"`
}

func (s *Server) writeAccount(w http.ResponseWriter, m *message, a *Account, status int) error {
	url := m.base + "/account/" + a.ID
	w.Header().Set("Location", url)
	return writeJSON(w, status, accountAnswer{
		a.Status, a.Contact, s.cfg.Terms != "", a.Binding, url + "/orders",
		a.Key,
	})
}

func checkContacts(list []string) error {
	if len(list) > 10 {
		return malformed("an account has at most 10 contacts")
	}
	for _, c := range list {
		mail, ok := strings.CutPrefix(c, "mailto:")
		if !ok {
			return unsupportedContact(c)
		}
		if _, err := postern.CleanEmail(mail); err != nil || strings.ContainsAny(mail, "?,") {
			return invalidContact(c)
		}
	}
	return nil
}

func (s *Server) newAccount(w http.ResponseWriter, r *http.Request, m *message) error {
	var req accountRequest
	if err := m.decode(&req); err != nil {
		return err
	}
	print, err := thumbprint(m.key)
	if err != nil {
		return err
	}
	old, err := s.store.AccountByKey(r.Context(), print)
	switch {
	case err == nil:
		if err := s.mayAct(m, &old); err != nil {
			return err
		}
		return s.writeAccount(w, m, &old, http.StatusOK)
	case postern.CodeOf(err) != postern.NotFound:
		return err
	case req.Existing:
		return accountDoesNotExist()
	case s.cfg.Terms != "" && !req.Terms:
		return problem("userActionRequired", http.StatusForbidden, "the terms of service at %s have to be agreed to",
			s.cfg.Terms)
	}
	if err := checkContacts(req.Contact); err != nil {
		return err
	}
	if err := s.permitKey(r, m.key); err != nil {
		return err
	}
	a := Account{ID: newID(), Thumbprint: print, Contact: req.Contact, Status: valid, Created: s.cfg.Now().UTC()}
	if a.Key, err = m.key.MarshalJSON(); err != nil {
		return badPublicKey("it can't be written down")
	}
	external := ""
	switch {
	case len(req.Binding) > 0:
		if external, err = s.bindingOf(r.Context(), m, req.Binding); err != nil {
			return err
		}
		a.Binding = req.Binding
	case !s.cfg.Anonymous(m.from, nil):
		return externalAccountRequired()
	}
	kept, added, err := s.store.AddAccount(r.Context(), a, external, postern.Event{
		Kind: postern.EventACMEAccount, Outcome: postern.OK, Address: m.address, Object: a.ID,
		Details: map[string]string{"did": postern.ACMECreated},
	})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if added {
		status = http.StatusCreated
	}
	return s.writeAccount(w, m, &kept, status)
}

// permitKey refuses keys for accounts that are not certified either.
func (s *Server) permitKey(r *http.Request, key *jose.JSONWebKey) error {
	err := s.ca.PermitKey(r.Context(), key.Key)
	if c := postern.CodeOf(err); err != nil && (c == postern.Denied || c == postern.Invalid) {
		return badPublicKey(err.Error())
	}
	return err
}

// own returns the account in the request's path if it is the one that signed.
func own(r *http.Request, m *message) error {
	if r.PathValue("account") != m.account.ID {
		return unauthorized("that is another account")
	}
	return nil
}

func (s *Server) updateAccount(w http.ResponseWriter, r *http.Request, m *message) error {
	if err := own(r, m); err != nil {
		return err
	}
	if m.postAsGet() {
		return s.writeAccount(w, m, m.account, http.StatusOK)
	}
	var req struct {
		Contact *[]string `json:"contact"`
		Status  string    `json:"status"`
	}
	if err := m.decode(&req); err != nil {
		return err
	}
	if req.Contact != nil {
		if err := checkContacts(*req.Contact); err != nil {
			return err
		}
	}
	if req.Status != "" && req.Status != deactivated && req.Status != valid {
		return malformed("an account's status can be set to deactivated")
	}
	if req.Contact == nil && req.Status != deactivated {
		return s.writeAccount(w, m, m.account, http.StatusOK)
	}
	did := postern.ACMEChanged
	if req.Status == deactivated {
		did = postern.ACMEDeactivated
	}
	a, err := s.store.UpdateAccount(r.Context(), m.account.ID, func(a *Account) error {
		if err := s.mayAct(m, a); err != nil {
			return err
		}
		if req.Contact != nil {
			a.Contact = *req.Contact
		}
		if req.Status == deactivated {
			a.Status = deactivated
		}
		return nil
	}, s.accountEvent(m, did))
	if err != nil {
		return err
	}
	return s.writeAccount(w, m, &a, http.StatusOK)
}

func (s *Server) accountEvent(m *message, did string) postern.Event {
	return postern.Event{
		Kind: postern.EventACMEAccount, Outcome: postern.OK, Person: m.account.Person, Address: m.address,
		Object: m.account.ID, Details: map[string]string{"did": did},
	}
}

// keyChange replaces an account's key: the request, signed by the old one,
// carries one signed by the new (RFC 8555 section 7.3.5).
func (s *Server) keyChange(w http.ResponseWriter, r *http.Request, m *message) error {
	env, head, err := parseEnvelope(m.payload)
	if err != nil {
		return err
	}
	if head.Key == nil || head.KeyID != "" || head.URL != m.url || head.Nonce != "" {
		return malformed("the inner JWS names the new key by jwk, has the same url, and no nonce")
	}
	if err := checkKey(head.Key); err != nil {
		return err
	}
	payload, err := env.open(head.Key, head.Alg)
	if err != nil {
		return err
	}
	if err := s.permitKey(r, head.Key); err != nil {
		return err
	}
	var req struct {
		Account string          `json:"account"`
		OldKey  jose.JSONWebKey `json:"oldKey"`
	}
	if err := json.Unmarshal(payload, &req); err != nil {
		return malformed("the inner payload can't be read: %v", err)
	}
	if req.Account != m.base+"/account/"+m.account.ID || !sameKey(req.OldKey.Key, m.key.Key) {
		return malformed("the inner payload names another account or old key")
	}
	print, err := thumbprint(head.Key)
	if err != nil {
		return err
	}
	key, err := head.Key.MarshalJSON()
	if err != nil {
		return badPublicKey("it can't be written down")
	}
	a, err := s.store.UpdateAccount(r.Context(), m.account.ID, func(a *Account) error {
		if err := s.mayAct(m, a); err != nil {
			return err
		}
		if a.Thumbprint != m.account.Thumbprint {
			return unauthorized("the key was changed meanwhile")
		}
		a.Thumbprint, a.Key = print, key
		return nil
	}, s.accountEvent(m, postern.ACMERolledOver))
	if postern.CodeOf(err) == postern.Conflict && err != nil {
		if other, err := s.store.AccountByKey(r.Context(), print); err == nil {
			w.Header().Set("Location", m.base+"/account/"+other.ID)
		}
		return problem("malformed", http.StatusConflict, "another account has that key")
	}
	if err != nil {
		return err
	}
	return s.writeAccount(w, m, &a, http.StatusOK)
}

// orders lists an account's orders, newest first, a page at a time.
func (s *Server) orders(w http.ResponseWriter, r *http.Request, m *message) error {
	if err := own(r, m); err != nil {
		return err
	}
	const page = 100
	ids, err := s.store.Orders(r.Context(), m.account.ID, r.URL.Query().Get("after"), page+1)
	if err != nil {
		return err
	}
	if len(ids) > page {
		ids = ids[:page]
		w.Header().Add("Link", "<"+m.base+"/account/"+m.account.ID+"/orders?after="+ids[page-1]+`>;rel="next"`)
	}
	urls := []string{}
	for _, id := range ids {
		urls = append(urls, m.base+"/order/"+id)
	}
	return writeJSON(w, http.StatusOK, map[string]any{"orders": urls})
}
