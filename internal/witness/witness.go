package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Files of a witness's state directory.
const (
	keyFile  = "witness.key"  // the private key
	vkeyFile = "witness.vkey" // the public key
	seenFile = "seen.json"    // the last checkpoint of each log
)

// Witness cosigns checkpoints of logs, each if it is consistent with the last one that it
// cosigned. That one is on disk before an answer is sent. It is safe for concurrent use.
type Witness struct {
	dir    string
	key    *timeline.Cosigner
	logs   map[string]timeline.Keys // by origin
	log    *slog.Logger
	unlock func()

	mu     sync.Mutex
	seen   map[string]string // the last checkpoint of each log, cosigned
	closed bool              // another process may have the directory
}

// Open opens a witness's state directory, or makes one for a witness of that name. The
// name may be "" for one that is there. logs are the public keys of the logs that it
// watches, as [timeline.ParseKeys] reads them. It fails with [postern.Conflict] while another process has it open.
func Open(dir, name string, logs []string, log *slog.Logger) (w *Witness, err error) {
	w = &Witness{dir: dir, logs: map[string]timeline.Keys{}, log: log, seen: map[string]string{}}
	for _, key := range logs {
		v, err := timeline.ParseKeys(key)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "%.80q is not the public key of a log", key).
				WithHint("it is NAME+HASH+KEY, as in the log's log.vkey")
		}
		if _, twice := w.logs[v.Name()]; twice {
			return nil, postern.Errorf(postern.Invalid, "the log %s is named twice", v.Name()).
				WithHint("where one key follows another, name the file that has both")
		}
		w.logs[v.Name()] = v
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, postern.Errorf(postern.Unavailable, "make the witness's directory: %w", err)
	}
	if w.unlock, err = lock(dir); err != nil {
		return nil, err
	}
	if err := w.load(name); err != nil {
		w.unlock()
		return nil, err
	}
	return w, nil
}

// Close lets another process open the directory. Nothing is cosigned afterwards.
func (w *Witness) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.unlock()
}

// Key returns the witness's public key.
func (w *Witness) Key() string { return w.key.String() }

// load reads the key and what the witness saw. A new key is made only where nothing is.
func (w *Witness) load(name string) error {
	text, err := os.ReadFile(filepath.Join(w.dir, seenFile))
	fresh := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !fresh:
		return postern.Errorf(postern.Unavailable, "read what the witness saw: %w", err)
	case !fresh:
		if err := json.Unmarshal(text, &w.seen); err != nil || w.seen == nil {
			return postern.Errorf(postern.Internal, "what the witness saw cannot be read: %v", err).
				WithHint("restore %s: without it the witness would cosign an older log", seenFile)
		}
	}
	secret, err := durable.ReadSecret(filepath.Join(w.dir, keyFile))
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(w.seen) == 0: // nothing was cosigned with any key
		return w.create(name)
	case err != nil:
		return postern.Errorf(postern.Unavailable, "read the witness's key: %w", err)
	case fresh:
		return postern.Errorf(postern.Internal, "the witness has a key, and not what it saw").
			WithHint("restore %s: without it the witness would cosign an older log", seenFile)
	}
	w.key, err = timeline.NewCosigner(strings.TrimSpace(string(secret)), time.Now)
	if err == nil && name != "" && w.key.Name() != name {
		return postern.Errorf(postern.Conflict, "the witness in %s is %s", w.dir, w.key.Name())
	}
	return err
}

func (w *Witness) create(name string) error {
	key, err := timeline.NewWitnessKey(name)
	if err != nil {
		return err
	}
	if w.key, err = timeline.NewCosigner(key.Secret, time.Now); err != nil {
		return err
	}
	// What it saw is there before the key is: a key without it was never used.
	if err := w.write(); err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(w.dir, vkeyFile), []byte(key.Verifier+"\n"), 0o644); err != nil {
		return err
	}
	return durable.Create(filepath.Join(w.dir, keyFile), []byte(key.Secret+"\n"), 0o600)
}

func (w *Witness) write() error {
	text, err := json.MarshalIndent(w.seen, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(w.dir, seenFile), append(text, '\n'), 0o600)
}

// Handler serves POST /add-checkpoint, and GET /HASH/checkpoint with the last checkpoint of
// the log whose origin has that SHA-256.
func (w *Witness) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, w.add)
	mux.HandleFunc("GET /{hash}/checkpoint", w.last)
	return mux
}

func (w *Witness) last(to http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for origin, signed := range w.seen {
		hash := sha256.Sum256([]byte(origin))
		if hex.EncodeToString(hash[:]) == r.PathValue("hash") {
			to.Header().Set("Content-Type", "text/plain; charset=utf-8")
			to.Header().Set("Cache-Control", "no-cache")
			_, _ = io.WriteString(to, signed)
			return
		}
	}
	http.Error(to, "no checkpoint of such a log was cosigned", http.StatusNotFound)
}

// refusal is why a checkpoint is not cosigned.
type refusal struct {
	status int
	why    string
	size   int64 // that the witness cosigned last, for StatusConflict
}

