package otp

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
)

// maxMappings bounds the mapping file, in bytes.
const maxMappings = 1 << 20

// Mappings assigns YubiKeys to accounts, as the file /etc/yubikey_mappings does for
// libpam-yubico: account name to public IDs.
type Mappings map[string][]string

// ParseMappings reads lines of the form user:publicID:publicID. A # at the beginning of
// the line or after a blank begins a comment. Blanks and tabs around a name or an ID
// are ignored, and so is an ID's case. An ID that is not valid never matches and is
// left out. An account may have several lines.
func ParseMappings(b []byte) Mappings {
	m := Mappings{}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	for line := range bytes.Lines(b) {
		name, ids, _ := strings.Cut(mappingComment.ReplaceAllString(string(line), ""), ":")
		user := strings.TrimSpace(name)
		for id := range strings.SplitSeq(ids, ":") {
			id = strings.ToLower(strings.TrimSpace(id))
			if user != "" && ValidPublicID(id) && !slices.Contains(m[user], id) {
				m[user] = append(m[user], id)
			}
		}
	}
	return m
}

// mappingComment is a comment in a line of a mapping file.
var mappingComment = regexp.MustCompile(`(^|[ \t])#.*`)

// ReadMappings reads a mapping file. It must be a regular file that only its
// owner, root or this process's user, can write. A file that does not exist has no
// mappings.
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
		return nil, postern.Errorf(postern.Unavailable, "other users than its owner can change %s", path).
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

// Has reports whether the key is assigned to the account. The account's whole name must
// match: bob is not jimbob.
func (m Mappings) Has(user, publicID string) bool { return slices.Contains(m[user], publicID) }
