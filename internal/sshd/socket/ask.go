package socket

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
)

// AskDaemon puts one question to the daemon that listens on a socket, with a fresh
// nonce. It accepts only an answer to this question, from a process of root. NotifyAsked,
// which has no answer, cannot be put.
func AskDaemon(ctx context.Context, socket string, q Question) (Verdict, error) {
	q.Version = 1 // what was typed is the code alone
	_, _ = rand.Read(q.Nonce[:])
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", socket)
	if err != nil {
		return Unavailable, postern.Errorf(postern.Unavailable, "the daemon at %s does not answer",
			socket).WithHint("start the server")
	}
	defer conn.Close()
	peer, err := system.PeerOf(conn.(*net.UnixConn))
	if err != nil || peer.UID != 0 {
		return Unavailable, postern.Errorf(postern.Denied, "not root, but user %d listens on %s", peer.UID, socket)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	buf := make([]byte, 64)
	_, err = conn.Write(q.Append(nil))
	err = errors.Join(err, conn.SetDeadline(deadline))
	n := 0
	if err == nil {
		n, err = conn.Read(buf)
	}
	want := q.answer(0, 0)
	if err != nil || n != len(want) || string(buf[:n-1]) != string(want[:n-1]) {
		return Unavailable, postern.Errorf(postern.Unavailable, "the daemon at %s gave no answer", socket)
	}
	return Verdict(buf[n-1]), nil
}
