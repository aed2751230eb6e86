package sshd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Beside returns the channels that sshd leaves open beside a ForceCommand for a
// connection, given as sshd describes it in SSH_CONNECTION. It needs no
// privilege, but to read sshd's configuration; who cannot gets one finding,
// "gate-unreadable", that says so.
func Beside(ctx context.Context, user, connection string) []Finding {
	c := Case{User: user, Host: "unknown", Address: "0.0.0.0", LocalAddress: "0.0.0.0", LocalPort: "22"}
	if f := strings.Fields(connection); len(f) == 4 {
		c.Host, c.Address, c.LocalAddress, c.LocalPort = f[0], f[0], f[2], f[3]
	}
	key, err := throwawayKey()
	if err == nil {
		defer key.Close()
		var s settings
		// sshd closes what it inherits: let it open our copy.
		if s, err = effective(ctx, []string{"/usr/sbin/sshd", "-f", sshdConfigFile, "-h", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), key.Fd())}, c); err == nil {
			a := &audit{config: sshdConfigFile}
			a.directives, _ = a.hostFiles.directives(sshdConfigFile)
			return a.channelsBeside(door{c: c, s: s})
		}
	}
	return []Finding{{
		ID: "gate-unreadable", Severity: Critical, Title: "what sshd leaves open cannot be found out: " + err.Error(),
		Where: Line{File: sshdConfigFile}, Mend: "chmod go+r " + sshdConfigFile,
	}}
}

// throwawayKey returns an unnamed file with a fresh host key: sshd prints its
// configuration only if it has one, and the real ones are root's.
func throwawayKey() (*os.File, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("hostkey", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "hostkey")
	if err = f.Chmod(0o600); err == nil {
		_, err = f.Write(pem.EncodeToMemory(block))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
