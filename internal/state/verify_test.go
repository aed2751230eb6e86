package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

func TestAVerificationKeepsItsCheckpoint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := Create(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first, err := s.VerifyLog(t.Context())
	if err != nil || len(first.Problems) > 0 || first.Size == 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	file := filepath.Join(dir, "log.checkpoint")
	if kept, err := os.ReadFile(file); err != nil || string(kept) != first.Checkpoint {
		t.Errorf("kept %q: %v", kept, err)
	}
	if err := s.Store.Timeline().Append(t.Context(), postern.Event{
		Kind: postern.EventPersonAdded, Outcome: postern.OK,
		Person: "alice",
	}); err != nil {
		t.Fatal(err)
	}
	second, err := s.VerifyLog(t.Context(), first.Checkpoint)
	if err != nil || len(second.Problems) > 0 || second.Size != first.Size+1 {
		t.Fatalf("%+v, %v", second, err)
	}

	// A log that is shorter than what was verified is not what it was, and the
	// checkpoint that shows it stays.
	longer, err := Create(t.Context(), filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer longer.Close()
	foreign, err := longer.VerifyLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(foreign.Checkpoint), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.VerifyLog(t.Context()); postern.CodeOf(err) != postern.Invalid ||
		!strings.Contains(err.Error(), "the earlier ") {
		t.Errorf("a checkpoint of another log: %v", err)
	}
	if kept, err := os.ReadFile(file); err != nil || string(kept) != foreign.Checkpoint {
		t.Errorf("it was replaced: %v", err)
	}
}

func TestAnUnreadableCheckpointIsNotIgnored(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := Create(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Mkdir(filepath.Join(dir, "log.checkpoint"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.VerifyLog(t.Context()); postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("%v", err)
	}
}
