package acme_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/acme"
)

// TestAnExternalKeyIsNoOption makes keys that a client takes as an argument. One in 64
// would begin as an option does.
func TestAnExternalKeyIsNoOption(t *testing.T) {
	for range 2000 {
		k := acme.NewExternalKey("alice", "", time.Now())
		if text := base64.RawURLEncoding.EncodeToString(k.Secret); strings.HasPrefix(text, "-") {
			t.Fatalf("the key %s begins as an option", text)
		}
	}
}
