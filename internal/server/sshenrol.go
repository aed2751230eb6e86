package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/coalesce"
	"github.com/postern-project/postern/internal/sshd/attest"
	"github.com/postern-project/postern/internal/sshd/sign"
	"github.com/postern-project/postern/internal/state"
	"golang.org/x/crypto/ssh"
)

// FIDORootsFile is the file in the state directory with roots, PEM, of makers of FIDO2 keys
// beyond those that Postern knows.
const FIDORootsFile = "fido-roots.pem"

// FIDOMetadataFile is the file in the state directory with the FIDO Alliance's metadata, as
// it is served at https://mds3.fidoalliance.org; there may be none.
const FIDOMetadataFile = "fido-metadata.jwt"

// sshEnroller keeps SSH keys in FIDO2 keys.
type sshEnroller struct {
	st       *state.State
	refused  *coalesce.Writer
	metadata *attest.MetadataFile
}

func newSSHEnroller(st *state.State, refused *coalesce.Writer) sshEnroller {
	return sshEnroller{st, refused, &attest.MetadataFile{
		Path: st.Path(FIDOMetadataFile), Roots: attest.MetadataRoots(),
	}}
}

// challengeValid is how long a challenge may be answered: its person has to find the
// FIDO2 key, and remember its PIN.
const challengeValid = 10 * time.Minute

// challengePurpose binds challenges: they are sealed, and so bound to a person and a time
// without being kept, by every server of the installation.
const challengePurpose = "ssh enrolment"

// Challenge returns a challenge for a person.
func (e sshEnroller) Challenge(person string) ([]byte, error) {
	made := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix()))
	return e.st.Store.Seal(challengePurpose, person, append(made, rand.Text()...))
}

// Enrol keeps a key whose attestation is right. Others are refused, and recorded.
func (e sshEnroller) Enrol(ctx context.Context, by postern.Actor, q sign.Enrolment) (sign.EnrolledKey, error) {
	k, err := e.enrol(ctx, by, q)
	if code := postern.CodeOf(err); code == postern.Denied || code == postern.Invalid || code == postern.Conflict {
		k := sign.EnrolledKey{Person: by.Person, Public: q.Public}
		event := sshKeyEvent(by, k)
		event.Outcome, event.Reason = postern.Refused, err.Error()
		e.refused.Add(event)
	}
	return k, err
}

func (e sshEnroller) enrol(ctx context.Context, by postern.Actor, q sign.Enrolment) (sign.EnrolledKey, error) {
	made, err := e.st.Store.Unseal(challengePurpose, by.Person, q.Challenge)
	if err != nil || len(made) < 8 {
		return sign.EnrolledKey{}, postern.Errorf(postern.Denied, "the challenge is not one for %s", by.Person)
	}
	age := time.Since(time.Unix(int64(binary.BigEndian.Uint64(made)), 0))
	if age < -time.Minute || age > challengeValid {
		return sign.EnrolledKey{}, postern.Errorf(postern.Denied, "the challenge is older than %s", challengeValid).
			WithHint("try again")
	}
	trust, err := e.trust()
	if err != nil {
		return sign.EnrolledKey{}, err
	}
	a, err := attest.Check(q.Attestation, q.Challenge, q.Public, trust, time.Now())
	if err != nil {
		return sign.EnrolledKey{}, err
	}
	k := sign.EnrolledKey{
		Person: by.Person, Public: q.Public, Label: q.Label, Enrolled: true, Attested: true, AAGUID: a.AAGUID,
		Maker: a.Maker, VerifyRequired: a.VerifyRequired,
	}
	if k.Label == "" {
		k.Label = cmp.Or(a.Model, "FIDO2 key, "+k.Maker)
	}
	return k, EnrolSSHKey(ctx, e.st, by, k)
}

// trust says who may vouch for FIDO2 keys. It fails where a file that says so cannot be used.
func (e sshEnroller) trust() (t attest.Trust, err error) {
	t.Roots = attest.Roots()
	more, err := os.ReadFile(e.st.Path(FIDORootsFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return t, err
	case !t.Roots.AppendCertsFromPEM(more):
		return t, postern.Errorf(postern.Internal, "%s holds no certificate", FIDORootsFile)
	}
	if t.Metadata, err = e.metadata.Read(time.Now()); err != nil {
		err = postern.Errorf(postern.Internal, "%s cannot be used: %w", FIDOMetadataFile, err)
	}
	return t, err
}

// EnrolSSHKey keeps a key for its person, and what is known of it. It fails with Denied
// for a key that is disabled.
func EnrolSSHKey(ctx context.Context, st *state.State, by postern.Actor, k sign.EnrolledKey) error {
	return st.Store.People().EnrolSSHKey(ctx, by, k, sshKeyEvent(by, k))
}

// sshKeyEvent is the event of a key that was added.
func sshKeyEvent(by postern.Actor, k sign.EnrolledKey) postern.Event {
	fingerprint := ssh.FingerprintSHA256(k.Public)
	event := postern.Event{
		Kind: postern.EventSSHKeyAdded, Outcome: postern.OK, Person: k.Person, Address: by.Address,
		Object:  fingerprint,
		Links:   []postern.Link{{Kind: string(postern.SSHKey), ID: fingerprint}},
		Details: map[string]string{"key_type": k.Public.Type()},
	}
	if k.Attested {
		event.Details["maker"], event.Details["model"] = k.Maker, k.AAGUID
	}
	if k.VerifyRequired {
		event.Details["user_verified"] = "true"
	}
	if other := by.By(k.Person); other != "" {
		event.Details["by"] = other
	}
	return event
}
