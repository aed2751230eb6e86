package state_test

import (
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
)

func TestPasswordOfADatabaseIsSeen(t *testing.T) {
	for text, has := range map[string]bool{
		"postgres://postern@db/postern":                false,
		"postgres://postern:secret@db/postern":         true,
		"postgres://postern@db/postern?password=x":     true,
		"postgres://postern@db/postern?sslpassword=x":  true,
		"host=db user=postern":                         false,
		"host=db user=postern passfile=/etc/pgpass":    false,
		"host=db password=secret":                      true,
		"password = 'a secret' host=db":                true,
		"host=db sslmode=verify-full sslpassword=x":    true,
		"postgres://postern:sec@ret:@[db/postern?a=%x": true, // cannot be parsed
	} {
		if got := state.HasPassword(text); got != has {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestOnlyPostgreSQLIsChosenForAState(t *testing.T) {
	for _, text := range []string{"mysql://db/postern", "postern.db", "hots=db dbname=postern"} {
		if err := state.UseDatabase(t.TempDir(), text); postern.CodeOf(err) != postern.Invalid ||
			postern.HintOf(err) == "" {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := state.UseDatabase(t.TempDir(), "host=db dbname=postern"); err != nil {
		t.Error(err)
	}
}
