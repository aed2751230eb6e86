package sshd

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
)

// noSession is what the kernel says of a process without an audit session.
const noSession = "4294967295"

// machine names this host and its boot in links.
type machine struct{ host, boot string }

func thisMachine(host string) machine {
	if host == "" {
		host, _ = os.Hostname()
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return machine{host: host, boot: strings.TrimSpace(string(boot))}
}

// links returns what identifies the process pid now: itself, and the audit
// session that it runs in, which pam_loginuid gave it and its children keep.
// A process that is gone has no links.
func (m machine) links(pid int) []postern.Link {
	var links []postern.Link
	if start := startTime(pid); start != "" {
		links = append(links, postern.Link{Kind: postern.LinkProcess, ID: fmt.Sprintf("%s/%s/%d/%s", m.host, m.boot, pid, start)})
	}
	if session := procFile(pid, "sessionid"); session != "" && session != noSession {
		links = append(links, postern.Link{Kind: postern.LinkSession, ID: fmt.Sprintf("%s/%s/%s", m.host, m.boot, session)})
	}
	return links
}

// loginProcess returns the process that owns the login which pid takes part
// in. sshd asks PAM for a code in a child of its own, titled "[pam]"; the
// parent is the process that sshd logs by and that the session descends from.
func loginProcess(pid int) int {
	if strings.HasSuffix(procFile(pid, "cmdline"), "[pam]") {
		if ppid, err := strconv.Atoi(statField(pid, 4)); err == nil {
			return ppid
		}
	}
	return pid
}

// answer is yes, no, or that there is nobody to ask any more.
type answer int

const (
	gone answer = iota
	yes
	no
)

// serving reports whether a process is root's sshd that serves a connection of
// an account. No process of another user can make itself look like one.
func serving(pid int, account string) answer {
	comm, title := procFile(pid, "comm"), procFile(pid, "cmdline") // sshd: ACCOUNT [priv]
	if title == "" {
		return gone // or about to be
	}
	_, rest, _ := strings.Cut(title, ": ")
	name, _, _ := strings.Cut(rest, " [")
	if strings.HasPrefix(comm, "sshd") && processUser(pid) == 0 && (name == account || name == "unknown") {
		return yes
	}
	return no
}

// startTime returns when a process started, clock ticks since boot, or "".
func startTime(pid int) string { return statField(pid, 22) }

// statField returns a field of /proc/PID/stat, counted from 1 as in proc(5), or
// "". Fields 1 and 2, the pid and the name, are not to be had.
func statField(pid, n int) string {
	stat := procFile(pid, "stat")
	// The name may hold spaces and parentheses: count from the last one.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if n < 3 || n-3 >= len(fields) {
		return ""
	}
	return fields[n-3]
}

// procFile returns what a file of /proc/PID says, or "".
func procFile(pid int, name string) string {
	if pid <= 0 {
		return ""
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	return string(bytes.TrimRight(b, "\x00\n "))
}
