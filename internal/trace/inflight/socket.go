//go:build linux

package inflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/admin"
)

// patienceOfAdmin is how long the admin socket has to answer: a daemon whose event loop
// is stuck never does.
const patienceOfAdmin = 3 * time.Second

// askDaemon asks the admin socket of a process.
func askDaemon(pid int) ([]admin.Server, error) {
	path, err := adminSocket(pid)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(context.Background(), patienceOfAdmin)
	defer stop()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("its admin socket: %w", err)
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	if err := conn.SetDeadline(end); err != nil {
		return nil, err
	}
	servers, err := admin.Ask(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errors.New("its admin socket does not answer")
	}
	return servers, err
}

// adminSocket returns the path at which a process's admin socket can be reached from
// here: among the sockets that it listens on, the one with that name.
func adminSocket(pid int) (string, error) {
	sockets, err := listening(pid)
	if err != nil {
		return "", err
	}
	for _, path := range sockets {
		if strings.HasSuffix(path, "-admin-sock") && strings.HasPrefix(path, "/") {
			return fmt.Sprintf("/proc/%d/root%s", pid, path), nil
		}
	}
	return "", errors.New("it has no admin socket")
}

// listening returns the paths of the Unix sockets that a process listens on, by inode.
func listening(pid int) (map[string]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", pid))
	if err != nil {
		return nil, err
	}
	own, err := sockets(pid)
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(b)) {
		const accepts = "00010000" // __SO_ACCEPTCON
		f := strings.Fields(line)  // Num RefCount Protocol Flags Type St Inode Path
		if len(f) == 8 && f[3] == accepts && own[f[6]] {
			paths[f[6]] = f[7]
		}
	}
	return paths, nil
}

// sockets returns the inodes of a process's sockets.
func sockets(pid int) (map[string]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, e := range entries {
		target, _ := os.Readlink(dir + e.Name()) // one that was closed meanwhile is none
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return own, nil
}
