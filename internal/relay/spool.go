package relay

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
)

// SpoolConfig says where a spool is and how large it grows.
type SpoolConfig struct {
	Dir string
	// MaxBytes bounds what waits on disk, 64 MiB if zero, at least 64 KiB. Beyond
	// it the oldest events are dropped, an eighth of it at a time.
	MaxBytes int64
}

// Validate reports what is wrong with the configuration.
func (c SpoolConfig) Validate() error {
	if c.Dir == "" {
		return postern.Errorf(postern.Invalid, "a spool needs a directory")
	}
	if c.MaxBytes != 0 && c.MaxBytes < 64<<10 {
		return postern.Errorf(postern.Invalid, "a spool of %d bytes is too small: at least 65536", c.MaxBytes)
	}
	return nil
}

// Spool keeps events on disk, in files of JSON lines named by the number of
// their first event, until they are acknowledged. It is safe for concurrent
// use. Every event gets a number, also one that cannot be written or is dropped: the
// receiver sees by the gaps how many are missing.
type Spool struct {
	c    SpoolConfig
	id   string
	lock *os.File

	mu       sync.Mutex
	next     int64     // number of the next event
	segments []segment // oldest first; the last is written to
	active   *os.File
	wake     chan struct{}
}

type segment struct {
	first int64
	bytes int64
}

const (
	agentFile = "agent.id"
	suffix    = ".jsonl"
)

// OpenSpool opens the spool in a directory, which is made. A second process is
// refused.
func OpenSpool(c SpoolConfig) (*Spool, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 64 << 20
	}
	s := &Spool{c: c, next: 1, wake: make(chan struct{}, 1)}
	if err := s.open(); err != nil {
		s.Close()
		if _, ok := errors.AsType[*postern.Error](err); ok {
			return nil, err
		}
		return nil, postern.Errorf(postern.Unavailable, "open the spool: %w", err)
	}
	return s, nil
}

