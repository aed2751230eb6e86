package libvirt_test

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/trace/libvirt"
)

var update = flag.Bool("update", false, "record testdata/messages.txt anew")

// TestRecordedMessages decodes what a real session said: messages that were
// captured once, in testdata, with what the decoder makes of them.
func TestRecordedMessages(t *testing.T) {
	recorded(t, func(name string, h libvirt.Header, payload []byte, want string) {
		var d libvirt.Decoder
		m := d.Decode(h, payload, len(payload))
		if m.Malformed || m.Trailing != 0 {
			t.Errorf("%s: malformed %v, %d bytes left over", name, m.Malformed, m.Trailing)
		}
		if got := string(m.AppendText(nil, libvirt.Style{})); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	})
}

// record keeps one short message of each procedure, type and status. What
// identifies the machine is left out.
func record(t *testing.T, conversations map[string][]byte) {
	t.Helper()
	var d libvirt.Decoder
	found := map[string]string{}
	for _, stream := range conversations {
		for len(stream) > 0 {
			h, _ := libvirt.ParseHeader(stream)
			msg := stream[:h.Len]
			stream = stream[h.Len:]
			key := fmt.Sprintf("%s %d %d", h.AppendName(nil), h.Type, h.Status)
			if len(msg) > 400 || strings.Contains(key, "hostname") || strings.Contains(key, "node_get_info") ||
				found[key] != "" {
				continue
			}
			text := d.Decode(h, msg[libvirt.HeaderLen:], len(msg)-libvirt.HeaderLen).AppendText(nil, libvirt.Style{})
			found[key] = fmt.Sprintf("%x\n%s\n", msg, text)
		}
	}
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(found)) {
		b.WriteString(found[key])
	}
	if err := os.WriteFile("testdata/messages.txt", []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recorded calls f with each message of testdata/messages.txt: a line with the
// message in hexadecimal, and one with its text.
func recorded(t testing.TB, f func(name string, h libvirt.Header, payload []byte, text string)) {
	t.Helper()
	b, err := os.ReadFile("testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		msg, err := hex.DecodeString(lines[i])
		if err != nil {
			t.Fatal(err)
		}
		h, ok := libvirt.ParseHeader(msg)
		if !ok {
			t.Fatalf("line %d is no message", i+1)
		}
		f(string(h.AppendName(nil))+" "+h.Type.String(), h, msg[libvirt.HeaderLen:], lines[i+1])
	}
}

func FuzzRecorded(f *testing.F) {
	recorded(f, func(_ string, h libvirt.Header, payload []byte, _ string) {
		msg := make([]byte, libvirt.HeaderLen, libvirt.HeaderLen+len(payload))
		for i, n := range []uint32{h.Len, h.Prog, h.Vers, uint32(h.Proc), uint32(h.Type), h.Serial, uint32(h.Status)} {
			binary.BigEndian.PutUint32(msg[4*i:], n)
		}
		f.Add(append(msg, payload...))
	})
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, ok := libvirt.ParseHeader(msg)
		if !ok {
			return
		}
		var d libvirt.Decoder
		m := d.Decode(h, msg[libvirt.HeaderLen:], int(h.Len)-libvirt.HeaderLen)
		m.AppendText(nil, libvirt.Style{})
		m.AppendJSON(nil, libvirt.Style{Full: true})
		m.Object()
	})
}
