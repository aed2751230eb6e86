package audit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/sshd/process"
	"github.com/postern-project/postern/internal/system"
	"golang.org/x/crypto/ssh"
)

// Beside returns the channels that sshd leaves open beside a ForceCommand, whose
// process is pid, for a connection given as sshd describes it in SSH_CONNECTION.
// It needs no privilege, but to read the configuration that this sshd was started
// with; where that cannot be known or read, it gets one finding,
// gate-unreadable, that says so.
func Beside(ctx context.Context, pid int, user, connection string) []Finding {
	c := hostconf.Case{User: user, Host: "unknown", Address: "0.0.0.0", LocalAddress: "0.0.0.0", LocalPort: "22"}
	if w := strings.Fields(connection); len(w) == 4 {
		c.Host, c.Address, c.LocalAddress, c.LocalPort = w[0], w[0], w[2], w[3]
	}
	f := Finding{ID: sshd.ConfigUnreadable, Severity: Critical}
	sshd, file, err := startedWith(pid)
	if err != nil {
		f.Title = "which configuration sshd uses cannot be found out: " + err.Error()
		f.Where = hostconf.Line{File: hostconf.ConfigFile}
		f.Fix = "have sshd listen by itself, not by a socket of systemd's or inetd's, and write its options without " +
			"blanks in them"
		return []Finding{f}
	}
	a := &audit{config: file}
	var s settings
	key, err := throwawayKeyFile()
	if err == nil {
		defer key.Close()
		// sshd closes what it inherits: let it open our copy.
		a.host = thisHost(append(sshd, "-h", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), key.Fd())))
		s, err = a.settings(ctx, c)
		defer a.close()
	}
	if err == nil {
		a.directives, err = a.Files.Directives(file)
	}
	if err != nil {
		f.Title = "what sshd leaves open cannot be found out: " + err.Error()
		f.Where = hostconf.Line{File: file}
		f.Fix = fmt.Sprintf("see what is wrong: sudo -u %s %s -T", user, strings.Join(sshd, " "))
		if m := refusedFile.FindStringSubmatch(err.Error()); m != nil {
			f.Where.File, f.Fix = m[1], "chmod go+r "+m[1]
		}
		return []Finding{f}
	}
	return a.channelsBeside(access{c: c, s: s})
}

// refusedFile finds the file that sshd may not read in what it says.
var refusedFile = regexp.MustCompile(`(/\S+): Permission denied`)

// startedWith returns the command that prints the configuration of the sshd whose
// connection a process descends from, and its file: the program with the -f and
// -o that its listening process was started with. That one shows them in its
// title.
func startedWith(pid int) (command []string, file string, err error) {
	for depth := 0; pid > 0 && depth < 64; depth++ { // 1 may be sshd, in a container
		title := process.File(pid, "cmdline")
		if strings.HasPrefix(process.File(pid, "comm"), "sshd") && process.User(pid) == 0 && !process.Serves(title) {
			return process.Command(title)
		}
		pid, _ = strconv.Atoi(process.Stat(pid, 4))
	}
	return nil, "", errors.New("no listening sshd is seen that it comes from")
}

// throwawayKey returns a fresh host key: sshd prints its configuration only if it
// has one.
func throwawayKey() ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}

// throwawayKeyFile returns an unnamed file with a fresh host key, where the real ones
// are root's.
func throwawayKeyFile() (*os.File, error) {
	key, err := throwawayKey()
	if err != nil {
		return nil, err
	}
	f, err := system.MemoryFile("hostkey")
	if err != nil {
		return nil, err
	}
	if err = f.Chmod(0o600); err == nil {
		_, err = f.Write(key)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
