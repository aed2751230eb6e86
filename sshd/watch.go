package sshd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/sys/unix"
)

// LogLine is one line of sshd's log.
type LogLine struct {
	PID     int // of the process that wrote it, as the logger's kernel knows it; 0: not known
	Time    time.Time
	Message string
}

// Patterns of sshd's messages (auth.c and session.c of OpenSSH, PAM's modules).
var (
	authLine = regexp.MustCompile(`^(Accepted|Failed|Partial) (\S+) for (invalid user )?(.*) from (\S+) port (\d+)(?: ssh2)?(?:: (.*))?$`)
	keyLine  = regexp.MustCompile(`^(\S+) (SHA256:[A-Za-z0-9+/]{43})$`)
	certLine = regexp.MustCompile(`^(\S+-CERT) (SHA256:[A-Za-z0-9+/]{43}) ID (.*) \(serial (\d+)\) CA (\S+) (SHA256:[A-Za-z0-9+/]{43})$`)
	openLine = regexp.MustCompile(`^pam_unix\(sshd:session\): session (opened|closed) for user ([^ (]+)`)
)

// logLineMax bounds a line that is looked at, bytes.
const logLineMax = 8 << 10

// ParseLogLine returns what a line of sshd's log tells of: an attempt to log in
// by one method, or a session that opens or closes. Most lines tell of neither.
func ParseLogLine(message string) (postern.Event, bool) {
	if len(message) > logLineMax {
		return postern.Event{}, false
	}
	message = strings.TrimSuffix(message, " [preauth]") // written by the part of sshd that has no privileges
	if m := openLine.FindStringSubmatch(message); m != nil {
		kind := map[string]string{"opened": postern.EventSSHOpened, "closed": postern.EventSSHClosed}[m[1]]
		return postern.Event{Kind: kind, Outcome: postern.OK, Object: printable(m[2]), Details: map[string]string{"source": "log"}}, true
	}
	m := authLine.FindStringSubmatch(message)
	if m == nil {
		return postern.Event{}, false
	}
	ev := postern.Event{
		Kind: postern.EventSSHAuth, Outcome: postern.OK, Address: m[5], Object: printable(m[4]),
		Details: map[string]string{"source": "log", "method": printable(m[2]), "port": m[6]},
	}
	switch m[1] {
	case "Failed":
		ev.Outcome, ev.Reason = postern.Refused, "sshd refused the method"
		if m[3] != "" {
			ev.Reason = "no such account"
		}
	case "Partial":
		ev.Details["step"] = "partial" // sshd wants another method, too
	}
	if c := certLine.FindStringSubmatch(m[7]); c != nil {
		ev.Links = append(ev.Links, postern.Link{Kind: string(postern.SSHCertificate), ID: c[4]}, postern.Link{Kind: string(postern.SSHKey), ID: c[2]})
		ev.Details["key_id"], ev.Details["ca"] = printable(c[3]), c[6]
	} else if k := keyLine.FindStringSubmatch(m[7]); k != nil {
		ev.Links = append(ev.Links, postern.Link{Kind: string(postern.SSHKey), ID: k[2]})
	}
	return ev, true
}

// ReadLog sends what sshd logs from now on, from where this host keeps it: the
// journal, else /var/log/auth.log or /var/log/secure. It fails with
// postern.NotFound if there is none of them.
func ReadLog(ctx context.Context, lines chan<- LogLine) error {
	if _, err := os.Stat("/run/systemd/journal"); err == nil {
		return ReadJournal(ctx, lines)
	}
	for _, path := range []string{"/var/log/auth.log", "/var/log/secure"} {
		if _, err := os.Stat(path); err == nil {
			return ReadFile(ctx, path, lines)
		}
	}
	return postern.Errorf(postern.NotFound, "this host keeps no log of sshd's that is known")
}

// Watcher puts on the timeline what sshd logs of who comes in, joined to the
// process and the audit session that whatever is run later descends from.
type Watcher struct {
	Record Recorder
	// Person returns who answers to a local account, "" for nobody.
	Person func(ctx context.Context, account string) string
	Log    *slog.Logger
	Host   string // names this host in links; empty means its hostname
	// Sessions makes it tell of sessions, too: not where pam_postern does.
	Sessions bool
}

// Watch writes events for the lines until the channel is closed or ctx ends.
func (w Watcher) Watch(ctx context.Context, lines <-chan LogLine) {
	m := thisMachine(w.Host)
	for {
		select {
		case <-ctx.Done():
			return
		case line, ok := <-lines:
			if !ok {
				return
			}
			ev, ok := ParseLogLine(line.Message)
			if !ok || ev.Kind != postern.EventSSHAuth && !w.Sessions {
				continue
			}
			ev.Time = line.Time.UTC()
			ev.Links = append(ev.Links, m.links(loginProcess(line.PID))...)
			ev.Person = w.Person(ctx, ev.Object)
			if err := w.Record.Append(ctx, ev); err != nil && ctx.Err() == nil {
				w.Log.ErrorContext(ctx, "an SSH login is not on the timeline", slog.Any(postern.LogError, err))
			}
		}
	}
}

