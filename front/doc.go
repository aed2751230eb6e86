// Package front is Postern's HTTPS server: Caddy modules that ask for client
// certificates, decide about requests by [gate.Guard]s and pass the person's identity
// to the application. It is the only package that imports Caddy.
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
//		person  NAME|E-MAIL…   # any of these
//		group   NAME…          # or any person in one of these
//		address NETWORK…|private_ranges  # and from any of these
//		method  METHOD…        # and by any of these
//		rule    `CEL`          # and this must hold; may be repeated
//		anyone                 # no certificate is needed, only the rest
//		or { … }               # another way to pass by a certificate
//		or anyone { … }        # another way to pass, without one
//		header_up NAME `CEL`   # a header for the application; may be repeated
//		status N               # where no way asks for a certificate: the answer instead of 403
//		trust  FILE…|postern   # trusted client CAs, instead of Postern's own
//		crl    FILE…           # their revocation lists
//		depth  N               # most CAs above the client's certificate; default 3
//	}
//
// It stands at the top of a site, in no handle or route block. A path is a
// prefix that does not stop at a segment, or "~" and an expression; without one
// the whole site is guarded. See package gate for how paths are read and what a rule may say.
//
// # Other ways to pass
//
// Each or block is another way to pass, and any one is enough. It holds person,
// group, address, method and rule, which mean there what they mean outside it; an empty
// one is an error. From the local network freely, from elsewhere with a certificate:
//
//	require /wiki* {
//		or anyone {
//			address private_ranges
//		}
//	}
//
// Read freely, write as one of the editors:
//
//	require /wiki* {
//		group editors
//		or anyone {
//			method GET HEAD
//		}
//	}
//
// By path, header or time, and another person for one method:
//
//	require {
//		group staff
//		or anyone {
//			rule `request.path.startsWith("/status")`
//			rule `time.getHours("Europe/Berlin") >= 8 && time.getHours("Europe/Berlin") < 18`
//		}
//		or {
//			person dan
//			method POST
//		}
//	}
//
// A header is what the client says: a rule on one is as secret as its value. The
// address is the connection's, and that of a forwarding header only where Caddy's
// trusted_proxies names the connection's address. A method does not include another:
// say HEAD beside GET. A client may name another method in X-HTTP-Method-Override,
// X-HTTP-Method, X-Method-Override or _method in the query; the way must then open for
// both. A body is not read: who opens POST opens whatever the application takes a POST
// for, and a WebSocket begins with a GET.
//
// The handshake asks for a certificate, but not from an address from which each guard of
// the site that would ask lets all clients pass. A client without a certificate, or with
// one that is not valid, passes by a way that needs none. The certificate is tried
// first, so that the application gets the person's identity. A request that passes
// without a certificate has no identity. A long exchange is cut when no way of the kind
// by which it passed holds any more.
//
// A guard holds for what is reached in the end, wherever a path was rewritten:
// before a handler, in handle_errors and handle_response, in a proxy's own
// rewrite (so also for what forward_auth asks), for a directory's index page.
// X-Original-URL and X-Rewrite-URL, by which a client could give an application another
// path, are removed.
//
// # What the application gets
//
// A request that passed a guard by a certificate has the person's identity: for a proxied
// application the headers Client-Cert and Client-Cert-Chain (RFC 9440),
// Postern-Person, Postern-Email, Postern-Groups and Postern-Serial; for FastCGI
// the variables of Apache's mod_ssl, SSL_CLIENT_S_DN_Email and the rest. Any
// other request has none of them: headers of such names that a client sends are removed,
// on every site.
//
// Other headers are set by header_up, each from an expression of the language of
// rules over the verified certificate or the person:
//
//	require /account* {
//		header_up X-SSL-Subject `cert.subject.dn`
//	}
//
// A request that passed by a certificate has them, and no client can send them.
// A value is written as mod_ssl writes it, see [gate.Value.Text]; one that cannot be
// evaluated is not sent. Names of headers that clients send, as Host or Cookie,
// are refused.
//
// The placeholders {http.request.tls.client.*} are refused where a guard asks for
// certificates: on public paths they are what a client shows, which is not verified.
// {http.auth.user.id} is the person who passed a guard.
//
// # Server certificates
//
// Names for which no public CA issues certificates (localhost, one label, .lan, .corp, .home,
// .internal, .home.arpa, .local, .test and the like, addresses) get their certificates from
// Postern's CA. So does every site that says so, a split-horizon name for instance:
//
//	intranet.example.com {
//		tls {
//			issuer postern    # tls internal means the same
//		}
//	}
//
// and, with "tls { issuer postern }" in its block, the portal, and, with the global option "cert_issuer postern",
// every site that names no
// other. Caddy's own CA is not made beside it; settings of that CA are refused.
//
// What a public CA refuses is logged in one line with what to do about it. A site
// whose tls directive names two issuers gets its certificate from the first that
// issues one:
//
//	tls {
//		issuer acme
//		issuer postern
//	}
//
// # What a guarded site does not offer
//
// HTTP/3: over QUIC, Chromium shows no client certificate, and people who have one would
// be refused. A server that has a guarded site speaks HTTP/1.1 and HTTP/2 on all
// its sites.
//
// Upgrades to another protocol than WebSocket: in h2c a client could ask the
// application behind for anything, unseen by the guard.
//
// Exchanges without end: a WebSocket, a stream of events or a long upload is cut as soon
// as its client would not pass the guard any more.
//
// # How it works
//
// The directive alone cannot do this, since it concerns the TLS
// handshake, every handler that could see a rewritten path, and requests to
// other sites that carry forged identity headers. So [Prepare] rewrites the
// adapted configuration as a whole, and the config adapter "postern" is the
// Caddyfile's adapter followed by Prepare. A configuration with a require directive
// that was not prepared does not load.
//
// # In a program of one's own
//
// Give the modules their [Runtime] with [Use], turn the Caddyfile into a configuration
// with [Adapt], and start it with [Load]. Do not hand a configuration to Caddy that
// Adapt or Prepare has not seen: it does not load. What a Runtime's functions must
// guarantee is said there; they are called from many goroutines, and an error is a
// refusal.
//
// In a Caddy build of one's own, which has no store and so no people, guards name the
// CAs that they trust, and persons by the addresses in their certificates:
//
//	caddy run --adapter postern --config Caddyfile
//
// Such a build sets GODEBUG x509negativeserial=1, in its go.mod or its main package, so
// that a client certificate with a negative serial number does not break handshakes.
package front
