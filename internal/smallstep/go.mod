// This module stands in for github.com/smallstep/certificates in Postern's
// binary: it has what Caddy's packages need of it to compile.
module github.com/smallstep/certificates

go 1.26.0
