package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// SSHLogin returns the sshd process that a process descends from, the one that
// serves its connection.
func SSHLogin(pid int) (int, bool) {
	for depth := 0; pid > 1 && depth < 64; depth++ {
		if strings.HasPrefix(File(pid, "comm"), "sshd") {
			return pid, true
		}
		parent, err := strconv.Atoi(Stat(pid, 4))
		if err != nil {
			return 0, false
		}
		pid = parent
	}
	return 0, false
}

// Listeners returns the sshd processes of this host that listen for
// connections: those whose parent is no sshd, and that neither serve one themselves nor
// only examine their configuration. Those of containers are other hosts'.
func Listeners() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	here, _ := os.Readlink("/proc/self/ns/pid")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || File(pid, "comm") != "sshd" {
			continue
		}
		if there, err := os.Readlink("/proc/" + e.Name() + "/ns/pid"); err == nil && there != here {
			continue
		}
		title := File(pid, "cmdline")
		parent, err := strconv.Atoi(Stat(pid, 4))
		if err == nil && User(pid) == 0 && !Serves(title) && !examines(title) && (strings.Contains(title, Listening) ||
			File(parent, "comm") != "sshd") {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Listening is in the title of an sshd that listens, behind its arguments.
const Listening = " [listener] "

// examines reports whether a title is that of an sshd which says whether it would take its
// configuration, or what that means, and ends (sshd(8), -G, -T, -t).
func examines(title string) bool {
	return slices.ContainsFunc(strings.Split(title, "\x00"), func(argument string) bool {
		return argument == "-G" || argument == "-T" || argument == "-t"
	})
}

// Serves reports whether a title is that of an sshd that serves a connection.
func Serves(title string) bool {
	return (strings.HasPrefix(title, "sshd: ") || strings.HasPrefix(title, "sshd-session: ")) &&
		!strings.Contains(title, Listening)
}

// Login returns the process that owns the login which pid takes part
// in. sshd asks PAM for a code in a child of its own, titled "[pam]"; the
// parent is the process that sshd logs by and that the session descends from.
func Login(pid int) int {
	if strings.HasSuffix(File(pid, "cmdline"), "[pam]") {
		if ppid, err := strconv.Atoi(Stat(pid, 4)); err == nil {
			return ppid
		}
	}
	return pid
}

// answer is what is known of a process that may have ended.
type answer int

// The answers; the zero answer is that the process has ended.
const (
	gone answer = iota
	Yes
	No
)

// Serving reports whether a process is root's sshd that serves a connection of
// an account. No process of another user can make itself look like one.
func Serving(pid int, account string) answer {
	comm, title := File(pid, "comm"), File(pid, "cmdline") // sshd: ACCOUNT [priv]
	if title == "" {
		return gone // or about to be
	}
	_, rest, _ := strings.Cut(title, ": ")
	name, _, _ := strings.Cut(rest, " [")
	if strings.HasPrefix(comm, "sshd") && User(pid) == 0 && (name == account || name == "unknown") {
		return Yes
	}
	return No
}

// Command returns the command that an sshd was started with, its -o and -f, and
// the file of its configuration, from its title, "sshd: /usr/sbin/sshd -D
// [listener] 0 of 10-100 startups", or its arguments as older ones leave them.
func Command(title string) (command []string, file string, err error) {
	words := strings.Split(title, "\x00")
	if rest, ok := strings.CutPrefix(title, "sshd: "); ok {
		rest, _, _ = strings.Cut(rest, Listening)
		words = strings.Fields(rest)
	}
	if !filepath.IsAbs(words[0]) {
		return nil, "", errors.New("its listening process shows no arguments")
	}
	command, file = words[:1:1], hostconf.ConfigFile
	for words = words[1:]; len(words) > 0; words = words[1:] {
		cluster, ok := strings.CutPrefix(words[0], "-")
		for i := 0; ok && i < len(cluster); i++ {
			flag := cluster[i]
			if strings.IndexByte("46DQRTdeiqrtGV", flag) >= 0 {
				continue
			}
			ok = strings.IndexByte("CEbcfghkopu", flag) >= 0
			value := cluster[i+1:]
			if value == "" && len(words) > 1 {
				words = words[1:]
				value = words[0]
			}
			switch flag {
			case 'f':
				file = value
			case 'o':
				command = append(command, "-o", value)
			}
			break
		}
		if !ok {
			return nil, "", fmt.Errorf("%q among its arguments", words[0])
		}
	}
	if !filepath.IsAbs(file) {
		return nil, "", fmt.Errorf("its file %q is relative", file)
	}
	return append(command, "-f", file), file, nil
}
