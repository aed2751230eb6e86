//go:build !windows

package client

import (
	"net"
	"os"
)

// dialAgent connects to the ssh-agent that SSH_AUTH_SOCK names (ssh-agent(1)).
func dialAgent() (net.Conn, error) { return net.Dial("unix", os.Getenv("SSH_AUTH_SOCK")) }
