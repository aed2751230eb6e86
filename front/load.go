package front

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/postern-project/postern"
)

// Load starts serving a configuration, in place of the one that is served, if
// any: connections stay, and when the new one cannot be served the old one goes
// on. Unavailable if another process listens on a port that it asks for, Denied
// without the right to that port.
func Load(config []byte) error {
	if err := listenable(config); err != nil {
		return err
	}
	err := caddy.Load(config, true)
	if err == nil {
		current().own.forget() // the client CAs may be others now
		drained.admit(config)
		return nil
	}
	if e := listenError("an address of the configuration", err); e != nil {
		return postern.Errorf(postern.CodeOf(e), "%w: %w", e, err).WithHint("%s", postern.HintOf(e))
	}
	if _, ok := errors.AsType[*postern.Error](err); ok {
		return err
	}
	return postern.Errorf(postern.Invalid, "the configuration does not load: %w", err)
}

// Stop ends serving. On sockets that systemd passed, requests under way are answered
// first, within ten seconds, and connections that come meanwhile wait for the next server.
func Stop() error {
	drained.drain()
	return caddy.Stop()
}
