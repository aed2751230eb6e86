package terminal

import "testing"

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "3": 3, "65536": 64 << 10, "64K": 64 << 10, "64k": 64 << 10, "64KB": 64 << 10, "4MiB": 4 << 20,
		"4 MiB": 4 << 20, "1G": 1 << 30, "12b": 12,
		"": -1, "-1": -1, "MiB": -1, "4TiB": -1, "1.5M": -1, "4iMB": -1, "0x10": -1, "9223372036854775807K": -1,
		"99999999999999999999": -1,
	} {
		var s Size
		err := s.Set(text)
		if want < 0 {
			if err == nil {
				t.Errorf("%q is taken for %d", text, s)
			}
			continue
		}
		if err != nil || int64(s) != want {
			t.Errorf("%q: %d, %v; want %d", text, s, err, want)
		}
		var again Size
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%q is shown as %q, which is %d: %v", text, s.String(), again, err)
		}
	}
}
