package system

import (
	"os"
	"os/signal"
	"syscall"
)

// Hangups returns a channel of the hangup signals that this process gets from now on, of
// which it does not end. Where one was not received yet, further ones are dropped.
func Hangups() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}
