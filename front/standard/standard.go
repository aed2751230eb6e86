// Package standard registers all of Caddy's standard modules, so that they can
// be used in a configuration beside the front door's. A Caddy build of one's own
// does without it.
package standard

import _ "github.com/caddyserver/caddy/v2/modules/standard" // all that Caddy comes with
