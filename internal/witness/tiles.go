// Package witness speaks the protocols between a log and those who watch it, as C2SP
// specifies them: it serves a log as tiles (tlog-tiles), has its checkpoints cosigned by
// witnesses, and is a witness itself (tlog-witness).
package witness

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Log is a log that is read.
type Log interface {
	// ReadLog calls f with the log as it is at one moment.
	ReadLog(ctx context.Context, f func(ctx context.Context, a timeline.Archive) error) error
	// Cosigned returns the last checkpoint that enough witnesses cosigned, "" if there is none.
	Cosigned(ctx context.Context) (string, error)
}

// TilesConfig says who may read a log.
type TilesConfig struct {
	Log Log
	// Tree reports whether a request may read the checkpoint and the hashes of the tree, and
	// Entries whether it may read the entries, too.
	Tree, Entries func(r *http.Request) bool
	// Cosigned has the checkpoint served that enough witnesses cosigned, once there is one.
	Cosigned bool
	Logger   *slog.Logger
}

// Tiles serves a log below a prefix that ends with a slash: PREFIXcheckpoint,
// PREFIXtile/0/000, PREFIXtile/entries/000.
func Tiles(prefix string, c TilesConfig) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, prefix)
		may := c.Tree
		if strings.HasPrefix(path, "tile/entries/") {
			may = c.Entries
		}
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the timeline is only read", http.StatusMethodNotAllowed)
		case !may(r):
			http.Error(w, "this is not for you", http.StatusForbidden)
		case path == "checkpoint":
			c.checkpoint(w, r)
		default:
			c.tile(w, r, path)
		}
	})
}

// checkpoint serves the checkpoint, which changes with each entry.
func (c *TilesConfig) checkpoint(w http.ResponseWriter, r *http.Request) {
	signed, err := c.signed(r.Context())
	if err != nil {
		c.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = io.WriteString(w, signed)
}

func (c *TilesConfig) signed(ctx context.Context) (signed string, err error) {
	if c.Cosigned {
		if signed, err = c.Log.Cosigned(ctx); err != nil || signed != "" {
			return signed, err
		}
	}
	err = c.Log.ReadLog(ctx, func(ctx context.Context, a timeline.Archive) error {
		s, err := a.State(ctx)
		signed = s.Checkpoint
		return err
	})
	return signed, err
}

// tile serves a tile or a bundle of entries, which never change. What not everybody may
// read is kept by no shared cache.
func (c *TilesConfig) tile(w http.ResponseWriter, r *http.Request, path string) {
	t, err := timeline.ParseTilePath(path)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	var data []byte
	err = c.Log.ReadLog(r.Context(), func(ctx context.Context, a timeline.Archive) error {
		data, err = timeline.ReadTile(ctx, a, t)
		return err
	})
	if err != nil {
		c.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	_, _ = w.Write(data)
}

func (c *TilesConfig) fail(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Cache-Control", "no-store")
	switch postern.CodeOf(err) {
	case postern.NotFound:
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case postern.Unavailable:
		w.Header().Set("Retry-After", "2")
		http.Error(w, "the timeline cannot be read now", http.StatusServiceUnavailable)
	default:
		http.Error(w, "the timeline cannot be read", http.StatusInternalServerError)
	}
	if !errors.Is(err, context.Canceled) {
		c.Logger.ErrorContext(r.Context(), "the timeline is not served", slog.Any(postern.LogError, err))
	}
}
