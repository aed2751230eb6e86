//go:build linux

package inflight

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// notAccepted returns the clients that have connected to a daemon which has not accepted
// them: at its largest number of clients it accepts nobody, and they hang.
func (v *view) notAccepted() []Client {
	pid := v.daemon.PID
	own, err := sockets(pid)
	if err != nil {
		return nil
	}
	var clients []Client
	for _, remote := range pendingTCP(pid, own) {
		clients = append(clients, Client{Remote: remote})
	}
	if !sameNamespace(pid, "net") {
		return clients // the kernel is asked for the sockets of this one
	}
	waiting := map[string]bool{}
	for _, inode := range pendingUnix(own) {
		waiting[inode] = true
	}
	for _, p := range holders(waiting) {
		clients = append(clients, *clientOf(v.inspector.Process(p.pid, p.uid)))
	}
	return clients
}

// pendingTCP returns the addresses of connections to a process's listening sockets that
// it has not accepted: those have no inode yet. See proc_net_tcp.txt of the kernel.
func pendingTCP(pid int, own map[string]bool) (remotes []string) {
	var ports []string
	var waiting [][2]string
	for _, file := range []string{"tcp", "tcp6"} {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, file)) // without IPv6 there is no tcp6
		for line := range strings.Lines(string(b)) {
			const local, remote, state, inode = 1, 2, 3, 9
			f := strings.Fields(line)
			if len(f) <= inode {
				continue
			}
			_, port, _ := strings.Cut(f[local], ":")
			switch {
			case f[state] == "0A" && own[f[inode]]: // TCP_LISTEN
				ports = append(ports, port)
			case f[state] == "01" && f[inode] == "0": // TCP_ESTABLISHED
				waiting = append(waiting, [2]string{port, hexAddress(f[remote])})
			}
		}
	}
	for _, w := range waiting {
		if slices.Contains(ports, w[0]) {
			remotes = append(remotes, w[1])
		}
	}
	return remotes
}

// hexAddress turns an address as /proc/net/tcp has it, in words of the machine's order,
// into libvirt's form.
func hexAddress(s string) string {
	ip, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(ip)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b)%4 != 0 {
		return ""
	}
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
	}
	addr, _ := netip.AddrFromSlice(b)
	return fmt.Sprintf("%s;%d", addr.Unmap(), n)
}

// Of unix_diag(7), include/uapi/linux/unix_diag.h.
const (
	sockDiagByFamily = 20
	showIcons        = 8 // UDIAG_SHOW_ICONS
	iconsAttribute   = 3 // UNIX_DIAG_ICONS
	diagMessage      = 16
	listens          = 10 // TCP_LISTEN, for all families
)

// pendingUnix returns the inodes of the clients' sockets that wait for one of these
// listening sockets to accept them: sock_diag(7) tells.
func pendingUnix(own map[string]bool) (inodes []string) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	const size = 16 + 24
	b := binary.NativeEndian.AppendUint32(nil, size)
	b = binary.NativeEndian.AppendUint16(b, sockDiagByFamily)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...)
	b = append(b, unix.AF_UNIX, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 1<<listens)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, showIcons)
	b = append(b, make([]byte, 8)...)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil
	}
	answer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, answer, 0)
		if err != nil || n == 0 {
			return inodes
		}
		more, done := icons(answer[:n], own)
		if inodes = append(inodes, more...); done {
			return inodes
		}
	}
}

// icons reads an answer of sock_diag: of these sockets, the inodes of those that wait.
// done reports whether it is the last.
func icons(b []byte, own map[string]bool) (inodes []string, done bool) {
	u32 := binary.NativeEndian.Uint32
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(u32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			return inodes, true
		}
		message := b[unix.SizeofNlMsghdr:n]
		kind := binary.NativeEndian.Uint16(b[4:])
		if kind == unix.NLMSG_DONE || kind == unix.NLMSG_ERROR {
			return inodes, true
		}
		if len(message) >= diagMessage && own[strconv.Itoa(int(u32(message[4:])))] {
			for _, inode := range attribute(message[diagMessage:], iconsAttribute) {
				inodes = append(inodes, strconv.Itoa(int(inode)))
			}
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return inodes, false
}

// attribute returns the numbers in an attribute of netlink's.
func attribute(b []byte, kind uint16) (numbers []uint32) {
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return numbers
		}
		if binary.NativeEndian.Uint16(b[2:]) == kind {
			for v := b[unix.SizeofNlAttr:n]; len(v) >= 4; v = v[4:] {
				numbers = append(numbers, binary.NativeEndian.Uint32(v))
			}
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return numbers
}

// owner is a process that has a socket.
type owner struct{ pid, uid int }

// holders returns the processes that have one of these sockets, each once.
func holders(inodes map[string]bool) (found []owner) {
	if len(inodes) == 0 {
		return nil
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		have, _ := sockets(pid) // one that may not be looked into, or has ended
		for inode := range have {
			if inodes[inode] {
				found = append(found, owner{pid, uidOf(pid)})
			}
		}
	}
	slices.SortFunc(found, func(a, b owner) int { return cmp.Compare(a.pid, b.pid) })
	return found
}

// uidOf returns a process's effective user, or -1.
func uidOf(pid int) int {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid), &st) != nil {
		return -1
	}
	return int(st.Uid)
}
