package setup

import (
	"bytes"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
)

// LockOut returns why the user of that name might not be able to log in any more
// once the setup is in place, as far as this host's files show. asked is whether
// the setup asks that user for a code.
func (s Setup) LockOut(name string) (warnings []error, asked bool) {
	warn := func(err error) { warnings = append(warnings, err) }
	if name == "root" && !s.Root {
		warn(postern.Errorf(postern.Denied, "you are root, and root will not be able to log in by SSH").
			WithHint("use your own account and sudo, or permit root"))
	}
	u, err := user.Lookup(name)
	if err != nil {
		return append(warnings, err), false
	}
	if s.Mode == GroupsOnly {
		absent, member := s.membership(u)
		for _, g := range absent {
			warn(postern.Errorf(postern.NotFound, "there is no group %s", g))
		}
		if !member {
			return warnings, false
		}
	}
	switch s.Mode {
	case Certificates:
		warn(postern.Errorf(postern.Denied, "%s needs a certificate to log in",
			name).WithHint("get an SSH certificate first"))
		return warnings, false
	case PasswordAndCode:
	default:
		keys, _ := os.ReadFile(filepath.Join(u.HomeDir, ".ssh/authorized_keys"))
		switch {
		case len(bytes.TrimSpace(keys)) == 0:
			warn(postern.Errorf(postern.Denied, "%s has no public key in ~/.ssh/authorized_keys", name))
		case s.Mode.hardware() && !hasHardwareKey(keys):
			warn(postern.Errorf(postern.Denied, "%s has no FIDO2 key in ~/.ssh/authorized_keys", name).
				WithHint("ssh-keygen -t ed25519-sk -O verify-required makes one"))
		}
	}
	return warnings, s.Mode != HardwareKey
}

// hasHardwareKey reports whether some line of authorized_keys(5) has the key of a
// FIDO2 key.
func hasHardwareKey(keys []byte) bool {
	for line := range bytes.Lines(keys) {
		if k, _, _, _, err := ssh.ParseAuthorizedKey(line); err == nil &&
			strings.Contains(","+hardwareAlgorithms+",", ","+k.Type()+",") {
			return true
		}
	}
	return false
}

// membership returns the setup's groups that do not exist, and whether the user is
// a member of any.
func (s Setup) membership(u *user.User) (absent []string, member bool) {
	of, _ := u.GroupIds()
	for _, name := range s.Groups {
		g, err := user.LookupGroup(name)
		if err != nil {
			absent = append(absent, name)
			continue
		}
		member = member || slices.Contains(of, g.Gid)
	}
	return absent, member
}

// ModuleInstalled reports whether the setup's PAM module is where libpam looks, or
// is named by an absolute path.
func (s Setup) ModuleInstalled() (name string, ok bool) {
	name = s.Module
	if name == "" {
		name = "pam_postern.so"
	}
	if filepath.IsAbs(name) {
		return name, true
	}
	for _, pattern := range []string{"/lib/*/security/", "/lib*/security/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return name, true
		}
	}
	return name, false
}
