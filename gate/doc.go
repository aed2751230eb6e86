// Package gate decides which requests pass a guard. It verifies the certificate that a
// client showed against the trusted client CAs, reads its fields, looks up its holder,
// and evaluates the guard's ways to pass, each with its persons, groups, addresses,
// methods and rules; any one way is enough. It also decides which paths a guard covers.
// It depends neither on Caddy nor on a database. What it cannot decide is refused.
//
// # Use
//
// Make a [Trust] of the CAs and a [Guard] of a [Config]. For each connection verify the
// certificates that it showed with [Trust.Verify], once. For each request read its
// path with [ReadPath], take the guards whose [Paths.Cover] one of the readings, find
// the holder with [Hold], and ask each guard with [Guard.Decide]. Only OK passes.
//
// Do not keep a decision: what was decided is right for this request, this content of
// the [Registry] and, if [Guard.Moving], this moment. Do not use a guard around an HTTP
// handler that rewrites paths or serves other files than were asked for: package front
// asks again there.
//
// A Registry answers what is stored now, without a cache of its own, and may be asked
// from many goroutines. It says postern.NotFound only of what certainly is not there;
// any other error is a refusal.
//
// # Certificates
//
// A chain of certificates is verified by RFC 5280, name constraints included:
// every name below a constrained CA lies within them, be it an alternative name,
// the subject, an e-mail address in it, or a common name that looks like a
// host's, whether or not the constraints are critical. What OpenSSL refuses for
// that reason is refused here.
//
// # Rules
//
// A rule is a CEL expression (https://cel.dev) of type bool over these
// variables:
//
//	cert      the client's certificate
//	issuer    the certificate of the CA that issued it
//	chain     all certificates from the client's to the trusted CA, a list
//	person    who holds it: name, email, full_name, groups (list), known (bool)
//	request   method, path (decoded), query, uri, host, proto ("HTTP/1.1"),
//	          headers (map from lower-case name to the list of its values)
//	tls       version ("TLSv1.3"), cipher, server_name, resumed (bool)
//	address   the client's IP address, a string; a rule that reads it does not
//	          hold where there is none
//	time      now, a timestamp
//
// Where servers may read a path in several ways (/a/../b, /a;x, //a), a rule
// must hold for each of them. Case is kept: say (?i) in a pattern that refuses. In the same
// way it must hold for each method that the request names: its own, and that of
// X-HTTP-Method-Override, X-HTTP-Method, X-Method-Override, and _method in the query.
//
// A certificate has
//
//	subject, issuer    names: c st l o ou cn title initials gn sn description
//	                   uid email dc serial dn_qualifier street postal_code, each the list of
//	                   all values in the certificate's order; dn (RFC 4514);
//	                   oneline ("/C=DE/CN=Alice"), which a name with a slash in a
//	                   value does not have
//	san                email, dns, uri, ip: lists
//	serial             lower-case hex without leading zeros
//	version            1 to 3
//	not_before, not_after
//	pem                the certificate in PEM, on one line
//	fingerprint, spki  SHA-256 of the certificate and of its public key, hex
//	key_algorithm      "ECDSA", "RSA", "Ed25519"
//	signature_algorithm "ECDSA-SHA256", …
//	key_usage, ext_key_usage  lists of the RFC's names: "digitalSignature",
//	                   "clientAuth", or the OID
//
// and the member function extension(oid), the list of the text values of that
// extension. Texts have lowerAscii() and upperAscii().
//
// The same expressions, of another type than bool, are the values of headers for an
// application; see [CompileValue].
//
// # Lists compared with one value
//
// An attribute of a name may occur more than once, and which occurrence another
// program looks at differs. Here a comparison of such a list with one value
// (==, !=, in, startsWith, matches and the like) is an error, and so a refusal,
// unless the list holds exactly one value; say exists or all to mean any or
// all of them:
//
//	cert.subject.cn == "Alice"
//	cert.subject.ou.exists(u, u == "audit")
//
// # Addresses
//
// address.within("192.0.2.0/24") and address.within(["192.0.2.0/24",
// "2001:db8::/32"]) report whether the client's address is in a network.
package gate