func (r *refusal) Error() string { return r.why }

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status: status, why: fmt.Sprintf(format, args...)}
}

func (w *Witness) add(to http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(to, r.Body, maxRequest))
	if err != nil {
		http.Error(to, "the request cannot be read, or is too long", http.StatusBadRequest)
		return
	}
	line, err := w.Add(string(body))
	var no *refusal
	switch {
	case err == nil:
		to.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(to, line)
	case !errors.As(err, &no):
		w.log.ErrorContext(r.Context(), "a checkpoint is not cosigned", slog.Any(postern.LogError, err))
		http.Error(to, "the checkpoint cannot be cosigned now", http.StatusInternalServerError)
	case no.status == http.StatusConflict:
		to.Header().Set("Content-Type", sizeType)
		to.WriteHeader(http.StatusConflict)
		fmt.Fprintln(to, no.size)
	default:
		http.Error(to, no.why, no.status)
	}
}

// Add returns the line with the witness's signature of the checkpoint in the body of a
// request of add-checkpoint.
func (w *Witness) Add(body string) (string, error) {
	r, err := parseRequest(body)
	if err != nil {
		return "", refuse(http.StatusBadRequest, "%v", err)
	}
	origin, _, _ := strings.Cut(r.signed, "\n")
	v, known := w.logs[origin]
	if !known {
		return "", refuse(http.StatusNotFound, "this witness does not watch the log %.80q", origin)
	}
	n, err := note.Open([]byte(r.signed), v.InUse())
	if err != nil {
		return "", refuse(http.StatusForbidden, "the checkpoint is not signed by the log's key")
	}
	c, err := timeline.OpenLatest(r.signed, v)
	if err != nil {
		return "", refuse(http.StatusBadRequest, "%v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return "", postern.Errorf(postern.Unavailable, "the witness was closed")
	}
	if err := w.check(r, c); err != nil {
		return "", err
	}
	return w.cosign(n, c)
}

// check checks that the checkpoint is consistent with the last one. The caller holds the
// lock.
func (w *Witness) check(r request, c timeline.Checkpoint) error {
	var was timeline.Checkpoint
	if signed := w.seen[c.Origin]; signed != "" {
		n, err := note.Open([]byte(signed), note.VerifierList(w.key))
		if err != nil {
			return fmt.Errorf("the last checkpoint of %s: %w", c.Origin, err)
		}
		if was, err = timeline.ParseCheckpoint(n.Text); err != nil {
			return fmt.Errorf("the last checkpoint of %s: %w", c.Origin, err)
		}
	}
	if r.older > c.Size {
		return refuse(http.StatusBadRequest, "the log had %d entries, and has %d", r.older, c.Size)
	}
	if r.older != was.Size {
		if c.Size < was.Size {
			w.alarm(c, was)
		}
		return &refusal{http.StatusConflict, "another size was cosigned", was.Size}
	}
	if err := consistent(r.proof, c, was); err != nil {
		w.alarm(c, was)
		return refuse(http.StatusUnprocessableEntity, "the checkpoint is not consistent with the last one: %v", err)
	}
	return nil
}

// alarm says that a log signed a tree that the last one is not part of, or could not prove
// that it is.
func (w *Witness) alarm(c, was timeline.Checkpoint) {
	w.log.Warn("a log signed a checkpoint that is not consistent with the last one",
		slog.String(postern.LogID, c.Origin), slog.String(postern.LogReason, fmt.Sprintf(
			"the last one was of %d entries; the root of %d entries is %s", was.Size, c.Size, c.Root)))
}

func consistent(proof tlog.TreeProof, c, was timeline.Checkpoint) error {
	switch {
	case was.Size == 0 && len(proof) > 0:
		return errors.New("a proof from an empty tree is empty")
	case was.Size == 0 && c.Size == 0 && c.Root != new(timeline.Tree).Root():
		return errors.New("not the root of an empty tree")
	case was.Size == 0:
		return nil
	}
	return tlog.CheckTree(proof, c.Size, c.Root, was.Size, was.Root)
}

// cosign signs a checkpoint that was checked, and keeps it. The caller holds the lock.
func (w *Witness) cosign(n *note.Note, c timeline.Checkpoint) (string, error) {
	line, err := w.key.Cosign(n.Text)
	if err != nil {
		return "", err
	}
	log := n.Sigs[0] // of one of the log's keys
	signed := fmt.Sprintf("%s\n— %s %s\n%s", n.Text, log.Name, log.Base64, line)
	last := w.seen[c.Origin]
	if strings.HasPrefix(last, n.Text+"\n") { // the same once more: nothing is to be remembered
		w.seen[c.Origin] = signed
		return line, nil
	}
	w.seen[c.Origin] = signed
	if err := w.write(); err != nil {
		w.seen[c.Origin] = last
		return "", err
	}
	return line, nil
}

// lock locks a directory for one witness.
func lock(dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "lock the witness's directory: %w", err)
	}
	if err := system.TryLock(f); err != nil {
		f.Close()
		return nil, postern.Errorf(postern.Conflict, "another process is the witness in %s", dir)
	}
	return func() { f.Close() }, nil
}
