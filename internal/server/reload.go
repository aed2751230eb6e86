package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/state"
)

// reloadPath is the path for requests to load the configuration again, on the socket in
// the state directory.
const reloadPath = "/reload"

// reloadCall is the body of such a request, and reloadAnswer that of its answer.
type (
	reloadCall struct {
		Config string `json:"config,omitempty"` // the file to load, absolute; "" is the one that is served
	}
	reloadAnswer struct {
		Config string       `json:"config"` // the file that is served
		Code   postern.Code `json:"code,omitempty"`
		Error  string       `json:"error,omitempty"` // why the old configuration stays in effect
		Hint   string       `json:"hint,omitempty"`
	}
)

// Reload makes the server that runs on a state directory load its configuration
// again. config is the file that it serves, or "". It returns the server's process and
// the file. If it fails, the old configuration stays in effect; NotFound means that no
// server runs.
func Reload(ctx context.Context, dir, config string) (pid int, file string, err error) {
	if pid, err = state.ServedBy(dir); err != nil {
		return 0, "", err
	}
	var call reloadCall
	if config != "" {
		if call.Config, err = filepath.Abs(config); err != nil {
			return pid, "", err
		}
	}
	got, err := askReload(ctx, filepath.Join(dir, relay.Socket), call)
	if err != nil {
		return pid, "", postern.Errorf(postern.Unavailable,
			"process %d does not say whether it has loaded the configuration: %w", pid, err).WithHint("see its log")
	}
	if got.Error != "" {
		e := postern.Errorf(got.Code, "%s", got.Error)
		if got.Hint != "" {
			e = e.WithHint("%s", got.Hint)
		}
		return pid, "", e
	}
	return pid, got.Config, nil
}

// askReload sends the request to the server on a socket, and waits for its answer.
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
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	return answer, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer)
}

// ServeHTTP loads the configuration again, and answers whether that succeeded.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := s.takeReload(w, r)
	answer := reloadAnswer{Config: s.file}
	if err != nil {
		answer.Code, answer.Error, answer.Hint = postern.CodeOf(err), err.Error(), postern.HintOf(err)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.log.WarnContext(r.Context(), "the client that requested a reload has disconnected",
			slog.Any(postern.LogError, err))
	}
}

func (s *server) takeReload(w http.ResponseWriter, r *http.Request) error {
	if !trustedPeer(r) {
		return postern.Errorf(postern.Denied, "only root and the server's own user may request a reload")
	}
	var call reloadCall
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&call); err != nil {
		return postern.Errorf(postern.Invalid, "%w", err)
	}
	if call.Config != "" && call.Config != s.file {
		return postern.Errorf(postern.Conflict, "the running server serves %s, not %s", s.file, call.Config).
			WithHint("name no file to load %s again; to serve another file, stop the server and start it with that",
				s.file)
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
