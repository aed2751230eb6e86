package timeline

import (
	"fmt"
	"time"
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
