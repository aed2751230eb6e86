package export

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
)

// cursor says how far an export is. It is a JSON file.
type cursor struct {
	Next int64     `json:"next"`          // index of the entry that is sent next
	Time time.Time `json:"time,omitzero"` // of the entry before, by which it is known again

	path string
	lock *os.File // beside path, which is replaced
}

// openCursor reads a cursor and locks it. Where there is none yet it begins at from.
func openCursor(path string, from int64) (*cursor, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "the cursor cannot be locked: %w", err)
	}
	c := &cursor{path: path, lock: lock}
	if err := system.TryLock(lock); err != nil {
		c.close()
		return nil, postern.Errorf(postern.Conflict, "another export uses the cursor %s", path).
			WithHint("end it, or give each export a cursor of its own")
	}
	if err := c.load(from); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *cursor) load(from int64) error {
	text, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		c.Next = from
		return nil
	}
	if err != nil {
		return postern.Errorf(postern.Unavailable, "read the cursor: %w", err)
	}
	if err := json.Unmarshal(text, c); err != nil || c.Next <= 0 || c.Time.IsZero() {
		return postern.Errorf(postern.Invalid, "the cursor %s is damaged", c.path).
			WithHint("export to a new cursor file, from the entry that the receiver should have next")
	}
	return nil
}

// advance moves the cursor behind an entry. It is on disk when advance returns.
func (c *cursor) advance(e postern.Event) error {
	c.Next, c.Time = e.Index+1, e.Time
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := durable.Replace(c.path, append(text, '\n'), 0o600); err != nil {
		return postern.Errorf(postern.Unavailable, "write the cursor: %w", err)
	}
	return nil
}

func (c *cursor) close() { _ = c.lock.Close() }
