package client

import (
	"cmp"
	"net"
	"os"

	"github.com/Microsoft/go-winio"
)

// agentPipe is where OpenSSH's ssh-agent service listens on Windows.
const agentPipe = `\\.\pipe\openssh-ssh-agent`

// dialAgent connects to the ssh-agent on the named pipe that SSH_AUTH_SOCK names, else
// on OpenSSH's own. The library does not let the other end act as this user.
func dialAgent() (net.Conn, error) {
	return winio.DialPipe(cmp.Or(os.Getenv("SSH_AUTH_SOCK"), agentPipe), nil)
}
