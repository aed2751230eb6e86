package terminal

import (
	"os"
	"path/filepath"
	"testing"
)

// TestContent reads two files, the first of which does not end with a line break.
func TestContent(t *testing.T) {
	var c Content
	for name, text := range map[string]string{"a": "-----END CERTIFICATE-----", "b": "-----END CERTIFICATE-----\n"} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Set(file); err != nil {
			t.Fatal(err)
		}
	}
	if want := "-----END CERTIFICATE-----\n-----END CERTIFICATE-----\n"; string(c) != want {
		t.Errorf("%q, want %q", c, want)
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, maxContent+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Set(large); err == nil {
		t.Error("a file that is too large was read")
	}
}
