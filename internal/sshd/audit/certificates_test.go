package audit

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"golang.org/x/crypto/ssh"
)

// TestWhatCertificatesOpen has an account that keys and certificates open: of those of the
// host's own CA it is known what they open, of others it is said that it is not.
func TestWhatCertificatesOpen(t *testing.T) {
	posterntest.NeedRoot(t)
	const (
		key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2XvtVXbOIfhW5sbqWsGbZFe4Ky7kxrDWEEGnFMqaOC ca\n"
		ca  = "TrustedUserCAKeys /etc/ssh/ca.pub\n"

		rsync, rsyncKey = "rsync of a directory (/usr/bin/rrsync)", `restrict,command="/usr/bin/rrsync /srv" ` + key
		borg            = "borg repositories (/usr/bin/borg)"

		unlessCertificate = "everything, unless the certificate, by a CA in /etc/ssh/ca.pub, names a command, " +
			"which cannot be seen here"
	)
	own, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	robots := Grant{Principals: []string{"robot"}, Command: "/usr/bin/borg serve --restrict-to-path /srv"}
	alices := Grant{Principals: []string{"alice"}}
	for name, c := range map[string]struct {
		config, keys string
		grants       []Grant // of the host's own CA; nil: there is none
		want         string
	}{
		"no certificates":             {"", rsyncKey, nil, rsync},
		"another CA's":                {ca, rsyncKey, nil, unlessCertificate},
		"another CA's and a key":      {ca, key, nil, "everything"},
		"for a command":               {ca, "", []Grant{robots}, borg},
		"for two commands":            {ca, rsyncKey, []Grant{robots}, borg + " and " + rsync},
		"for a command, beside a key": {ca, key, []Grant{robots}, "everything"},
		"of another account":          {ca, "", []Grant{robots, alices}, borg},
		"of any account":              {ca, "", []Grant{robots, {}}, "everything"},
		"of principals that are mapped": {
			ca + "AuthorizedPrincipalsFile /etc/ssh/principals\n", "", []Grant{robots, alices}, "everything",
		},
		"keys that a program prints": {
			"AuthorizedKeysCommand /usr/bin/keys\nAuthorizedKeysCommandUser nobody\n", "", nil,
			"everything, unless the key, printed by /usr/bin/keys, names a command, which cannot be seen here",
		},
	} {
		root := posterntest.SSHDFiles(t, map[string]string{
			"etc/ssh/sshd_config": twoFactors + c.config + keyForRobots, "etc/pam.d/sshd": asksCode,
			"etc/ssh/ca.pub": "# CAs\n" + key, "home/robot/.ssh/authorized_keys": c.keys,
			"etc/passwd": "root:x:0:0::/root:/bin/bash\nrobot:x:1002:1002::/home/robot:/bin/sh\n",
		})
		a := Auditor{Root: root, Clock: func() Clock { return Clock{Synchronized: true} }}
		if c.grants != nil {
			a.UserCA = func(context.Context) (*UserCA, error) { return &UserCA{[]ssh.PublicKey{own}, c.grants}, nil }
		}
		report, err := a.Audit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(report.Findings, func(f Finding) bool {
			return f.ID == "one-factor" && strings.HasSuffix(f.Title, "publickey alone opens "+c.want)
		}) {
			t.Errorf("%s: found %+v, want %q", name, report.Findings, c.want)
		}
	}
}
