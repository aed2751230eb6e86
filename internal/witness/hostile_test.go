package witness_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/internal/witness"
	"github.com/postern-project/postern/timeline"
)

// hostile has a log's checkpoint cosigned by a witness that answers so, and returns what is kept of it.
func hostile(t *testing.T, s *submitter) timeline.Witnessed {
	t.Helper()
	must(t, s.Round(t.Context()))
	kept, err := s.Store.Witnesses(t.Context())
	must(t, err)
	if len(kept) != 1 {
		t.Fatalf("%+v", kept)
	}
	return kept[0]
}

// policyOf returns a policy with one witness.
func policyOf(t *testing.T, key string, answer http.HandlerFunc) string {
	t.Helper()
	return "witness w " + key + " " + serve(t, answer) + "\nquorum w\n"
}

// TestAWitnessWithAFalseClockVouchesForNothing has one cosign in the past and in the future: it would be
// taken to have cosigned lately for ever.
func TestAWitnessWithAFalseClockVouchesForNothing(t *testing.T) {
	key, err := timeline.NewWitnessKey("w.example")
	must(t, err)
	for _, at := range []time.Time{
		time.Now().Add(-48 * time.Hour), time.Now().Add(48 * time.Hour), time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		db := logOf(t, filepath.Join(t.TempDir(), "db"), 10)
		w, err := timeline.NewCosigner(key.Secret, func() time.Time { return at })
		must(t, err)
		text, _, _ := strings.Cut(checkpoint(t, db), "\n\n")
		line, err := w.Cosign(text + "\n")
		must(t, err)
		s := newSubmitter(t, db, policyOf(t, key.Verifier, func(to http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(to, line)
		}))
		if kept := hostile(t, s); kept.Size != 0 || !strings.Contains(kept.Problem, "clock") {
			t.Errorf("at %s: %+v", at, kept)
		}
		if signed, err := db.Timeline().Cosigned(t.Context()); err != nil || signed != "" {
			t.Errorf("at %s: %q, %v", at, signed, err)
		}
	}
}

// TestWhatAWitnessSaysIsBounded has one answer with what a terminal takes for more than text, and claim
// another size each time, each of which would be an entry of the timeline.
func TestWhatAWitnessSaysIsBounded(t *testing.T) {
	key, err := timeline.NewWitnessKey("w.example")
	must(t, err)
	db := logOf(t, filepath.Join(t.TempDir(), "db"), 10)
	raw := func(line string) http.HandlerFunc {
		return func(to http.ResponseWriter, _ *http.Request) {
			conn, _, err := to.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, line, "\r\nContent-Length: 0\r\n\r\n")
		}
	}
	for name, line := range map[string]string{
		"a status":        "HTTP/1.1 500 \x1b[31m" + strings.Repeat("x", 10<<10),
		"no status":       "\x1b[31m" + strings.Repeat("x", 10<<10),
		"many bytes":      "HTTP/1.1 500 " + strings.Repeat("x", 1<<20),
		"a strange field": "HTTP/1.1 500 x\r\n\x1b[31m" + strings.Repeat("x", 10<<10),
	} {
		kept := hostile(t, newSubmitter(t, db, policyOf(t, key.Verifier, raw(line))))
		if kept.Problem == "" || len(kept.Problem) > 1000 || strings.ContainsRune(kept.Problem, '\x1b') {
			t.Errorf("%s: %d bytes: %.200q", name, len(kept.Problem), kept.Problem)
		}
	}
	claimed := 100
	s := newSubmitter(t, db, policyOf(t, key.Verifier, func(to http.ResponseWriter, r *http.Request) {
		claimed++
		conflict(fmt.Sprint(claimed))(to, r)
	}))
	hostile(t, s)
	first := s.problems["w"]
	if hostile(t, s); first == "" || s.problems["w"] != first {
		t.Errorf("%q, then %q", first, s.problems["w"])
	}
}

// TestAForkOfTheSameSizeIsSeen has a witness that has cosigned another tree of that size, and says so as
// C2SP's tlog-witness asks: 409, without a size.
func TestAForkOfTheSameSizeIsSeen(t *testing.T) {
	key, err := timeline.NewWitnessKey("w.example")
	must(t, err)
	db := logOf(t, filepath.Join(t.TempDir(), "db"), 10)
	for name, last := range map[string]http.HandlerFunc{
		"without a size": func(to http.ResponseWriter, _ *http.Request) { to.WriteHeader(http.StatusConflict) },
		"with the size":  conflict("10"),
	} {
		answers := []http.HandlerFunc{conflict("10"), last}
		s := newSubmitter(t, db, policyOf(t, key.Verifier, func(to http.ResponseWriter, r *http.Request) {
			answers[0](to, r)
			answers = answers[1:]
		}))
		if hostile(t, s); !strings.Contains(s.problems["w"], witness.ErrFork.Error()) {
			t.Errorf("%s: %q", name, s.problems["w"])
		}
	}
}

