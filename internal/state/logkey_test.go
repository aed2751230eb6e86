package state_test

import (
	"testing"

	"github.com/postern-project/postern/internal/state"
)

// TestASilentServerLearnsOfTheNextKey has a command make the timeline's next key and retire the one before,
// while a server that writes nothing compares the database with its mark: it was not restored.
func TestASilentServerLearnsOfTheNextKey(t *testing.T) {
	dir := t.TempDir()
	server, err := state.Create(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	command, err := state.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer command.Close()
	if _, err := command.NewLogKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := command.RetireLogKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.CheckRestored(t.Context()); err != nil || server.Refusing() {
		t.Errorf("the server refuses codes: %v", err)
	}
}
