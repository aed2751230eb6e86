// Package process says what /proc knows of this host's processes, sshd's among
// them: who runs them, since when, and which login they belong to. On other systems
// than Linux it knows of none.
package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
)

// clockTick is USER_HZ, which the kernel's interface fixes at 100.
const clockTick = 100

// StartedAt returns when a process started, seconds since boot.
func StartedAt(pid int) float64 {
	ticks, _ := strconv.ParseFloat(startTime(pid), 64)
	return ticks / clockTick
}

// Uptime returns how long the kernel has run, in seconds; 0 if it does not say.
func Uptime() float64 {
	b, _ := os.ReadFile("/proc/uptime")
	first, _, _ := strings.Cut(string(b), " ")
	s, _ := strconv.ParseFloat(first, 64)
	return s
}

// User returns the user that a process runs as, -1 if it is gone. The
// owner of its directory would be root for one that changed its user, as sshd
// does.
func User(pid int) int {
	for line := range strings.Lines(File(pid, "status")) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(ids); len(f) == 4 {
				if uid, err := strconv.Atoi(f[1]); err == nil {
					return uid
				}
			}
		}
	}
	return -1
}

// noSession is what the kernel says of a process without an audit session.
const noSession = "4294967295"

// Machine names this host and its boot in links.
type Machine struct{ host, Boot string }

// This returns the machine that the program runs on, by a host name, or by its own
// where that is empty.
func This(host string) Machine {
	if host == "" {
		host, _ = os.Hostname()
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return Machine{host: host, Boot: strings.TrimSpace(string(boot))}
}

// Links returns what identifies the process pid now: itself, and the audit
// session that it runs in, which pam_loginuid gave it and its children keep.
// A process that is gone has no links.
func (m Machine) Links(pid int) []postern.Link {
	var links []postern.Link
	if start := startTime(pid); start != "" {
		links = append(links, postern.Link{
			Kind: postern.LinkProcess,
			ID:   fmt.Sprintf("%s/%s/%d/%s", m.host, m.Boot, pid, start),
		})
	}
	if session := File(pid, "sessionid"); session != "" && session != noSession {
		links = append(links, postern.Link{
			Kind: postern.LinkSession,
			ID:   fmt.Sprintf("%s/%s/%s", m.host, m.Boot, session),
		})
	}
	return links
}

// Login returns the link of a login with the nonce of its question about a code.
func (m Machine) Login(nonce []byte) postern.Link {
	return postern.Link{Kind: postern.LinkLogin, ID: fmt.Sprintf("%s/%x", m.host, nonce)}
}

// startTime returns when a process started, clock ticks since boot, or "".
func startTime(pid int) string { return Stat(pid, 22) }

// Stat returns a field of /proc/PID/stat, counted from 1 as in proc(5), or
// "". Fields 1 and 2, the pid and the name, are not to be had.
func Stat(pid, n int) string {
	stat := File(pid, "stat")
	// The name may hold spaces and parentheses: count from the last one.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if n < 3 || n-3 >= len(fields) {
		return ""
	}
	return fields[n-3]
}

// File returns what a file of /proc/PID says, or "".
func File(pid int, name string) string {
	if pid <= 0 {
		return ""
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	return string(bytes.TrimRight(b, "\x00\n "))
}
