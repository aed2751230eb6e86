package terminal

import (
	"fmt"
	"strings"
	"time"
)

// Time returns a time as lists show it: to the second, with its zone. The flags
// that take a time can parse it.
func Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(TimeLayout)
}

// TimeLayout is the layout of Time.
const TimeLayout = "2006-01-02 15:04:05Z07:00"

// Day returns the day of a time, in UTC: when a certificate ends.
func Day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateOnly)
}

// Dash stands for what is empty in a list.
func Dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Counted returns a number with what is counted: 1 certificate, 2 certificates,
// 2 entries.
func Counted[N int | int64 | uint64](n N, one string) string {
	switch {
	case n == 1:
	case one == "person":
		one = "people"
	case strings.HasSuffix(one, "ss"), strings.HasSuffix(one, "h"):
		one += "es"
	case strings.HasSuffix(one, "y") && !strings.HasSuffix(one, "ey"):
		one = strings.TrimSuffix(one, "y") + "ies"
	default:
		one += "s"
	}
	return fmt.Sprintf("%d %s", n, one)
}
