package posterntest

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Logged calls read with what sshd logs inside, and with the process that wrote
// it, until the test ends. The host must have been started with LoginLog.
func (h *Host) Logged(t testing.TB, read func(pid int, message string)) {
	t.Helper()
	h.Chmod(t, "syslog", 0o666)
	if err := passCredentials(h.Syslog); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf, oob := make([]byte, 16<<10), make([]byte, 256)
		for {
			n, oobn, _, _, err := h.Syslog.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			tag, message, ok := bytes.Cut(buf[:n], []byte(": ")) // <PRI>Mmm dd hh:mm:ss sshd[PID]: MESSAGE
			if ok && bytes.Contains(tag, []byte(" sshd")) {
				read(sender(oob[:oobn]), string(bytes.TrimRight(message, "\x00\n")))
			}
		}
	})
	t.Cleanup(func() {
		h.Syslog.Close()
		wg.Wait()
	})
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

// sender returns the process that sent a datagram, 0 if that is not known.
func sender(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if c, err := unix.ParseUnixCredentials(&m); err == nil {
			return int(c.Pid)
		}
	}
	return 0
}