// TestAnotherServerOfTheLogIsNoFork has another server append, and have the witness cosign, while this one
// submits what it read before.
func TestAnotherServerOfTheLogIsNoFork(t *testing.T) {
	db := logOf(t, storetest.URL(t), 10)
	w, at := ours(t, t.TempDir(), db)
	policy := "witness ours " + w.Key() + " " + at + "\nquorum ours\n"
	key, err := timeline.NewWitness(w.Key())
	must(t, err)
	before := checkpoint(t, db)
	grow(t, db, 20)
	must(t, newSubmitter(t, db, policy).Round(t.Context()))
	c := witness.Client{URL: at, Key: key, HTTP: http.DefaultClient}
	if _, err := c.Add(t.Context(), db.Timeline(), verifier(t, db), 0, before); postern.CodeOf(err) !=
		postern.Unavailable {
		t.Errorf("the checkpoint of before: %v", err)
	}
}

// TestNoRedirectionIsFollowed has a witness send the server to an address of its choice.
func TestNoRedirectionIsFollowed(t *testing.T) {
	key, err := timeline.NewWitnessKey("w.example")
	must(t, err)
	db := logOf(t, filepath.Join(t.TempDir(), "db"), 10)
	for _, status := range []int{http.StatusMovedPermanently, http.StatusTemporaryRedirect} {
		asked := false
		inside := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
		s := newSubmitter(t, db, policyOf(t, key.Verifier, func(to http.ResponseWriter, r *http.Request) {
			http.Redirect(to, r, inside, status)
		}))
		s.HTTP = nil
		if kept := hostile(t, s); asked || kept.Problem == "" {
			t.Errorf("%d: %+v, asked inside: %t", status, kept, asked)
		}
	}
}

// TestAWitnessThatWasClosedCosignsNothing asks one whose directory another process may have by now.
func TestAWitnessThatWasClosedCosignsNothing(t *testing.T) {
	db := logOf(t, filepath.Join(t.TempDir(), "db"), 10)
	w, err := witness.Open(t.TempDir(), "w.example", []string{db.Timeline().LogVerifier()},
		slog.New(slog.DiscardHandler))
	must(t, err)
	w.Close()
	if line, err := w.Add("old 0\n\n" + checkpoint(t, db)); err == nil || line != "" {
		t.Errorf("%q, %v", line, err)
	}
	answer := httptest.NewRecorder()
	w.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodPost, witness.Path,
		strings.NewReader("old 0\n\n"+checkpoint(t, db))))
	if answer.Code != http.StatusInternalServerError {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
}

// TestAWitnessIsMadeInSteps ends making one before its key is there, and reads a state that says nothing.
func TestAWitnessIsMadeInSteps(t *testing.T) {
	db := logOf(t, filepath.Join(t.TempDir(), "db"), 10)
	open := func(dir string) (*witness.Witness, error) {
		return witness.Open(dir, "w.example", []string{db.Timeline().LogVerifier()}, slog.New(slog.DiscardHandler))
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "seen.json"), []byte("{}\n"), 0o600))
	w, err := open(dir)
	must(t, err)
	if _, err := w.Add("old 0\n\n" + checkpoint(t, db)); err != nil {
		t.Error(err)
	}
	w.Close()
	must(t, os.WriteFile(filepath.Join(dir, "seen.json"), []byte("null\n"), 0o600))
	if _, err := open(dir); err == nil {
		t.Error("a witness that lost what it saw")
	}
}

// TestAWitnessFollowsTheKeysOfALog gives a witness what log.vkey has before, while and after a log's key is
// followed by another.
func TestAWitnessFollowsTheKeysOfALog(t *testing.T) {
	db, dir := logOf(t, filepath.Join(t.TempDir(), "db"), 10), t.TempDir()
	cosigned := func(signed string) error {
		t.Helper()
		w, err := witness.Open(dir, "w.example", []string{db.Timeline().LogVerifier()}, slog.New(slog.DiscardHandler))
		must(t, err)
		defer w.Close()
		key, err := timeline.NewWitness(w.Key())
		must(t, err)
		keys, err := timeline.ParseKeys(db.Timeline().LogVerifier())
		must(t, err)
		c := witness.Client{URL: serve(t, w.Handler()), Key: key, HTTP: http.DefaultClient}
		_, err = c.Add(t.Context(), db.Timeline(), keys, 0, signed)
		return err
	}
	first := checkpoint(t, db)
	must(t, cosigned(first))
	must(t, second(db.Timeline().NewLogKey(t.Context())))
	must(t, cosigned(checkpoint(t, db)))
	must(t, db.Timeline().RetireLogKey(t.Context()))
	must(t, cosigned(checkpoint(t, db)))
	grow(t, db, 20)
	must(t, cosigned(checkpoint(t, db)))
	if err := cosigned(first); err == nil {
		t.Error("what a retired key signed is cosigned")
	}
}

func second[T any](_ T, err error) error { return err }
