package libvirt_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// TestAgainstWireshark drives a real libvirtd over TCP with virsh and another
// client library, captures it all, and compares each message, field by field and
// byte for byte, with what Wireshark's libvirt dissector makes of the capture.
func TestAgainstWireshark(t *testing.T) {
	posterntest.NeedRoot(t)
	tshark := posterntest.Need(t, "tshark")
	if out, err := exec.Command(tshark, "-G", "protocols").Output(); err != nil ||
		!bytes.Contains(out, []byte("\tlibvirt\n")) {
		posterntest.Missing(t, "needs Wireshark's libvirt dissector (Debian: libvirt-wireshark)")
	}
	defer posterntest.TraceAlone(t)()
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	c := startCapture(t, l.Port)
	driveVirsh(t, l)
	driveGo(t, l)
	c.stop(t)

	conversations := c.conversations(t)
	dissected := dissect(t, tshark, c.file, l.Port)
	procedures := compare(t, conversations, dissected)
	t.Logf("%d procedures, %d conversations", len(procedures), len(conversations))
	if *update {
		record(t, conversations)
	}
	if len(procedures) < 80 {
		t.Errorf("only %d procedures were seen: %v", len(procedures), procedures)
	}
}

// compare returns the procedures that were called and answered.
func compare(t *testing.T, conversations map[string][]byte, dissected map[string][]dissection) []string {
	var procedures []string
	var d libvirt.Decoder
	messages := 0
	for key, stream := range conversations {
		other := dissected[key]
		for len(stream) >= libvirt.HeaderLen {
			h, ok := libvirt.ParseHeader(stream)
			if !ok || int(h.Len) > len(stream) {
				t.Fatalf("%s: message of %d bytes, %d are there", key, h.Len, len(stream))
			}
			payload := stream[libvirt.HeaderLen:h.Len]
			stream = stream[h.Len:]
			m := d.Decode(h, payload, len(payload))
			name := string(h.AppendName(nil))
			if m.Malformed || m.Trailing != 0 || m.Cut || m.Procedure == nil {
				t.Errorf("%s (%v, %v): malformed %v, %d bytes left over", name, h.Type, h.Status, m.Malformed,
					m.Trailing)
			}
			if len(other) == 0 {
				t.Fatalf("%s: Wireshark has no such message: %s", key, name)
			}
			w := other[0]
			other = other[1:]
			if got := headerFields(h); !slices.Equal(got, w.header) {
				t.Errorf("%s: header %v, Wireshark has %v", name, got, w.header)
			}
			if got := m.WireFields(); !slices.Equal(got, w.fields) && !slices.Contains(misread,
				name+" "+h.Type.String()) {
				t.Errorf("%s (%v, %v):\n     we have %v\nWireshark has %v", name, h.Type, h.Status, got, w.fields)
			}
			if h.Type.IsReply() && !slices.Contains(procedures, name) {
				procedures = append(procedures, name)
			}
			messages++
		}
		if len(other) != 0 {
			t.Errorf("%s: Wireshark has %d messages more", key, len(other))
		}
	}
	slices.Sort(procedures)
	t.Logf("%d messages compared", messages)
	return procedures
}

// misread lists messages in which Wireshark takes a string called type for a
// number: it shows the string's length for it, and reads what follows from the
// wrong place.
var misread = []string{
	"remote.1.connect_get_type reply", "remote.1.domain_get_os_type reply",
	"remote.1.connect_find_storage_pool_sources call",
}

func headerFields(h libvirt.Header) []string {
	var out []string
	for _, n := range []uint32{h.Len, h.Prog, h.Vers, uint32(h.Proc), uint32(h.Type), h.Serial, uint32(h.Status)} {
		out = append(out, fmt.Sprintf("%08x", n))
	}
	return out
}
