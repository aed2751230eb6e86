package ca

import (
	"cmp"
	"context"
	"crypto"
	"path/filepath"
	"slices"

	"github.com/postern-project/postern"
)

// Output says how certificates are written to files.
type Output struct {
	Dir      string // absolute: configurations name it
	Layouts  []Layout
	Password string // of the PKCS#12 file
	Legacy   bool   // PKCS#12 for old importers
	Force    bool   // replace files that exist
}

// AddLayout adds a layout by its name.
func (o *Output) AddLayout(name string) error {
	l, err := ParseLayout(name)
	if err == nil {
		o.Layouts = append(o.Layouts, l)
	}
	return err
}

// Complete makes the directory absolute. Where there is no layout it chooses PEM, and
// PKCS#12 beside it for a person who gets a new key.
func (o *Output) Complete(p Profile, newKey bool) (err error) {
	switch {
	case o.Layouts != nil:
	case p == ProfileClient && newKey:
		o.Layouts = []Layout{LayoutPKCS12, LayoutPEM}
	default:
		o.Layouts = []Layout{LayoutPEM}
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return postern.Errorf(postern.Invalid, "the directory of the files: %w", err)
	}
	return nil
}

// NeedsPassword reports whether one of the files is encrypted under the password.
func (o Output) NeedsPassword() bool { return slices.Contains(o.Layouts, LayoutPKCS12) }

// Check fails if the files of a certificate that is yet to be issued could not be
// written: with Conflict if one is there already, with Invalid if a layout is not
// for this profile, or needs a key that is not made.
func (o Output) Check(a *Authority, p Profile, person string, names []string, newKey bool) error {
	if o.NeedsPassword() && !newKey {
		return postern.Errorf(postern.Invalid, "a PKCS#12 file holds the private key, which is elsewhere").
			WithHint("take the layout pem, and put the certificate beside the key")
	}
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

// Issue makes a key, of an algorithm as [Authority.NewKey] takes it, and issues a
// certificate for it; or for the key in a YubiKey that is attested. Nothing is issued whose files could not be
// written.
func (o Output) Issue(ctx context.Context, a *Authority, alg Algorithm, r SignRequest) (*Issued, error) {
	profile, kind := cmp.Or(r.Profile, ProfileServer), ProfileServer
	if r.client() {
		profile, kind = ProfileClient, ProfileClient
	}
	switch {
	case len(r.Attestation) > 0 && !r.client():
		return nil, errAttested
	case len(r.Attestation) > 0 && alg != "":
		return nil, postern.Errorf(postern.Invalid, "no key is made for an attestation, so none can be of type %s", alg)
	}
	var key crypto.Signer
	var public crypto.PublicKey
	if len(r.Attestation) == 0 {
		var err error
		if key, err = a.NewKey(profile, alg, o.Layouts); err != nil {
			return nil, err
		}
		public = key.Public()
	}
	if err := o.Check(a, kind, r.Person, r.Names, key != nil); err != nil {
		return nil, err
	}
	i, err := a.issue(ctx, public, r)
	if err != nil {
		return nil, err
	}
	i.Key = key
	return i, nil
}

// issue issues a certificate for a key; nil is the one that is attested.
func (a *Authority) issue(ctx context.Context, key crypto.PublicKey, r SignRequest) (*Issued, error) {
	if r.client() {
		return a.IssueClient(ctx, ClientRequest{
			Person: r.Person, Label: r.Label, Units: r.Units, Key: key, Attestation: r.Attestation, Period: r.Period,
			By: r.By,
		})
	}
	return a.IssueServer(ctx, ServerRequest{
		Names: r.Names, Profile: r.Profile, Key: key, Period: r.Period, By: r.By,
	})
}

// Renew is [Authority.Renew], but renews nothing whose files could not be written.
func (o Output) Renew(ctx context.Context, a *Authority, old *Issued, r RenewRequest) (*Issued, error) {
	if err := o.Check(a, old.Profile, old.Person, old.Names, r.Key == nil && !r.SameKey); err != nil {
		return nil, err
	}
	return a.Renew(ctx, old.Serial, r)
}

// Write writes a certificate and its key, and returns the paths of the files. Where the
// certificate has no key, that is elsewhere, and its file is left out.
func (o Output) Write(i *Issued) (written []string, err error) {
	for _, l := range o.Layouts {
		b := Bundle{Issued: i, Key: i.Key, Dir: o.Dir, Password: o.Password, Legacy: o.Legacy}
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
