package witness_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/internal/witness"
	"github.com/postern-project/postern/timeline"
	fnote "github.com/transparency-dev/formats/note"
	otherclient "github.com/transparency-dev/witness/client/http"
	"github.com/transparency-dev/witness/config"
	"github.com/transparency-dev/witness/persistence/inmemory"
	other "github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logOf returns a store whose timeline has that many entries.
func logOf(t testing.TB, file string, size int64) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: file, Key: storetest.Key})
	must(t, err)
	t.Cleanup(func() { db.Close() })
	grow(t, db, size)
	return db
}

// grow appends entries until there are so many.
func grow(t testing.TB, db *store.DB, size int64) {
	t.Helper()
	now, err := db.Timeline().LogSize(t.Context())
	must(t, err)
	var events []postern.Event
	for i := now; i < size; i++ {
		events = append(events, postern.Event{Kind: postern.EventSignedIn, Object: fmt.Sprintf("/%d/%s", i, db.Now())})
	}
	must(t, db.Append(t.Context(), events...))
}

func verifier(t testing.TB, db *store.DB) note.Verifier {
	t.Helper()
	v, err := note.NewVerifier(db.Timeline().LogVerifier())
	must(t, err)
	return v
}

func checkpoint(t testing.TB, db *store.DB) (signed string) {
	t.Helper()
	must(t, db.Timeline().ReadLog(t.Context(), func(ctx context.Context, a timeline.Archive) error {
		s, err := a.State(ctx)
		signed = s.Checkpoint
		return err
	}))
	return signed
}

