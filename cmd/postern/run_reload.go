package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/state"
)

// reloadPath is where a server takes the wish to load its configuration again,
// on the socket in its state directory.
const reloadPath = "/reload"

// reloadCall is the body of that wish, and reloadAnswer that of its answer.
type (
	reloadCall struct {
		Config string `json:"config,omitempty"` // the file that is meant, absolute; "" is the server's own
	}
	reloadAnswer struct {
		Config string       `json:"config"` // the file that is served
		Code   postern.Code `json:"code,omitempty"`
		Error  string       `json:"error,omitempty"` // why the old configuration stays
		Hint   string       `json:"hint,omitempty"`
	}
)

// reload makes the running server load its configuration again, and tells how
// that went.
func (a *app) reload(ctx context.Context, o *runOptions) error {
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	pid, err := state.ServedBy(dir)
	if err != nil {
		return err
	}
	var call reloadCall
	if o.config != "" {
		if call.Config, err = filepath.Abs(o.config); err != nil {
			return err
		}
	}
	got, err := askReload(ctx, filepath.Join(dir, agentSocket), call)
	if err != nil {
		return postern.Errorf(postern.Unavailable, "process %d does not say whether it has loaded the configuration: %w", pid, err).WithHint("see its log")
	}
	if got.Error != "" {
		e := postern.Errorf(got.Code, "%s", got.Error)
		if got.Hint != "" {
			e = e.WithHint("%s", got.Hint)
		}
		return e
	}
	fmt.Fprintf(a.out, "process %d has loaded %s\n", pid, got.Config)
	return nil
}

// askReload asks the server behind a socket, and waits for its answer.
func askReload(ctx context.Context, socket string, call reloadCall) (answer reloadAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	body, err := json.Marshal(call)
	if err != nil {
		return answer, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://postern"+reloadPath, bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	transport := &http.Transport{DialContext: agent.DialSocket(socket)}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	return answer, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer)
}

// ServeHTTP answers a wish to load the configuration again once it has been
// tried.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := s.takeReload(w, r)
	answer := reloadAnswer{Config: s.file}
	if err != nil {
		answer.Code, answer.Error, answer.Hint = postern.CodeOf(err), err.Error(), postern.HintOf(err)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.log.WarnContext(r.Context(), "whoever wished a reload has gone", slog.Any(postern.LogError, err))
	}
}

func (s *server) takeReload(w http.ResponseWriter, r *http.Request) error {
	if !trustedPeer(r) {
		return postern.Errorf(postern.Denied, "only root and the server's own user make it load its configuration")
	}
	var call reloadCall
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&call); err != nil {
		return postern.Errorf(postern.Invalid, "%w", err)
	}
	if call.Config != "" && call.Config != s.file {
		return postern.Errorf(postern.Conflict, "the running server serves %s, not %s", s.file, call.Config).
			WithHint("leave out --config to load %s again; to serve another file, stop the server and start it with that", s.file)
	}
	done := make(chan error, 1)
	select {
	case s.reloads <- done:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	select {
	case err := <-done:
		return err
	case <-r.Context().Done():
		return r.Context().Err()
	}
}
