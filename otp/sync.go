package otp

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// Sync says how this server keeps step with a fleet of yubikey-val servers.
type Sync struct{}

type syncer struct{}

func (s Sync) validate() error { return nil }

// level reads the parameters sl and timeout.
func (s Sync) level(sl, timeout string) (percent int, wait time.Duration, ok bool) {
	switch strings.ToLower(sl) {
	case "", "fast":
	case "secure":
		percent = 100
	default:
		var err error
		if percent, err = strconv.Atoi(sl); err != nil || percent < 0 || percent > 100 {
			return 0, 0, false
		}
	}
	if timeout == "" {
		return percent, time.Second, true
	}
	n, err := strconv.Atoi(timeout)
	return percent, time.Duration(n) * time.Second, err == nil && n >= 0
}

func (c *check) askPeers(context.Context, Use, Last) Status { return "" }
