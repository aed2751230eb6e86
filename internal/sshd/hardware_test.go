package sshd_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/sshd/socket"
	"golang.org/x/crypto/ssh"
)

// TestHardwareKeys tries keys that are right and wrong in one way each at a real
// sshd with the mode hardware-key.
func TestHardwareKeys(t *testing.T) {
	posterntest.NeedRoot(t)
	s := setup.Setup{Mode: setup.HardwareKey, Module: posterntest.PAMModule(t), Socket: "@DIR@/pam.sock"}
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{{Name: "alice"}},
		Files:    servertest.SSHDFiles(t, s, ""),
	})
	h.Install(t)
	rig := servertest.NewSSH(t, "alice")
	defer rig.Serve(t, filepath.Join(h.Dir, "pam.sock"), socket.Config{}, 0o600)()
	ed25519, ecdsa := posterntest.NewSecurityKey(t, false), posterntest.NewSecurityKey(t, true)
	strange, careless := posterntest.NewSecurityKey(t, false), posterntest.NewSecurityKey(t, false)
	h.Authorize(t, "alice", "", ed25519.PublicKey())
	h.Authorize(t, "alice", "", ecdsa.PublicKey())
	h.Authorize(t, "alice", "no-touch-required", careless.PublicKey())
	with := func(k *posterntest.SecurityKey, change func(*posterntest.SecurityKey)) *posterntest.SecurityKey {
		changed := *k
		change(&changed)
		return &changed
	}
	type key = posterntest.SecurityKey
	for name, c := range map[string]struct {
		signer ssh.Signer
		opens  bool
	}{
		"Ed25519, touched, with its PIN": {ed25519, true},
		"P-256, touched, with its PIN":   {ecdsa, true},
		"its PIN, no touch":              {with(ed25519, func(k *key) { k.Touched = false }), false},
		"touched, no PIN":                {with(ed25519, func(k *key) { k.Verified = false }), false},
		"P-256, touched, no PIN":         {with(ecdsa, func(k *key) { k.Verified = false }), false},
		"neither": {with(ecdsa, func(k *key) {
			k.Touched, k.Verified = false, false
		}), false},
		"signed for another application": {with(ed25519, func(k *key) {
			k.Application = "https://id.example"
		}), false},
		"no key of hers":                      {strange, false},
		"its touch waived in authorized_keys": {with(careless, func(k *key) { k.Touched = false }), false},
		"that one, touched":                   {careless, true},
		"a key in a file":                     {h.Key, false},
	} {
		client, err := h.Connect("alice", nil, ssh.PublicKeys(c.signer))
		if (err == nil) != c.opens {
			t.Errorf("%s: %v\n%s", name, err, h.Log())
		}
		if client != nil {
			client.Close()
		}
	}
	if found := auditHost(t, h); len(found) > 0 {
		t.Errorf("the auditor finds %q", found)
	}
	if log := h.Log(); !strings.Contains(log, "Accepted publickey for alice") || !strings.Contains(log, "ED25519-SK") {
		t.Errorf("sshd's log does not name the key:\n%s", log)
	}
}

// hardwareWays are the ways of the two modes in which only FIDO2 keys are accepted.
func hardwareWays(t *testing.T, files func(setup.Setup) map[string]string) []way {
	key := posterntest.NewSecurityKey(t, false)
	half := func(touched, verified bool) ssh.Signer {
		k := *key
		k.Touched, k.Verified = touched, verified
		return &k
	}
	typed := func(code string) []string { return []string{code} }
	return []way{
		{
			name: "FIDO2 key", files: files(setup.Setup{Mode: setup.HardwareKey}), user: "alice", code: typed,
			keys: []ssh.PublicKey{key.PublicKey()},
			methods: func(h *posterntest.Host, _ ssh.KeyboardInteractiveChallenge, good bool) []ssh.AuthMethod {
				if good {
					return []ssh.AuthMethod{ssh.PublicKeys(half(true, true))}
				}
				return []ssh.AuthMethod{ssh.PublicKeys(h.Key, half(false, true), half(true, false))}
			},
		},
		{
			name: "FIDO2 key and code", files: files(setup.Setup{Mode: setup.HardwareKeyAndCode}), user: "alice",
			keys: []ssh.PublicKey{key.PublicKey()}, code: typed,
			methods: func(h *posterntest.Host, answer ssh.KeyboardInteractiveChallenge, _ bool) []ssh.AuthMethod {
				m := []ssh.AuthMethod{ssh.PublicKeys(half(true, true))}
				if answer != nil {
					m = append(m, ssh.KeyboardInteractive(answer))
				}
				return m
			},
		},
		{
			name:  "FIDO2 key, break-glass with a key in a file",
			files: files(setup.Setup{Mode: setup.HardwareKey, RescueUser: "alice", RescueFrom: "127.0.0.1"}),
			user:  "alice", code: typed, methods: keyAnd,
		},
		{
			name: "a key in a file beside FIDO2 keys", user: "alice", code: typed, wrong: true,
			keys:    []ssh.PublicKey{key.PublicKey()},
			methods: keyOnly,
			files: map[string]string{"/etc/ssh/sshd_config": gateConfig(everything +
				"PubkeyAuthOptions touch-required verify-required\nAuthenticationMethods publickey\n")},
			opens: func(state string) []string {
				if state == onlyNone {
					return nil
				}
				return slices.Clone(allChannels())
			},
			finds: []string{"key-beside-hardware"},
		},
	}
}
