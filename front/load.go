package front

import (
	"errors"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/postern-project/postern"
)

// Load starts serving a configuration, in place of the one that is served, if
// any: connections stay, and when the new one cannot be served the old one goes
// on.
func Load(config []byte) error {
	err := caddy.Load(config, true)
	switch {
	case err == nil:
		current().own.forget() // the client CAs may be others now
		return nil
	case errors.Is(err, syscall.EADDRINUSE), strings.Contains(err.Error(), "address already in use"):
		return postern.Errorf(postern.Unavailable, "another program listens there already: %w", err).
			WithHint("stop it (ss -ltnp shows which it is), or change the ports in the configuration")
	case errors.Is(err, syscall.EACCES):
		return postern.Errorf(postern.Denied, "%w", err).
			WithHint("if it is about a port below 1024: give the program CAP_NET_BIND_SERVICE, as the packaged service does")
	}
	if _, ok := errors.AsType[*postern.Error](err); ok {
		return err
	}
	return postern.Errorf(postern.Invalid, "the configuration does not load: %w", err)
}

// Stop ends serving: requests under way are given the configuration's grace
// period.
func Stop() error { return caddy.Stop() }
