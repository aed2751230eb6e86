package shell

import (
	"testing"
)

func FuzzTrustedIDs(f *testing.F) {
	f.Add("a:cccccccccccc\nb:vvvv:dddd\n")
	f.Fuzz(func(t *testing.T, mappings string) {
		for _, id := range trustedIDs([]byte(mappings), "a") {
			if id == "" {
				t.Error("an empty identifier is trusted")
			}
		}
	})
}