func (s *Spool) open() error {
	if err := os.MkdirAll(s.c.Dir, 0o700); err != nil {
		return err
	}
	if err := s.identify(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.c.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		first, err := strconv.ParseInt(strings.TrimSuffix(e.Name(), suffix), 10, 64)
		if err != nil || !strings.HasSuffix(e.Name(), suffix) || first < 1 {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		s.segments = append(s.segments, segment{first, info.Size()})
	}
	slices.SortFunc(s.segments, func(a, b segment) int { return int(min(max(a.first-b.first, -1), 1)) })
	if len(s.segments) == 0 {
		return s.begin()
	}
	return s.resume()
}

// identify reads the spool's random name, or makes it, and locks the spool.
func (s *Spool) identify() (err error) {
	path := filepath.Join(s.c.Dir, agentFile)
	if s.lock, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if system.TryLock(s.lock) != nil {
		return postern.Errorf(postern.Conflict, "another agent uses the spool in %s", s.c.Dir)
	}
	b, err := io.ReadAll(io.LimitReader(s.lock, 100))
	if err != nil {
		return err
	}
	if s.id = strings.TrimSpace(string(b)); validAgent(s.id) {
		return nil
	}
	var id [16]byte
	rand.Read(id[:])
	s.id = hex.EncodeToString(id[:])
	if err := s.lock.Truncate(0); err != nil {
		return err
	}
	if _, err := s.lock.WriteAt([]byte(s.id+"\n"), 0); err != nil {
		return err
	}
	return s.lock.Sync()
}

// resume goes on in the last file, without a line that was cut short.
func (s *Spool) resume() error {
	last := &s.segments[len(s.segments)-1]
	f, err := os.OpenFile(s.path(last.first), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	s.active, s.next = f, last.first
	last.bytes = 0
	in := bufio.NewReaderSize(f, maxLine+1)
	for read := int64(0); ; {
		line, err := in.ReadSlice('\n')
		read += int64(len(line))
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
		last.bytes = read
		// A damaged line keeps its number: later ones may have been sent.
		var n Numbered
		if json.Unmarshal(line, &n) == nil && n.Seq >= s.next {
			s.next = n.Seq + 1
		}
	}
	if err := f.Truncate(last.bytes); err != nil {
		return err
	}
	_, err = f.Seek(last.bytes, io.SeekStart)
	return err
}

func (s *Spool) path(first int64) string {
	return filepath.Join(s.c.Dir, fmt.Sprintf("%019d%s", first, suffix))
}

// begin starts a new file, whose name is the next number.
func (s *Spool) begin() error {
	f, err := os.OpenFile(s.path(s.next), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(s.c.Dir); err != nil {
		f.Close()
		return err
	}
	if s.active != nil {
		if err := errors.Join(s.active.Sync(), s.active.Close()); err != nil {
			f.Close()
			return err
		}
	}
	s.active = f
	s.segments = append(s.segments, segment{first: s.next})
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Append gives an event its number and writes it, without waiting for the disk:
// see [Spool.Sync]. If it fails, the event is lost and its number remains.
func (s *Spool) Append(e postern.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.next++ }()
	line, err := json.Marshal(Numbered{s.next, e})
	if err != nil {
		return err
	}
	if line = append(line, '\n'); len(line) > maxLine {
		return fmt.Errorf("an event of %d bytes", len(line))
	}
	if err := s.makeSpace(int64(len(line))); err != nil {
		return err
	}
	last := &s.segments[len(s.segments)-1]
	if _, err := s.active.WriteAt(line, last.bytes); err != nil {
		return errors.Join(err, s.active.Truncate(last.bytes))
	}
	last.bytes += int64(len(line))
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// makeSpace begins a new file if need be and drops the oldest ones until n more bytes
// fit.
func (s *Spool) makeSpace(n int64) error {
	if last := s.segments[len(s.segments)-1]; last.bytes > 0 && last.bytes+n > s.c.MaxBytes/8 {
		if err := s.begin(); err != nil {
			return err
		}
	}
	total := n
	for _, seg := range s.segments {
		total += seg.bytes
	}
	for total > s.c.MaxBytes && len(s.segments) > 1 {
		total -= s.segments[0].bytes
		if err := s.remove(); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes the oldest file.
func (s *Spool) remove() error {
	if err := os.Remove(s.path(s.segments[0].first)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.segments = s.segments[1:]
	return nil
}

// Sync returns when all that was appended is on disk.
func (s *Spool) Sync() error {
	s.mu.Lock()
	f, err := system.Duplicate(s.active)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Batch returns the oldest events from number from on, at most limit and as many
// as a batch may hold.
func (s *Spool) Batch(from int64, limit int) ([]Numbered, error) {
	s.mu.Lock()
	segments := slices.Clone(s.segments)
	s.mu.Unlock()
	var batch []Numbered
	size := 0
	for i, seg := range segments {
		if i+1 < len(segments) && segments[i+1].first <= from {
			continue
		}
		text, err := readUpTo(s.path(seg.first), seg.bytes)
		if errors.Is(err, os.ErrNotExist) {
			continue // dropped meanwhile
		}
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(text) {
			var n Numbered
			if json.Unmarshal(line, &n) != nil || n.Seq < from {
				continue // damaged: its number is missing, and counted
			}
			if size += len(line); len(batch) == limit || size > maxBatchBytes/2 && len(batch) > 0 {
				return batch, nil
			}
			batch = append(batch, n)
		}
	}
	return batch, nil
}

func readUpTo(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}

// Ack deletes what was acknowledged up to and including number seq, a file at a
// time. What is left of it is sent again after a restart, and not counted twice.
func (s *Spool) Ack(seq int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.segments[len(s.segments)-1]
	if seq == s.next-1 && last.bytes > 16<<10 {
		if err := s.begin(); err != nil {
			return err
		}
	}
	for len(s.segments) > 1 && s.segments[1].first <= seq+1 {
		if err := s.remove(); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the spool; what is in it stays.
func (s *Spool) Close() error {
	var err error
	if s.active != nil {
		err = errors.Join(s.active.Sync(), s.active.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}
