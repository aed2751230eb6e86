package terminal

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a flag's number of bytes, a pflag.Value: 4MiB, 64K, 1000.
type Size int64

var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// Set implements pflag.Value. The units are powers of 1024, however they are
// written.
func (s *Size) Set(text string) error {
	digits := strings.TrimRight(text, "KMGiBkmgb ")
	unit := int64(1)
	switch letters := strings.ToUpper(strings.TrimSpace(text[len(digits):])); letters {
	case "", "B":
	default:
		unit = 0
		for _, u := range units {
			if name := strings.ToUpper(u.name); letters == name || letters == name[:1] || letters == name[:1]+"B" {
				unit = u.bytes
			}
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || unit == 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("not a number of bytes such as 4MiB or 65536")
	}
	*s = Size(n * unit)
	return nil
}

// String implements pflag.Value: in the largest unit that fits.
func (s *Size) String() string {
	for _, u := range units {
		if n := int64(*s); n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Type implements pflag.Value.
func (*Size) Type() string { return "bytes" }
