package timeline

import (
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Witnessed is what a witness said last about a log.
type Witnessed struct {
	Name       string    `json:"name"`
	Key        string    `json:"key"`               // NAME+HASH+KEY
	Size       int64     `json:"size"`              // of the log when the witness cosigned it last; 0: it never did
	Time       time.Time `json:"time,omitzero"`     // when that was, by the witness's clock
	Problem    string    `json:"problem,omitempty"` // why it has not cosigned since
	Checkpoint string    `json:"-"`                 // signed by the log and the witness
}

// Check checks that the witness cosigned what is kept of it: that its checkpoint is signed by
// the log, with the key v verifies, and by the witness, and says the same size and time.
func (w Witnessed) Check(v note.Verifier) error {
	if w.Size == 0 {
		return nil // it vouches for nothing
	}
	c, err := OpenCheckpoint(w.Checkpoint, v)
	if err != nil {
		return err
	}
	key, err := NewWitness(w.Key)
	if err != nil {
		return err
	}
	times, err := Cosignatures(w.Checkpoint, key)
	if err != nil {
		return err
	}
	if at, cosigned := times[key.Name()]; !cosigned || !at.Equal(w.Time) || c.Size != w.Size {
		return fmt.Errorf("the witness %s did not cosign %d entries at %s", w.Name, w.Size, w.Time)
	}
	return nil
}

// String says in a sentence up to where the witness vouches for the log.
func (w Witnessed) String() string {
	text := fmt.Sprintf("the witness %s has not cosigned yet", w.Name)
	if w.Size > 0 {
		text = fmt.Sprintf("the witness %s vouches for the first %d entries, as they were at %s", w.Name, w.Size,
			w.Time.UTC().Format(time.RFC3339))
	}
	if w.Problem != "" {
		text += "; now: " + w.Problem
	}
	return text
}
