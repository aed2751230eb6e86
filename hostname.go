package postern

import "strings"

// ValidHostName reports whether s is a host name as RFC 1123 section 2.1 defines
// it, in lower case: labels of 1 to 63 letters, digits and hyphens, at most 253
// bytes, without a final dot. The last label is not a number, so that no name can
// be read as an IPv4 address.
func ValidHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}
