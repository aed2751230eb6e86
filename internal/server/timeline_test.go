package server

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/timeline"
)

func TestReadersOfTheTimelineAreNamed(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/timeline/checkpoint", nil)
	if allowed(nil)(r) || allowed([]string{"admin"})(r) || !allowed([]string{front.Anyone})(r) {
		t.Error("a client without a certificate may read what it may not, or not what anyone may")
	}
}

func TestAPolicySaysWhereItsWitnessesAre(t *testing.T) {
	key, err := timeline.NewWitnessKey("w.example")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "policy")
	if _, err := readPolicy(file); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("a policy that is not there: %v", err)
	}
	for text, ok := range map[string]bool{
		"witness w " + key.Verifier + " https://w.example\nquorum w\n": true,
		"witness w " + key.Verifier + "\nquorum w\n":                   false, // no URL
		"witness w\n": false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readPolicy(file); (err == nil) != ok || err != nil && postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}
