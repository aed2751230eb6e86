package ca

import (
	"crypto"
	"path/filepath"
	"slices"
)

// Output says how certificates are written to files.
type Output struct {
	Dir      string // absolute: configurations name it
	Layouts  []Layout
	Password string // of the PKCS#12 file
	Legacy   bool   // PKCS#12 for old importers
	Force    bool   // replace files that exist
}

// NeedsPassword reports whether one of the files is encrypted under the password.
func (o Output) NeedsPassword() bool { return slices.Contains(o.Layouts, LayoutPKCS12) }

// Check fails if the files of a certificate that is yet to be issued could not be
// written: with Conflict if one is there already, with Invalid if a layout is not
// for this profile.
func (o Output) Check(a *Authority, p Profile, person string, names []string) error {
	for _, l := range o.Layouts {
		files, err := a.Planned(l, p, person, names)
		if err != nil {
			return err
		}
		if err := CheckFiles(o.Dir, files, o.Force); err != nil {
			return err
		}
	}
	return nil
}

// Write writes a certificate and its key, and returns the paths of the files. A
// key of nil is elsewhere, and its file is left out.
func (o Output) Write(i *Issued, key crypto.PrivateKey) (written []string, err error) {
	for _, l := range o.Layouts {
		b := Bundle{Issued: i, Key: key, Dir: o.Dir, Password: o.Password, Legacy: o.Legacy}
		files, err := b.Files(l)
		if err != nil {
			return written, err
		}
		if err := WriteFiles(o.Dir, files, o.Force); err != nil {
			return written, err
		}
		for _, f := range files {
			written = append(written, filepath.Join(o.Dir, f.Name))
		}
	}
	return written, nil
}

// ParseLayouts reads the names of layouts; for none, the fallback is taken.
func ParseLayouts(names []string, fallback ...Layout) ([]Layout, error) {
	if names == nil {
		return fallback, nil
	}
	list := make([]Layout, len(names))
	for i, name := range names {
		var err error
		if list[i], err = ParseLayout(name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// NewKey makes a key for a certificate of a profile that is written in these layouts:
// of the kind that is asked for or, with "", RSA for libvirt, which may refuse others
// (GnuTLS priorities of old distributions), else the first that the profile certifies.
func (a *Authority) NewKey(p Profile, alg Algorithm, layouts []Layout) (crypto.Signer, error) {
	switch {
	case alg != "":
		return GenerateKey(alg)
	case slices.Contains(layouts, LayoutLibvirt):
		return GenerateKey(RSA3072)
	}
	policy, err := a.policy(p)
	if err != nil {
		return nil, err
	}
	return policy.newKey()
}
