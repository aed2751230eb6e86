// Package ca is the certificate authority: a root, one intermediate for servers
// and one for clients, and the two keys that sign SSH certificates.
//
// An [Authority] returns no certificate before the [Store] has durably recorded it
// together with its entry of the timeline, except to callers that record it
// themselves (see [Issued]). The package knows nothing of SQL, of the command line
// or of HTTP servers; it exports plain [net/http] handlers for revocation
// ([Authority.Handler]) and for signing ([API]).
package ca
