package system

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Notify tells systemd about this process: "READY=1", "STOPPING=1", "WATCHDOG=1" and what
// else sd_notify(3) has. Without systemd it does nothing.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(path, "@"); ok {
		path = "\x00" + name
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}

// KeepWatchdog tells systemd until ctx ends that this process is not stuck, twice in each
// of its unit's WatchdogSec=. Without that it returns at once.
func KeepWatchdog(ctx context.Context) {
	pid := os.Getenv("WATCHDOG_PID")
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 1 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return
	}
	tick := time.NewTicker(time.Duration(usec) * time.Microsecond / 2)
	defer tick.Stop()
	for {
		_ = Notify("WATCHDOG=1") // else systemd restarts the process, as it should
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
