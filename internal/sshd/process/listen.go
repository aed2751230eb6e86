package process

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Listens returns what tells one life of a listening process from the next, "" while
// it does not listen. An sshd that reads its configuration anew executes itself,
// which moves its stack, and opens its sockets again, unless systemd had passed
// them.
func Listens(pid int) string {
	sockets := listening(pid)
	if len(sockets) == 0 {
		return ""
	}
	return Stat(pid, 28) + " " + strings.Join(sockets, " ")
}

// listening returns the inodes of the TCP sockets on which a process listens, sorted.
func listening(pid int) (inodes []string) {
	all := map[string]bool{}
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		for line := range strings.Lines(File(pid, table)) {
			const listen = "0A" // TCP_LISTEN of include/net/tcp_states.h
			if f := strings.Fields(line); len(f) > 9 && f[3] == listen {
				all[f[9]] = true
			}
		}
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		target, _ := os.Readlink(dir + "/" + e.Name())
		inode := strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")
		if all[inode] && !slices.Contains(inodes, inode) {
			inodes = append(inodes, inode)
		}
	}
	slices.Sort(inodes)
	return inodes
}
