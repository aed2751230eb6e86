package acme

import (
	"encoding/json"
	"net/http"
	"net/netip"

	"github.com/postern-project/postern"
)

// prefix is where the server stands at its host.
const prefix = "/acme"

// Prefix is where [Server] stands at its host, without a slash at the end.
const Prefix = prefix

// ServeHTTP answers all under [Prefix].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Link", "<"+s.base(r)+`/directory>;rel="index"`)
	s.mux.ServeHTTP(w, r)
}

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET "+prefix+"/directory", s.directory)
	s.mux.HandleFunc("GET "+prefix+"/new-nonce", s.newNonce)
	s.mux.HandleFunc("GET "+prefix+"/renewal-info/{id}", s.renewalInfo)
	s.post("/new-account", byKey, s.newAccount)
	s.post("/account/{account}", byAccount, s.updateAccount)
	s.post("/account/{account}/orders", byAccount, s.orders)
	s.post("/key-change", byAccount, s.keyChange)
	s.post("/new-order", byAccount, s.newOrder)
	s.post("/order/{order}", byAccount, s.order)
	s.post("/order/{order}/finalize", byAccount, s.finalize)
	s.post("/authz/{order}/{authz}", byAccount, s.authorization)
	s.post("/challenge/{order}/{authz}/{challenge}", byAccount, s.challenge)
	s.post("/certificate/{serial}", byAccount, s.certificate)
	s.post("/revoke-cert", byAccount|byKey, s.revoke)
}

// handler answers one verified request with a body, or refuses with an error.
type handler func(w http.ResponseWriter, r *http.Request, m *message) error

// post registers an address that takes signed requests. Every answer, problems
// included, carries a fresh nonce.
func (s *Server) post(path string, by signer, h handler) {
	s.mux.HandleFunc("POST "+prefix+path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Replay-Nonce", s.nonces.make())
		m, err := s.verify(r, by)
		if err == nil {
			err = h(w, r, m)
		}
		if err != nil {
			s.refuse(w, r, err)
		}
	})
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		s.log.ErrorContext(r.Context(), "acme", postern.LogPath, r.URL.Path, postern.LogError, err)
	}
	writeProblem(w, p)
}

// base returns the server's address as the client sees it.
func (s *Server) base(r *http.Request) string {
	if s.cfg.URL != "" {
		return s.cfg.URL
	}
	scheme := "https://"
	if r.TLS == nil {
		scheme = "http://"
	}
	return scheme + r.Host + prefix
}

// peerAddress returns the address of the connection's peer.
func peerAddress(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr().Unmap().WithZone("")
}

// written is an address as events have it; "" for none.
func written(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client is gone
	return nil
}

func (s *Server) directory(w http.ResponseWriter, r *http.Request) {
	base := s.base(r)
	meta := map[string]any{"externalAccountRequired": !s.cfg.Anonymous(s.cfg.Address(r), nil)}
	if profiles := s.ca.Profiles(); len(profiles) > 0 {
		meta["profiles"] = profiles
	}
	if s.cfg.Terms != "" {
		meta["termsOfService"] = s.cfg.Terms
	}
	if s.cfg.Website != "" {
		meta["website"] = s.cfg.Website
	}
	writeJSON(w, http.StatusOK, map[string]any{ //nolint:errcheck // never fails
		"newNonce":    base + "/new-nonce",
		"newAccount":  base + "/new-account",
		"newOrder":    base + "/new-order",
		"revokeCert":  base + "/revoke-cert",
		"keyChange":   base + "/key-change",
		"renewalInfo": base + "/renewal-info",
		"meta":        meta,
	})
}

// newNonce answers HEAD with 200 and GET with 204 (RFC 8555 section 7.2).
func (s *Server) newNonce(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Replay-Nonce", s.nonces.make())
	if r.Method == http.MethodGet {
		w.WriteHeader(http.StatusNoContent)
	}
}
