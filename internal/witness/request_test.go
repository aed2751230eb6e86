package witness

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
)

func FuzzParseRequest(f *testing.F) {
	hash := strings.Repeat("A", 43) + "="
	f.Add("old 5\n" + hash + "\n\norigin\n6\n" + hash + "\n\n— origin AAAA\n")
	f.Add("old 0\n\norigin\n")
	f.Fuzz(func(t *testing.T, body string) {
		r, err := parseRequest(body)
		if err == nil && r.String() != body {
			t.Errorf("%q is read as %q", body, r)
		}
	})
}

// FuzzAdd sends a witness what a client may send.
func FuzzAdd(f *testing.F) {
	key, err := timeline.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	signer, err := note.NewSigner(key.Secret)
	if err != nil {
		f.Fatal(err)
	}
	signed, err := timeline.Checkpoint{Origin: signer.Name(), Size: 4}.Sign(signer)
	if err != nil {
		f.Fatal(err)
	}
	w, err := Open(f.TempDir(), "w.example", []string{key.Verifier}, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(w.Close)
	f.Add("old 0\n\n" + signed)
	f.Add("old 4\n\n" + signed)
	f.Add("old 1\n" + strings.Repeat("A", 43) + "=\n\n" + signed)
	f.Fuzz(func(t *testing.T, body string) {
		line, err := w.Add(body)
		var no *refusal
		if err == nil && !strings.HasSuffix(body, signed) || err != nil && (!errors.As(err, &no) || line != "") {
			t.Errorf("%q is answered with %q, %v", body, line, err)
		}
	})
}

func TestARequestThatIsNoneIsRefused(t *testing.T) {
	hash := strings.Repeat("A", 43) + "=\n"
	for _, body := range []string{
		"", "\n\n", "old\n\n", "old 01\n\n", "old -1\n\n", "old 1\nx\n\n", "old 1\n" + strings.Repeat(hash, 64) + "\n",
		"new 1\n\n", "old 1\n" + strings.Repeat(hash, 1000) + "\n", "old 1\n" + hash,
	} {
		_, err := new(Witness).Add(body)
		var no *refusal
		if !errors.As(err, &no) || no.status != http.StatusBadRequest {
			t.Errorf("%.40q: %v", body, err)
		}
	}
}
