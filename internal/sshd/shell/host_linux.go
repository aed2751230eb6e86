package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/syslog"
	"os"

	"github.com/postern-project/postern"
	"golang.org/x/sys/unix"
)

// ask asks on the terminal, whose settings are restored.
func (s Shell) ask(ctx context.Context) (string, error) {
	fd := int(s.Stdin.Fd())
	terminal, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	silent := *terminal
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return "", err
	}
	fmt.Fprint(s.Stdout, Prompt)
	code, err := readLine(ctx, s.Stdin)
	fmt.Fprintln(s.Stdout)
	return code, errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETSF, terminal))
}

// lineMax bounds what may be typed, bytes.
const lineMax = 256

// readLine reads to the end of a line and not a byte further: what follows is
// for whom the shell becomes. Being interrupted, or the end, is an error.
func readLine(ctx context.Context, in *os.File) (string, error) {
	var line []byte
	one := make([]byte, 1)
	for {
		if err := readable(ctx, in); err != nil {
			return "", err
		}
		n, err := unix.Read(int(in.Fd()), one)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil || n == 0:
			return "", postern.Errorf(postern.Denied, "no code was typed")
		case one[0] == '\n':
			return string(bytes.TrimRight(line, "\r")), nil
		case len(line) == lineMax:
			return "", postern.Errorf(postern.Denied, "that is no code")
		}
		line = append(line, one[0])
	}
}

// readable waits until in can be read, and fails when ctx ends first.
func readable(ctx context.Context, in *os.File) error {
	for {
		if ctx.Err() != nil {
			return postern.Errorf(postern.Denied, "no code was typed in time, or it was interrupted")
		}
		// Signals end ctx from another thread: look again soon.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}, 100)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// LogAuth writes to the log where sshd's own refusals go, if there is one.
func LogAuth(ok bool, message string) {
	priority := syslog.LOG_NOTICE
	if ok {
		priority = syslog.LOG_INFO
	}
	if w, err := syslog.New(syslog.LOG_AUTHPRIV|priority, "postern-shell"); err == nil {
		_, _ = fmt.Fprint(w, message)
		w.Close()
	}
}
