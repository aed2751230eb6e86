package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// HostTrust is what sshd of a joined host has: certificates of its own keys, and whose
// certificates it accepts.
type HostTrust struct {
	Certificates map[string][]byte // of host keys, by the key's file
	UserCAs      []byte            // what TrustedUserCAKeys is to hold
	KRL          []byte            // what RevokedKeys is to hold
}

// hostDropIn is the part of sshd_config for a joined host. It stands behind what asks for
// two factors, which sets the same values where it sets them.
const hostDropIn = "/etc/ssh/sshd_config.d/01-postern-host.conf"

// CertificateFile returns where the certificate of a host key stands, by the key's file.
func CertificateFile(key string) string { return key + "-cert.pub" }

// HostKeys returns the files of sshd's host keys below root, as sshd_config names them:
// those that there are, none without an sshd. Where it names none, sshd has defaults
// (sshd_config(5), HostKey).
func HostKeys(root string) ([]string, error) {
	h := hostconf.Files{Root: root}
	all, err := h.Directives(hostconf.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, hostconf.ConfigError(err)
	}
	var keys []string
	for _, d := range all {
		if d.Keyword == "hostkey" && len(d.Args) > 0 && !slices.Contains(keys, d.Args[0]) {
			keys = append(keys, d.Args[0])
		}
	}
	if len(keys) == 0 {
		for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
			keys = append(keys, "/etc/ssh/ssh_host_"+kind+"_key")
		}
	}
	return slices.DeleteFunc(keys, func(key string) bool {
		_, err := h.Stat(key + ".pub")
		return err != nil
	}), nil
}

// Contents returns the files with certificates, CAs and revoked keys.
func (t HostTrust) Contents() []File {
	files := []File{
		{Path: UserCAFile, Content: t.UserCAs, Mode: 0o644}, {Path: KRLFile, Content: t.KRL, Mode: 0o644},
	}
	for _, key := range slices.Sorted(maps.Keys(t.Certificates)) {
		files = append(files, File{Path: CertificateFile(key), Content: t.Certificates[key], Mode: 0o644})
	}
	return files
}

// Files returns the files to write, given the host's own as they are below root: none
// without an sshd. It fails with Conflict where sshd_config has CAs or revoked keys of its own, which would no longer
// take effect.
func (t HostTrust) Files(root string) ([]File, error) {
	h := hostconf.Files{Root: root}
	main, err := h.Read(hostconf.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, hostconf.ConfigError(err)
	}
	if err := ownTrust(h); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by postern join; postern leave removes it.\nTrustedUserCAKeys %s\nRevokedKeys %s\n",
		UserCAFile, KRLFile)
	for _, key := range slices.Sorted(maps.Keys(t.Certificates)) {
		fmt.Fprintf(&b, "HostCertificate %s\n", CertificateFile(key))
	}
	files := append(t.Contents(), File{Path: hostDropIn, Content: []byte(b.String()), Mode: 0o644})
	if !includes(string(main), hostDropIn) {
		files = append(files, File{
			Path: hostconf.ConfigFile, Content: append([]byte(hostInclude), main...), Mode: 0o644,
		})
	}
	return files, nil
}

// hostInclude is the line of sshd_config where that includes no drop-ins.
const hostInclude = "Include " + hostDropIn + "\n"

// ownTrust fails if sshd_config names a file of CAs or revoked keys that is not ours.
func ownTrust(h hostconf.Files) error {
	all, err := h.Directives(hostconf.ConfigFile)
	if err != nil {
		return hostconf.ConfigError(err)
	}
	ours := map[string]string{"trustedusercakeys": UserCAFile, "revokedkeys": KRLFile}
	for _, d := range all {
		file, ok := ours[d.Keyword]
		if ok && d.Match == nil && len(d.Args) > 0 && d.Args[0] != file && !strings.EqualFold(d.Args[0], "none") {
			return postern.Errorf(postern.Conflict, "%s: %s %s would no longer take effect", d.Line, d.Keyword,
				d.Args[0]).
				WithHint("remove the line, after its keys were taken over here or are not needed any more")
		}
	}
	return nil
}

// Before returns files as they are now below root: writing them undoes writing others
// of their names.
func Before(root string, files []File) ([]File, error) {
	h := hostconf.Files{Root: root}
	var before []File
	for _, f := range files {
		now := File{Path: f.Path, Mode: f.Mode}
		content, err := h.Read(f.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			now.Absent = true
		case err != nil:
			return nil, err
		}
		now.Content = content
		before = append(before, now)
	}
	return before, nil
}

// WithoutHost returns the files that undo what Files wrote, given what was there before.
// Of sshd_config, which may have changed since, the line that was added is taken out.
// Files that a setup for two factors names, too, stay.
func WithoutHost(root string, before []File) ([]File, error) {
	h := hostconf.Files{Root: root}
	twoFactors, _ := h.Read(hostconf.DropIn) // there need not be one
	files := slices.DeleteFunc(slices.Clone(before), func(f File) bool {
		return f.Path != hostDropIn && bytes.Contains(twoFactors, []byte(" "+f.Path+"\n"))
	})
	for i, f := range files {
		if f.Path != hostconf.ConfigFile {
			continue
		}
		now, err := h.Read(hostconf.ConfigFile)
		if err != nil {
			return nil, hostconf.ConfigError(err)
		}
		files[i].Content = bytes.Replace(now, []byte(hostInclude), nil, 1)
	}
	return files, nil
}
