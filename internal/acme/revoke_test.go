package acme_test

import (
	"testing"
	"time"

	client "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern/internal/posterntest"
)

func TestRevocation(t *testing.T) {
	w, alice := aliceAtATest(t)
	bob := w.account(t, "bob")
	_, one := w.obtain(t, alice)
	if err := w.client.RevokeCertificate(t.Context(), alice, one, alice.PrivateKey,
		7); kind(err) != "badRevocationReason" {
		t.Errorf("a reason that is none: %v", err)
	}
	if err := w.client.RevokeCertificate(t.Context(), alice, one, alice.PrivateKey, 1); err != nil {
		t.Error(err)
	}
	if err := w.client.RevokeCertificate(t.Context(), alice, one, alice.PrivateKey, 1); kind(err) != "alreadyRevoked" {
		t.Errorf("twice: %v", err)
	}
	key, two := w.obtain(t, alice)
	if err := w.client.RevokeCertificate(t.Context(), client.Account{}, two, posterntest.NewKey(t),
		0); kind(err) != "unauthorized" {
		t.Errorf("by another key: %v", err)
	}
	if err := w.client.RevokeCertificate(t.Context(), client.Account{}, two, key, 0); err != nil {
		t.Errorf("by the certificate's key: %v", err)
	}
	_, three := w.obtain(t, alice)
	w.obtain(t, bob) // proves the name
	if err := w.client.RevokeCertificate(t.Context(), bob, three, bob.PrivateKey,
		1); kind(err) != "badRevocationReason" {
		t.Errorf("that a key is compromised, by an account that never had it: %v", err)
	}
	if err := w.client.RevokeCertificate(t.Context(), bob, three, bob.PrivateKey, 0); err != nil {
		t.Errorf("by an account that has proved the name: %v", err)
	}
	info, err := w.client.GetRenewalInfo(t.Context(), three)
	if err != nil || info.SuggestedWindow.End.After(time.Now()) {
		t.Errorf("renewal of a revoked certificate: %+v %v", info, err)
	}
	_, four := w.obtain(t, alice)
	if info, err = w.client.GetRenewalInfo(t.Context(), four); err != nil ||
		info.SuggestedWindow.Start.Before(time.Now()) || info.SuggestedWindow.End.After(four.NotAfter) {
		t.Errorf("renewal: %+v %v", info, err)
	}
}
