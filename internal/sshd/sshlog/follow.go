package sshlog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/postern-project/postern"
)

// Follow sends what sshd logs from now on, from where this host keeps it: the
// journal, else /var/log/auth.log or /var/log/secure, until ctx ends. When it
// cannot be read any more, it calls notify once with the error and tries again, at
// growing intervals. It calls notify with nil when the log is read again, and at the
// beginning if lost is true. The error is postern.NotFound if there is no log.
func Follow(ctx context.Context, lines chan<- Line, lost bool, notify func(error)) {
	r := &logReader{lines: lines}
	persist(ctx, r.read, lost, notify)
}

// How soon what ended is tried again, at first and at last, and how long it has
// to run to count as settled.
const (
	againFirst = time.Second
	againLast  = 5 * time.Minute
	settled    = 10 * time.Second
)

// persist runs run again and again until ctx ends.
func persist(ctx context.Context, run func(context.Context) error, lost bool, notify func(error)) {
	warned := false
	for wait := againFirst; ctx.Err() == nil; wait = min(2*wait, againLast) {
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		var err error
		select {
		case err = <-done:
		case <-time.After(settled):
			wait = againFirst
			if lost {
				lost, warned = false, false
				notify(nil)
			}
			err = <-done
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = postern.Errorf(postern.Unavailable, "sshd's log came to an end")
		}
		if !warned {
			lost, warned = true, true
			notify(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// logReader reads a host's log of sshd's.
type logReader struct {
	lines  chan<- Line
	cursor string // the journal's, of the last entry that was read
}

func (r *logReader) read(ctx context.Context) error {
	if _, err := os.Stat("/run/systemd/journal"); err == nil {
		return r.readJournal(ctx)
	}
	for _, path := range []string{"/var/log/auth.log", "/var/log/secure"} {
		if _, err := os.Stat(path); err == nil {
			return readFile(ctx, path, r.lines)
		}
	}
	return postern.Errorf(postern.NotFound, "this host keeps no log of sshd's that is known")
}

// readJournal sends what sshd writes to systemd's journal from now on, or after
// the cursor, which it moves. The journal knows which user wrote a line; only root's are
// used, since any user may claim to be sshd.
func (r *logReader) readJournal(ctx context.Context) error {
	from := "--lines=0"
	if r.cursor != "" {
		from = "--after-cursor=" + r.cursor
	}
	cmd := exec.CommandContext(ctx, "journalctl", "--follow", from, "--output=json", "--identifier=sshd",
		"--identifier=sshd-session", "_UID=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return postern.Errorf(postern.Unavailable, "journalctl: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { out.Close() })
	defer stop()
	err = r.readEntries(ctx, out)
	return errors.Join(err, cmd.Wait())
}

func (r *logReader) readEntries(ctx context.Context, entries io.Reader) error {
	in := bufio.NewScanner(entries)
	in.Buffer(nil, 256<<10)
	for in.Scan() {
		line, cursor, ok := parseJournal(in.Bytes())
		if ok {
			select {
			case r.lines <- line:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if cursor != "" {
			r.cursor = cursor
		}
	}
	return in.Err()
}

// parseJournal reads an entry of journalctl's JSON (systemd.journal-fields(7)).
// A message that is no text comes as an array of bytes and is left out.
func parseJournal(b []byte) (line Line, cursor string, ok bool) {
	var e struct {
		Cursor  string `json:"__CURSOR"`
		Message any    `json:"MESSAGE"`
		PID     string `json:"_PID"`
		UID     string `json:"_UID"`
		Time    string `json:"__REALTIME_TIMESTAMP"`
	}
	if json.Unmarshal(b, &e) != nil || e.UID != "0" {
		return Line{}, "", false
	}
	message, ok := e.Message.(string)
	pid, err := strconv.Atoi(e.PID)
	us, terr := strconv.ParseInt(e.Time, 10, 64)
	return Line{PID: pid, Time: time.UnixMicro(us), Message: message}, e.Cursor, ok && err == nil && terr == nil
}

// readFile sends what is appended to a log file such as /var/log/auth.log from
// now on, through its rotations. It is not known which user wrote a line; the process's
// number is what the line says.
func readFile(ctx context.Context, path string, lines chan<- Line) error {
	var f *os.File
	defer func() { f.Close() }()
	var partial []byte
	start := io.SeekEnd
	for ctx.Err() == nil {
		if f == nil {
			var err error
			if f, err = os.Open(path); err == nil {
				_, err = f.Seek(0, start)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			start = io.SeekStart
		}
		n, err := followFile(ctx, f, &partial, lines)
		if err != nil {
			return err
		}
		if n == 0 {
			if rotated(f, path) {
				f.Close()
				f, partial = nil, nil
			}
			select {
			case <-ctx.Done():
			case <-time.After(250 * time.Millisecond):
			}
		}
	}
	return nil
}

// followFile sends the lines that were added and returns how many bytes there
// were.
func followFile(ctx context.Context, f *os.File, partial *[]byte, lines chan<- Line) (int, error) {
	if f == nil {
		return 0, nil
	}
	buf := make([]byte, 32<<10)
	n, err := f.Read(buf)
	if err != nil && err != io.EOF {
		return n, err
	}
	*partial = append(*partial, buf[:n]...)
	for {
		line, rest, ok := bytes.Cut(*partial, []byte("\n"))
		if !ok {
			if len(*partial) > logLineMax {
				*partial = nil
			}
			return n, nil
		}
		*partial = rest
		if l, ok := parseFileLine(string(line)); ok {
			select {
			case lines <- l:
			case <-ctx.Done():
				return n, nil
			}
		}
	}
}

// rotated reports whether path is another file by now, or shorter than what was
// read.
func rotated(f *os.File, path string) bool {
	if f == nil {
		return false
	}
	now, err := os.Stat(path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	was, err := f.Stat()
	if err != nil {
		return true
	}
	at, _ := f.Seek(0, io.SeekCurrent)
	return !os.SameFile(now, was) || now.Size() < at
}

var fileLine = regexp.MustCompile(
	`^(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) \S+ sshd(?:-session)?\[(\d+)\]: (.*)$`)

func parseFileLine(s string) (Line, bool) {
	m := fileLine.FindStringSubmatch(s)
	if m == nil {
		return Line{}, false
	}
	pid, err := strconv.Atoi(m[1])
	return Line{PID: pid, Time: time.Now(), Message: m[2], Unverified: true}, err == nil
}
