package sign

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
)

// Enrolment is a key that a person wants to enrol, with what proves that it is in a FIDO2
// key: the file that ssh-keygen -O write-attestation= wrote for the challenge.
type Enrolment struct {
	Public                 ssh.PublicKey
	Label                  string
	Challenge, Attestation []byte
}

// Enroller checks and keeps keys. It is safe for concurrent use.
type Enroller interface {
	// Challenge returns what a person's FIDO2 key has to sign, which is valid for some
	// minutes.
	Challenge(person string) ([]byte, error)
	// Enrol keeps a key for the actor's person. It fails with postern.Denied where the
	// attestation does not prove that the key is in a FIDO2 key.
	Enrol(ctx context.Context, by postern.Actor, e Enrolment) (EnrolledKey, error)
}

// ChallengeAnswer is the answer to GET /ssh/challenge.
type ChallengeAnswer struct {
	Person    string `json:"person"`
	Challenge []byte `json:"challenge"`
}

// EnrolRequest is what is posted to /ssh/enrol.
type EnrolRequest struct {
	PublicKey   string `json:"public_key"` // a line of a .pub file
	Label       string `json:"label,omitempty"`
	Challenge   []byte `json:"challenge"`
	Attestation []byte `json:"attestation"`
	Person      string `json:"person,omitempty"` // with Code, where no client certificate is shown
	Code        string `json:"code,omitempty"`
}

// EnrolAnswer is the answer to it.
type EnrolAnswer struct {
	Person      string `json:"person"`
	Fingerprint string `json:"fingerprint"`
	Maker       string `json:"maker"`
	Model       string `json:"model"`         // its AAGUID
	Verified    bool   `json:"user_verified"` // it asks for its PIN before each signature
}

const (
	enrolBodyMax = 1 << 16 // bytes of a request
	labelMax     = 64      // bytes
	personMax    = 64      // bytes
)

func (h *signHandler) challenge(w http.ResponseWriter, r *http.Request) {
	person := r.URL.Query().Get("person")
	if who, ok := h.Identify(r); ok && person == "" {
		person = who.Person
	}
	if person == "" || len(person) > personMax {
		h.answer(w, r, nil, postern.Errorf(postern.Invalid, "the request names no person"))
		return
	}
	c, err := h.Enroller.Challenge(person)
	h.answer(w, r, ChallengeAnswer{Person: person, Challenge: c}, err)
}

func (h *signHandler) enrol(w http.ResponseWriter, r *http.Request) {
	answer, err := h.enrolled(w, r)
	h.answer(w, r, answer, err)
}

func (h *signHandler) enrolled(w http.ResponseWriter, r *http.Request) (EnrolAnswer, error) {
	var q EnrolRequest
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, enrolBodyMax))
	if err == nil {
		err = json.Unmarshal(b, &q)
	}
	if err != nil || len(q.Label) > labelMax {
		return EnrolAnswer{}, postern.Errorf(postern.Invalid, "the request is no JSON object of at most %d bytes, "+
			"or its label is longer than %d", enrolBodyMax, labelMax)
	}
	key, err := ParsePublicKey(q.PublicKey)
	if err != nil {
		return EnrolAnswer{}, err
	}
	who, err := h.actor(r, q.Person, q.Code)
	if err != nil {
		return EnrolAnswer{}, err
	}
	k, err := h.Enroller.Enrol(r.Context(), who, Enrolment{
		Public: key, Label: q.Label, Challenge: q.Challenge, Attestation: q.Attestation,
	})
	if err != nil {
		return EnrolAnswer{}, err
	}
	return EnrolAnswer{
		Person: k.Person, Fingerprint: ssh.FingerprintSHA256(key), Maker: k.Maker, Model: k.AAGUID,
		Verified: k.VerifyRequired,
	}, nil
}
