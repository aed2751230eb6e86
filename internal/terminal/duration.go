package terminal

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a flag's length of time, a pflag.Value: 90d, 12h, 1h30m.
type Duration time.Duration

// maxDays is about 270 years, less than a time.Duration holds.
const maxDays = 100_000

// Set implements pflag.Value. A day has 24 hours.
func (d *Duration) Set(text string) error {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < maxDays {
			*d = Duration(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	v, err := time.ParseDuration(text)
	if err != nil || v <= 0 {
		return fmt.Errorf("not a length of time such as 90d or 12h")
	}
	*d = Duration(v)
	return nil
}

// String implements pflag.Value.
func (d *Duration) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

// Type implements pflag.Value.
func (*Duration) Type() string { return "duration" }
