package otp

import (
	"bytes"
	"strings"

	"github.com/postern-project/postern"
)

// ParseOwners reads the owners of what is imported. Each line has a name in the import
// (a serial number, a public ID, an account), a comma, and the person's name. Blank
// lines and lines that begin with # are ignored, and so is case.
func ParseOwners(b []byte) (map[string]string, error) {
	b, err := plainText(b)
	if err != nil {
		return nil, err
	}
	owners := map[string]string{}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		f, ok := splitCSV(strings.TrimSpace(string(line)))
		switch {
		case ok && f == nil:
		case !ok || len(f) != 2 || f[0] == "" || !postern.ValidName(strings.ToLower(f[1])):
			return nil, postern.Errorf(postern.Invalid, "line %d: not a name, a comma and a person", n)
		default:
			owners[strings.ToLower(f[0])] = strings.ToLower(f[1])
		}
	}
	return owners, nil
}
