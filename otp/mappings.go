package otp

import (
	"bytes"
	"io"
	"os"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
)

// maxMappings bounds the mapping file, in bytes.
const maxMappings = 1 << 20

// Mappings says which YubiKeys open which account, as the file
// /etc/yubikey_mappings does for libpam-yubico: account name to public IDs.
type Mappings map[string][]string

// ParseMappings reads lines of the form user:publicID:publicID. What begins
// with # is a comment. An ID that cannot be one never matches and is left out.
// An account may have several lines.
func ParseMappings(b []byte) Mappings {
	m := Mappings{}
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, " \t\r\n")
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		user, ids, _ := bytes.Cut(line, []byte(":"))
		for id := range bytes.SplitSeq(ids, []byte(":")) {
			if id := string(id); len(user) > 0 && ValidPublicID(id) && !slices.Contains(m[string(user)], id) {
				m[string(user)] = append(m[string(user)], id)
			}
		}
	}
	return m
}

// ReadMappings reads a mapping file. It must be a regular file that only its
// owner, root or this process's user, can write. A file that does not exist
// maps nobody.
func ReadMappings(path string) (Mappings, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return Mappings{}, nil
	}
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "%w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "%w", err)
	}
	owner, _, ok := system.Owner(info)
	if !ok || !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || owner != 0 && owner != os.Geteuid() {
		return nil, postern.Errorf(postern.Unavailable, "others than its owner can change %s", path).
			WithHint("chown root %s; chmod go-w %s", path, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxMappings+1))
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "%w", err)
	}
	if len(b) > maxMappings {
		return nil, postern.Errorf(postern.Unavailable, "%s is longer than %d bytes", path, maxMappings)
	}
	return ParseMappings(b), nil
}

// Has reports whether the key opens the account. The account's name must be the
// whole one: bob is not jimbob.
func (m Mappings) Has(user, publicID string) bool { return slices.Contains(m[user], publicID) }