// serve serves a handler and returns its URL.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// ours starts our witness for a log.
func ours(t testing.TB, dir string, db *store.DB) (w *witness.Witness, url string) {
	t.Helper()
	w, err := witness.Open(dir, "our.example/w", []string{db.Timeline().LogVerifier()}, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(w.Close)
	return w, serve(t, w.Handler())
}

// others starts the witness of another implementation for a log.
func others(t testing.TB, db *store.DB) (key, url string) {
	t.Helper()
	secret, public, err := note.GenerateKey(nil, "other.example/w")
	must(t, err)
	signer, err := fnote.NewSignerForCosignatureV1(secret)
	must(t, err)
	v := verifier(t, db)
	logs := inmemory.New()
	must(t, logs.AddLogs(t.Context(), []config.Log{{Origin: v.Name(), Verifier: v}}))
	w, err := other.New(t.Context(), other.Opts{
		Persistence: logs, Signers: []note.Signer{signer},
		VerifierForLog: func(_ context.Context, origin string) (note.Verifier, bool, error) {
			return v, origin == v.Name(), nil
		},
	})
	must(t, err)
	key, err = fnote.VKeyToCosignatureV1(public)
	must(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", other.NewHTTPHandler(w).AddCheckpoint)
	return key, serve(t, mux)
}

// submitter has a log's checkpoints cosigned, and keeps what is recorded of witnesses.
type submitter struct {
	*witness.Submitter
	mu       sync.Mutex
	problems map[string]string
}

func newSubmitter(t testing.TB, db *store.DB, policy string) *submitter {
	t.Helper()
	p, err := timeline.ParsePolicy([]byte(policy))
	must(t, err)
	s := &submitter{problems: map[string]string{}}
	s.Submitter = &witness.Submitter{
		Log: db.Timeline(), Store: db.Timeline(), Policy: p, HTTP: http.DefaultClient,
		Verifier: func() (note.Verifier, error) { return note.NewVerifier(db.Timeline().LogVerifier()) },
		Record: func(_ context.Context, name, problem string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.problems[name] = problem
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	return s
}

func TestWitnessesOfTwoImplementationsCosignTheLog(t *testing.T) {
	db := logOf(t, storetest.URL(t), 70)
	w, ourURL := ours(t, t.TempDir(), db)
	otherKey, otherURL := others(t, db)
	policy := "witness ours " + w.Key() + " " + ourURL + "\nwitness other " + otherKey + " " + otherURL +
		"\ngroup both all ours other\nquorum both\nlog " + db.Timeline().LogVerifier() + "\n"
	s := newSubmitter(t, db, policy)
	for _, size := range []int64{70, 71, 300, 5000} {
		grow(t, db, size)
		must(t, s.Round(t.Context()))
		signed, err := db.Timeline().Cosigned(t.Context())
		must(t, err)
		c, err := timeline.OpenCheckpoint(signed, verifier(t, db))
		must(t, err)
		by, enough, err := s.Policy.Cosigned(signed)
		if err != nil || !enough || len(by) != 2 || c.Size != size {
			t.Fatalf("%d entries: %v %v %v %v", size, c, by, enough, err)
		}
	}
	kept, err := db.Timeline().Witnesses(t.Context())
	if err != nil || len(kept) != 2 || kept[0].Size != 5000 || kept[0].Problem != "" || kept[0].Time.IsZero() {
		t.Errorf("%+v %v", kept, err)
	}
	if len(s.problems) != 2 || s.problems["ours"]+s.problems["other"] != "" {
		t.Errorf("%v", s.problems)
	}

	// A proof has the signatures of the witnesses, also when the log has grown, and is checked
	// without the log and without them.
	grow(t, db, 5100)
	proof, err := db.Timeline().ProveEvent(t.Context(), 17)
	must(t, err)
	p, err := timeline.ParsePolicy([]byte(policy))
	must(t, err)
	if c, err := p.CheckProof(asJSON(t, proof)); err != nil || len(c.Cosigned) != 2 || c.Event.Index != 17 {
		t.Errorf("%v, %v", c, err)
	}
	unwitnessed, err := db.Timeline().ProveEvent(t.Context(), 5050)
	must(t, err)
	if _, err := p.CheckProof(asJSON(t, unwitnessed)); postern.CodeOf(err) != postern.Denied {
		t.Errorf("an entry that no witness saw is proved: %v", err)
	}
	if _, err := timeline.CheckProof(asJSON(t, unwitnessed), db.Timeline().LogVerifier()); err != nil {
		t.Errorf("without witnesses: %v", err)
	}
}

func TestAnotherClientIsAnsweredAsTheProtocolSays(t *testing.T) {
	db := logOf(t, storetest.URL(t), 10)
	w, at := ours(t, t.TempDir(), db)
	u, err := url.Parse(at)
	must(t, err)
	client := otherclient.NewWitness(u, http.DefaultClient)
	first := checkpoint(t, db)
	lines, _, err := client.Update(t.Context(), 0, []byte(first), nil)
	must(t, err)
	key, err := fnote.NewVerifier(w.Key())
	must(t, err)
	if _, err := note.Open([]byte(first+string(lines)), note.VerifierList(key)); err != nil {
		t.Errorf("the cosignature is not valid: %v", err)
	}

	grow(t, db, 20)
	second := checkpoint(t, db)
	if _, known, err := client.Update(t.Context(), 0, []byte(second), nil); !errors.Is(err,
		other.ErrCheckpointStale) ||
		known != 10 {
		t.Errorf("from another size: %d, %v", known, err)
	}
	if _, _, err := client.Update(t.Context(), 10, []byte(second), nil); !errors.Is(err, other.ErrInvalidProof) {
		t.Errorf("without a proof: %v", err)
	}
	if _, _, err := client.Update(t.Context(), 30, []byte(second), nil); !errors.Is(err, other.ErrOldSizeInvalid) {
		t.Errorf("from a larger size: %v", err)
	}
	unknown := logOf(t, filepath.Join(t.TempDir(), "db"), 5)
	if _, _, err := client.Update(t.Context(), 0, []byte(checkpoint(t, unknown)), nil); !errors.Is(err,
		other.ErrUnknownLog) {
		t.Errorf("an unknown log: %v", err)
	}
	forged := strings.Replace(second, "\n20\n", "\n21\n", 1)
	if _, _, err := client.Update(t.Context(), 10, []byte(forged), nil); !errors.Is(err, other.ErrNoValidSignature) {
		t.Errorf("a changed checkpoint: %v", err)
	}
	if _, _, err := client.Update(t.Context(), 10, []byte(second), growth(t, db, 10, 20)); err != nil {
		t.Errorf("with a proof: %v", err)
	}
}

func growth(t testing.TB, db *store.DB, older, newer int64) (proof [][]byte) {
	t.Helper()
	must(t, db.Timeline().ReadLog(t.Context(), func(ctx context.Context, a timeline.Archive) error {
		hashes, err := timeline.ProveGrowth(ctx, a, older, newer)
		proof = nil
		for _, h := range hashes {
			proof = append(proof, h[:])
		}
		return err
	}))
	return proof
}

// TestAForkIsSeen has one timeline go on in two ways, as after a restore without a word to the witness.
func TestAForkIsSeen(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	db := logOf(t, a, 40)
	must(t, db.Close())
	text, err := os.ReadFile(a)
	must(t, err)
	must(t, os.WriteFile(b, text, 0o600))
	db = logOf(t, a, 50)
	w, at := ours(t, filepath.Join(dir, "w"), db)
	otherKey, otherURL := others(t, db)
	policy := "witness ours " + w.Key() + " " + at + "\nwitness other " + otherKey + " " + otherURL + "\nquorum ours\n"
	must(t, newSubmitter(t, db, policy).Round(t.Context()))

	for name, size := range map[string]int64{"shorter": 45, "of another kind": 60} {
		forked := newSubmitter(t, logOf(t, b, size), policy)
		must(t, forked.Round(t.Context()))
		for _, witnessed := range []string{"ours", "other"} {
			if p := forked.problems[witnessed]; !strings.Contains(p, witness.ErrFork.Error()) {
				t.Errorf("a log that is %s: %s says %q", name, witnessed, p)
			}
		}
		if signed, err := logOf(t, b, 0).Timeline().Cosigned(t.Context()); err != nil || signed != "" {
			t.Errorf("a log that is %s has the checkpoint %q, %v", name, signed, err)
		}
	}
}

func TestAWitnessRemembersWhatItSaw(t *testing.T) {
	dir := t.TempDir()
	db := logOf(t, filepath.Join(t.TempDir(), "db"), 10)
	v, discard := db.Timeline().LogVerifier(), slog.New(slog.DiscardHandler)
	w, err := witness.Open(dir, "our.example", []string{v}, discard)
	must(t, err)
	if _, err := witness.Open(dir, "", []string{v}, discard); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("two have one directory: %v", err)
	}
	first := "old 0\n\n" + checkpoint(t, db)
	if _, err := w.Add(first); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := witness.Open(dir, "another.example", []string{v}, discard); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("it has another name: %v", err)
	}
	w, err = witness.Open(dir, "", []string{v}, discard)
	must(t, err)
	grow(t, db, 12)
	if _, err := w.Add("old 0\n\n" + checkpoint(t, db)); err == nil {
		t.Error("a witness that was started again cosigns without a proof")
	}
	w.Close()

	// Without what it saw it would cosign anything.
	must(t, os.Remove(filepath.Join(dir, "seen.json")))
	if _, err := witness.Open(dir, "", []string{v}, discard); err == nil || postern.HintOf(err) == "" {
		t.Errorf("a witness that lost what it saw: %v", err)
	}
}

func TestAnotherClientReadsTheLogAsTiles(t *testing.T) {
	const size = 700 // two full bundles, and a part of one
	db := logOf(t, storetest.URL(t), size)
	reader := false
	at := serve(t, witness.Tiles("/timeline/", witness.TilesConfig{
		Log: db.Timeline(), Logger: slog.New(slog.DiscardHandler),
		Tree: func(*http.Request) bool { return true }, Entries: func(*http.Request) bool { return reader },
	}))
	fetch, err := torchwood.NewTileFetcher(at + "/timeline/")
	must(t, err)
	signed, err := fetch.ReadEndpoint(t.Context(), "checkpoint")
	must(t, err)
	c, err := timeline.OpenCheckpoint(string(signed), verifier(t, db))
	must(t, err)
	client, err := torchwood.NewClient(fetch)
	must(t, err)
	tree := tlog.Tree{N: c.Size, Hash: c.Root}
	if _, _, err := client.Entry(t.Context(), tree, 3); err == nil {
		t.Error("who may not read entries has one")
	}
	if _, err := torchwood.TileHashReaderWithContext(t.Context(), tree, fetch).
		ReadHashes([]int64{tlog.StoredHashIndex(0, 3)}); err != nil {
		t.Errorf("who may read the tree only: %v", err)
	}

	reader = true
	next := int64(0)
	for next < size {
		start := next
		for i, text := range client.Entries(t.Context(), tree, next) {
			e, err := timeline.Decode(text)
			if err != nil || i != next || e.Index != i {
				t.Fatalf("entry %d: %v, %v", i, e, err)
			}
			next++
		}
		must(t, client.Err())
		if next == start {
			t.Fatalf("%d entries were read", next)
		}
	}
	if _, proof, err := client.Entry(t.Context(), tree, 650); err != nil || len(proof) == 0 {
		t.Errorf("%v", err)
	}
	for path, want := range map[string]int{
		"checkpoint": 200, "tile/0/000": 200, "tile/0/002.p/188": 200, "tile/1/000.p/2": 200, "tile/0/002": 404,
		"tile/0/002.p/189": 404, "tile/0/999": 404, "tile/7/000": 404, "tile/0/x1/000": 404,
		"tile/entries/002.p/3": 200,
		"tile/entries/002":     404, "tile/data/000": 404, "": 404, "tile/-1/000": 404,
	} {
		answer, err := http.Get(at + "/timeline/" + path)
		must(t, err)
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: %s", path, answer.Status)
		}
		if cached := strings.Contains(answer.Header.Get("Cache-Control"), "immutable"); cached != (want == 200 &&
			path != "checkpoint") {
			t.Errorf("%s: %s", path, answer.Header.Get("Cache-Control"))
		}
	}
}

// TestAWitnessThatDoesNotAnswerAsItShould holds nobody up and has nothing taken from it.
func TestAWitnessThatDoesNotAnswerAsItShould(t *testing.T) {
	db := logOf(t, filepath.Join(t.TempDir(), "db"), 10)
	key, err := timeline.NewWitnessKey("w.example")
	must(t, err)
	elsewhere, err := timeline.NewWitnessKey("w.example")
	must(t, err)
	forger, err := timeline.NewCosigner(elsewhere.Secret, time.Now)
	must(t, err)
	text, _, _ := strings.Cut(checkpoint(t, db), "\n\n")
	forged, err := forger.Cosign(text + "\n")
	must(t, err)
	for name, answer := range map[string]http.HandlerFunc{
		"nothing":       func(http.ResponseWriter, *http.Request) {},
		"another's key": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, forged) },
		"too much":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1<<20)) },
		"a failure": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
		},
		"the same again": conflict("0"), "sizes that change": conflictAtRandom(), "no size": conflict("many"),
	} {
		v, err := timeline.NewWitness(key.Verifier)
		must(t, err)
		c := witness.Client{URL: serve(t, answer), Key: v, HTTP: http.DefaultClient}
		signed, err := c.Add(t.Context(), db.Timeline(), verifier(t, db), 0, checkpoint(t, db))
		if postern.CodeOf(err) != postern.Unavailable || signed != "" {
			t.Errorf("%s: %q, %v", name, signed, err)
		}
	}
}

func conflict(size string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintln(w, size)
	}
}

func conflictAtRandom() http.HandlerFunc {
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		n++
		conflict(fmt.Sprint(n))(w, r)
	}
}

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return text
}
