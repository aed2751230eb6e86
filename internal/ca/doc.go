// Package ca is the certificate authority: a root, one intermediate for servers
// and one for clients, and the two keys that sign SSH certificates.
//
// Nothing leaves an [Authority] before the [Store] holds it durably, beside the
// line of the timeline that tells of it. The package knows nothing of SQL, of
// the command line or of HTTP servers; it exports plain [net/http] handlers for
// revocation ([Authority.Handler]) and for signing ([API]).
package ca
