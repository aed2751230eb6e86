package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
)

// What a witness answers besides a cosignature.
var (
	// ErrFork says that the witness cosigned a tree that the log did not grow from, or a
	// longer one: the log was cut or written anew.
	ErrFork = errors.New("the log is not the one that the witness saw")
	// ErrUnknown says that the witness does not watch this log, or watches it with another key.
	ErrUnknown = errors.New("the witness does not know the log or its key")
)

// Client has one witness cosign checkpoints of a log.
type Client struct {
	URL  string // of the witness, without /add-checkpoint
	Key  *timeline.Witness
	HTTP *http.Client
}

// maxTries bounds how often the witness is asked for one cosignature: it answers first
// with the size that it knows.
const maxTries = 3

// Add returns the signed checkpoint of the log with the witness's cosignature. older is
// the size that the witness is known to have cosigned, 0 if that is not known. It fails
// with [ErrFork] and with [ErrUnknown], and with [postern.Unavailable] if the witness does
// not answer as the protocol says.
func (c *Client) Add(ctx context.Context, l Log, v note.Verifier, older int64, signed string) (string, error) {
	now, err := timeline.OpenCheckpoint(signed, v)
	if err != nil {
		return "", err
	}
	older = min(older, now.Size)
	for range maxTries {
		r := request{older: older, signed: signed}
		err := l.ReadLog(ctx, func(ctx context.Context, a timeline.Archive) (err error) {
			r.proof, err = timeline.ProveGrowth(ctx, a, older, now.Size)
			return err
		})
		if err != nil {
			return "", err
		}
		lines, known, err := c.post(ctx, r)
		switch {
		case err != nil:
			return "", err
		case known < 0:
			cosigned, err := timeline.AddCosignatures(signed, lines, c.Key)
			if err != nil {
				return "", unanswered("the witness's answer: %w", err)
			}
			return cosigned, nil
		case known > now.Size:
			return "", beyond(ctx, l, known)
		case known == older && older == now.Size:
			return "", fmt.Errorf("%w: it cosigned another tree of %d entries", ErrFork, known)
		case known == older:
			return "", unanswered("the witness asks for a proof from the size that it was sent one from")
		}
		older = known
	}
	return "", unanswered("the witness names another size each time")
}

// beyond is the error about a witness that cosigned more entries than were submitted: another server of the
// same log may have had it cosign them.
func beyond(ctx context.Context, l Log, known int64) error {
	return l.ReadLog(ctx, func(ctx context.Context, a timeline.Archive) error {
		s, err := a.State(ctx)
		switch {
		case err != nil:
			return err
		case known <= s.Size:
			return unanswered("the log has grown since, and the witness has cosigned %d entries", known)
		}
		return fmt.Errorf("%w: it cosigned %d entries, more than there are", ErrFork, known)
	})
}

func unanswered(format string, args ...any) error {
	return postern.Errorf(postern.Unavailable, format, args...)
}

// post returns the lines of the witness's signatures, or the size that it knows instead
// of the one that was sent, else -1.
func (c *Client) post(ctx context.Context, r request) (lines string, known int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+Path,
		strings.NewReader(r.String()))
	if err != nil {
		return "", -1, postern.Errorf(postern.Invalid, "the witness's URL: %w", err)
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	answer, err := c.HTTP.Do(req)
	if err != nil {
		return "", -1, unanswered("ask the witness: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", -1, unanswered("read the witness's answer: %w", err)
	case len(body) > maxAnswer:
		return "", -1, unanswered("the witness's answer is longer than %d bytes", maxAnswer)
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return string(body), -1, nil
	case http.StatusConflict:
		if answer.Header.Get("Content-Type") != sizeType {
			return "", r.older, nil // of that size it cosigned another tree
		}
		known, err := timeline.ParseSize(strings.TrimSuffix(string(body), "\n"))
		if err != nil {
			return "", -1, unanswered("the witness does not name the size that it cosigned")
		}
		return "", known, nil
	case http.StatusUnprocessableEntity:
		return "", -1, fmt.Errorf("%w: it cosigned %d entries that the log's entries do not begin with", ErrFork,
			r.older)
	case http.StatusNotFound, http.StatusForbidden:
		return "", -1, ErrUnknown
	}
	return "", -1, unanswered("the witness answers with status %d", answer.StatusCode)
}
