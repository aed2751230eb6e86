// Package front is the front door: Caddy modules that ask for client
// certificates, hold requests against [gate.Guard]s and tell the application
// behind who came in. It is the one room that imports Caddy.
//
// # In a Caddyfile
//
//	{
//		postern {
//			portal id.example.com
//		}
//	}
//	www.example.com {
//		root * /var/www/example
//		php_fastcgi unix//run/php/php-fpm.sock
//		require /wp-admin* /wp-login.php* {
//			person dan@example.com
//		}
//	}
//
// The directive:
//
//	require [PATH…] {
//		person NAME|E-MAIL…    # any of these
//		group  NAME…           # or anybody in any of these
//		rule   `CEL`           # and this must hold; may be repeated
//		anyone                 # no certificate is needed, only the rules
//		status N               # with anyone: answer with it instead of 403
//		trust  FILE…|postern   # client CAs that count, instead of Postern's own
//		crl    FILE…           # what they have taken back
//		depth  N               # most CAs above the client's certificate; default 3
//	}
//
// It stands at the top of a site, in no handle or route block. A path is a
// prefix that does not stop at a segment, or "~" and an expression; without one
// the whole site is guarded. See package gate for how paths are read and what a rule may say.
//
// A guard holds for what is reached in the end, wherever a path was rewritten:
// before a handler, in handle_errors and handle_response, in a proxy's own
// rewrite (so also for what forward_auth asks), for a directory's index page.
// X-Original-URL and X-Rewrite-URL, by which a client could lead an application
// elsewhere, are taken off.
//
// # What the application behind is told
//
// A request that passed a guard carries who it is from: to a proxied
// application the headers Client-Cert and Client-Cert-Chain (RFC 9440),
// Postern-Person, Postern-Email, Postern-Groups and Postern-Serial; to FastCGI
// the variables of Apache's mod_ssl, SSL_CLIENT_S_DN_Email and the rest. Any
// other request carries none of them: whatever came along under such a name was taken
// off, on every site.
//
// The placeholders {http.request.tls.client.*} are refused where a guard asks for
// certificates: on public paths they are what a client shows, which nobody has
// verified. {http.auth.user.id} is who passed a guard.
//
// # Server certificates
//
// Names that no public CA certifies (localhost, one label, .lan, .corp, .home,
// .internal, .home.arpa, .local, .test and the like, addresses) get their certificates from
// Postern's CA. So does every site that says so, a split-horizon name for instance:
//
//	intranet.example.com {
//		tls {
//			issuer postern    # tls internal means the same
//		}
//	}
//
// and, with the global option "cert_issuer postern", every site that names no
// other. Caddy's own CA is not made beside it; settings of that CA are refused.
//
// # What a guarded site does not offer
//
// HTTP/3: over QUIC, Chromium shows no client certificate, and whoever has one would be
// refused. A server that has a guarded site speaks HTTP/1.1 and HTTP/2 on all
// its sites.
//
// Upgrades to another protocol than WebSocket: in h2c a client could ask the
// application behind for anything, unseen by the guard.
//
// Exchanges without end: what lasts, as a WebSocket, a stream of events or a long
// upload, is cut as soon as whoever opened it would not pass the guard any more.
//
// # How it works
//
// The directive alone cannot do it: what it asks for concerns the TLS
// handshake, every handler that could see a rewritten path, and requests to
// other sites that carry forged identity headers. So [Prepare] rewrites the
// adapted configuration as a whole, and the config adapter "postern" is the
// Caddyfile's adapter followed by Prepare. A configuration with a require directive
// that was not prepared does not load.
//
// In a Caddy build of one's own, which has no store and so no people, guards name the
// CAs that they trust, and persons by the addresses in their certificates:
//
//	caddy run --adapter postern --config Caddyfile
package front
