package libvirt_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/postern-project/postern/internal/posterntest"
)

// A capture of the daemon's TCP port.
type capture struct {
	file string
	port int
	cmd  *exec.Cmd
}

func startCapture(t *testing.T, port int) *capture {
	t.Helper()
	c := &capture{file: filepath.Join(t.TempDir(), "libvirt.pcapng"), port: port}
	c.cmd = exec.Command(posterntest.Need(t, "dumpcap"), "-q", "-i", "lo", "-B", "32", "-f",
		"tcp port "+strconv.Itoa(port), "-w", c.file)
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "File:") {
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return c
		}
	}
	t.Fatalf("dumpcap does not start: %v", lines.Err())
	return nil
}

// stop waits until the ends of all connections are in the file.
func (c *capture) stop(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		opened, closed, err := c.connections()
		if err == nil && opened > 0 && closed >= 2*opened {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections captured, %d ends: %v", opened, closed, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait()
}

// each calls f with every TCP segment in the file.
func (c *capture) each(f func(*layers.TCP)) error {
	file, err := os.Open(c.file)
	if err != nil {
		return err
	}
	defer file.Close()
	r, err := pcapgo.NewNgReader(bufio.NewReader(file), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		return err
	}
	for {
		data, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p := gopacket.NewPacket(data, r.LinkType(), gopacket.DecodeOptions{NoCopy: true})
		if tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); ok {
			f(tcp)
		}
	}
}

func (c *capture) connections() (opened, closed int, err error) {
	err = c.each(func(s *layers.TCP) {
		if s.SYN && !s.ACK {
			opened++
		}
		if s.FIN {
			closed++
		}
		if s.RST {
			closed += 2
		}
	})
	return opened, closed, err
}

// conversations returns the bytes of each direction of each connection, by
// "source port > destination port".
func (c *capture) conversations(t *testing.T) map[string][]byte {
	t.Helper()
	next, streams := map[string]uint32{}, map[string][]byte{}
	err := c.each(func(s *layers.TCP) {
		key := fmt.Sprintf("%d > %d", s.SrcPort, s.DstPort)
		if s.SYN {
			next[key] = s.Seq + 1
			return
		}
		if len(s.Payload) == 0 || int32(s.Seq-next[key]) < 0 {
			return
		}
		if s.Seq != next[key] {
			t.Fatalf("%s: a segment is missing", key)
		}
		streams[key] = append(streams[key], s.Payload...)
		next[key] += uint32(len(s.Payload))
	})
	if err != nil {
		t.Fatal(err)
	}
	return streams
}

// A dissection is one message as Wireshark has it.
type dissection struct {
	header []string // the seven fields in hexadecimal
	fields []string // name=hexadecimal, name<elements>, name absent
}

type pdmlField struct {
	Name   string      `xml:"name,attr"`
	Label  string      `xml:"showname,attr"`
	Value  string      `xml:"value,attr"`
	Show   string      `xml:"show,attr"`
	Fields []pdmlField `xml:"field"`
}

type pdmlProto struct {
	Name   string      `xml:"name,attr"`
	Fields []pdmlField `xml:"field"`
}

type pdmlPacket struct {
	Protos []pdmlProto `xml:"proto"`
}

func dissect(t *testing.T, tshark, file string, port int) map[string][]dissection {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tshark, "-r", file, "-d", fmt.Sprintf("tcp.port==%d,libvirt", port), "-Y",
		"libvirt", "-T", "pdml", "-J", "tcp libvirt")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	all := map[string][]dissection{}
	dec := xml.NewDecoder(bytes.NewReader(out))
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := tok.(xml.StartElement); ok && s.Name.Local == "packet" {
			var p pdmlPacket
			if err := dec.DecodeElement(&p, &s); err != nil {
				t.Fatal(err)
			}
			p.add(all)
		}
	}
}

func (p *pdmlPacket) add(all map[string][]dissection) {
	key := ""
	for _, proto := range p.Protos {
		switch proto.Name {
		case "tcp":
			var src, dst string
			for _, f := range proto.Fields {
				switch f.Name {
				case "tcp.srcport":
					src = f.Show
				case "tcp.dstport":
					dst = f.Show
				}
			}
			key = src + " > " + dst
		case "libvirt":
			all[key] = append(all[key], proto.message())
		}
	}
}

func (p *pdmlProto) message() dissection {
	var d dissection
	for i, f := range p.Fields {
		switch {
		case i < 7:
			d.header = append(d.header, f.Value)
		case len(f.Fields) > 0:
			for _, inner := range f.Fields {
				d.fields = inner.flatten(d.fields)
			}
		}
	}
	return d
}

// flatten lists a field and what is inside it in the words of WireFields.
func (f *pdmlField) flatten(out []string) []string {
	name := f.Name[strings.LastIndexByte(f.Name, '.')+1:]
	_, typ, composite := strings.Cut(f.Label, " :: ")
	switch {
	case strings.HasSuffix(f.Label, "(null)"):
		return append(out, name+" absent")
	case composite && strings.HasSuffix(typ, ">"):
		out = append(out, name+typ[strings.LastIndexByte(typ, '<'):])
	case composite:
	case len(f.Fields) == 0:
		return append(out, name+"="+f.Value)
	}
	for _, inner := range f.Fields {
		out = inner.flatten(out)
	}
	return out
}
