package hostconf

import (
	"testing"
)

func FuzzShellConfig(f *testing.F) {
	f.Add("YUBICO_API_ID=\"16\"\n")
	f.Fuzz(func(t *testing.T, shell string) {
		c, err := ParseShellConfig([]byte(shell))
		if err == nil && c.APIID < 0 {
			t.Errorf("identifier %d", c.APIID)
		}
	})
}