// ReadJournal sends what sshd writes to systemd's journal from now on. The
// journal knows who wrote a line; only root's count, since anybody may claim to
// be sshd.
func ReadJournal(ctx context.Context, lines chan<- LogLine) error {
	cmd := exec.CommandContext(ctx, "journalctl", "--follow", "--lines=0", "--output=json", "--identifier=sshd", "--identifier=sshd-session", "_UID=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return postern.Errorf(postern.Unavailable, "journalctl: %w", err)
	}
	err = readJournal(ctx, out, lines)
	return errors.Join(err, cmd.Wait())
}

func readJournal(ctx context.Context, r io.Reader, lines chan<- LogLine) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 256<<10)
	for in.Scan() {
		line, ok := parseJournal(in.Bytes())
		if !ok {
			continue
		}
		select {
		case lines <- line:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return in.Err()
}

// parseJournal reads an entry of journalctl's JSON (systemd.journal-fields(7)).
// A message that is no text comes as an array of bytes and is left out.
func parseJournal(b []byte) (LogLine, bool) {
	var e struct {
		Message any    `json:"MESSAGE"`
		PID     string `json:"_PID"`
		UID     string `json:"_UID"`
		Time    string `json:"__REALTIME_TIMESTAMP"`
	}
	if json.Unmarshal(b, &e) != nil || e.UID != "0" {
		return LogLine{}, false
	}
	message, ok := e.Message.(string)
	pid, err := strconv.Atoi(e.PID)
	us, terr := strconv.ParseInt(e.Time, 10, 64)
	return LogLine{PID: pid, Time: time.UnixMicro(us), Message: message}, ok && err == nil && terr == nil
}

// ReadSyslog sends what sshd writes to a datagram socket such as /dev/log. The
// kernel says who wrote a line; only root's count.
func ReadSyslog(ctx context.Context, conn *net.UnixConn, lines chan<- LogLine) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := passCredentials(conn); err != nil {
		return err
	}
	buf, oob := make([]byte, logLineMax+256), make([]byte, 256)
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		pid, root := sender(oob[:oobn])
		message, ok := parseSyslog(buf[:n])
		if !ok || !root {
			continue
		}
		select {
		case lines <- LogLine{PID: pid, Time: time.Now(), Message: message}:
		case <-ctx.Done():
			return nil
		}
	}
}

func passCredentials(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var opErr error
	err = raw.Control(func(fd uintptr) { opErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	return errors.Join(err, opErr)
}

// sender returns the process that sent a datagram, and whether root did. File
// descriptors that came along are closed.
func sender(oob []byte) (pid int, root bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
		if c, err := unix.ParseUnixCredentials(&m); err == nil {
			pid, root = int(c.Pid), c.Uid == 0
		}
	}
	return pid, root
}

// parseSyslog returns the message of a line of sshd's in the form of syslog(3):
// <PRI>Mmm dd hh:mm:ss sshd[PID]: MESSAGE.
func parseSyslog(b []byte) (string, bool) {
	_, rest, ok := bytes.Cut(bytes.TrimRight(b, "\x00\n"), []byte(">"))
	const stamp = len("Nov 24 06:00:00 ")
	if !ok || len(rest) < stamp {
		return "", false
	}
	return taggedMessage(string(rest[stamp:]))
}

// taggedMessage splits "sshd[PID]: MESSAGE" and "sshd-session[PID]: MESSAGE".
func taggedMessage(s string) (string, bool) {
	tag, message, ok := strings.Cut(s, ": ")
	name, _, _ := strings.Cut(tag, "[")
	return message, ok && (name == "sshd" || name == "sshd-session")
}

// ReadFile sends what is appended to a log file such as /var/log/auth.log from
// now on, through its rotations. Nobody vouches for who wrote a line, but for
// the logger that made the file; the process's number is the line's own.
func ReadFile(ctx context.Context, path string, lines chan<- LogLine) error {
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
func followFile(ctx context.Context, f *os.File, partial *[]byte, lines chan<- LogLine) (int, error) {
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

var fileLine = regexp.MustCompile(`^(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) \S+ (sshd(?:-session)?\[(\d+)\]: .*)$`)

func parseFileLine(s string) (LogLine, bool) {
	m := fileLine.FindStringSubmatch(s)
	if m == nil {
		return LogLine{}, false
	}
	pid, err := strconv.Atoi(m[2])
	message, ok := taggedMessage(m[1])
	return LogLine{PID: pid, Time: time.Now(), Message: message}, ok && err == nil
}
