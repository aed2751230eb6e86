package main

import (
	"context"
	"encoding/pem"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/portal"
)

// Layouts lists the kinds of server whose files the portal lays out.
func (p portalAuthority) Layouts() []string { return []string{"pem"} }

// Layout lays a certificate out for one kind of server.
func (p portalAuthority) Layout(_ context.Context, kind string, c portal.Certificate, key string) (portal.Layout, error) {
	if kind != "pem" {
		return portal.Layout{}, postern.Errorf(postern.Invalid, "no layout %q", kind)
	}
	var chain strings.Builder
	for _, der := range c.Chain {
		_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	l := portal.Layout{Files: []portal.File{{Path: "certificate.pem", Mode: 0o644, Body: chain.String()}}}
	if key != "" {
		l.Files = append(l.Files, portal.File{Path: "private.key", Mode: 0o600, Body: key})
	}
	return l, nil
}
