package libvirt_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/postern-project/postern/posterntest"
	"github.com/postern-project/postern/trace/libvirt"
)

var update = flag.Bool("update", false, "record testdata/messages.txt anew")

// TestAgainstWireshark drives a real libvirtd over TCP with virsh and another
// client library, captures it all, and compares each message, field by field and
// byte for byte, with what Wireshark's libvirt dissector makes of the capture.
func TestAgainstWireshark(t *testing.T) {
	posterntest.NeedRoot(t)
	tshark := posterntest.Need(t, "tshark")
	if out, err := exec.Command(tshark, "-G", "protocols").Output(); err != nil || !bytes.Contains(out, []byte("\tlibvirt\n")) {
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
				t.Errorf("%s (%v, %v): malformed %v, %d bytes left over", name, h.Type, h.Status, m.Malformed, m.Trailing)
			}
			if len(other) == 0 {
				t.Fatalf("%s: Wireshark has no such message: %s", key, name)
			}
			w := other[0]
			other = other[1:]
			if got := headerFields(h); !slices.Equal(got, w.header) {
				t.Errorf("%s: header %v, Wireshark has %v", name, got, w.header)
			}
			if got := m.WireFields(); !slices.Equal(got, w.fields) && !slices.Contains(misread, name+" "+h.Type.String()) {
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
	"remote.1.connect_get_type reply", "remote.1.domain_get_os_type reply", "remote.1.connect_find_storage_pool_sources call",
}

func headerFields(h libvirt.Header) []string {
	var out []string
	for _, n := range []uint32{h.Len, h.Prog, h.Vers, uint32(h.Proc), uint32(h.Type), h.Serial, uint32(h.Status)} {
		out = append(out, fmt.Sprintf("%08x", n))
	}
	return out
}

// A capture of the daemon's TCP port.
type capture struct {
	file string
	port int
	cmd  *exec.Cmd
}

func startCapture(t *testing.T, port int) *capture {
	t.Helper()
	c := &capture{file: filepath.Join(t.TempDir(), "libvirt.pcapng"), port: port}
	c.cmd = exec.Command(posterntest.Need(t, "dumpcap"), "-q", "-i", "lo", "-B", "32", "-f", "tcp port "+strconv.Itoa(port), "-w", c.file)
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
	for deadline := time.Now().Add(20 * time.Second); ; {
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
	cmd := exec.CommandContext(ctx, tshark, "-r", file, "-d", fmt.Sprintf("tcp.port==%d,libvirt", port), "-Y", "libvirt", "-T", "pdml", "-J", "tcp libvirt")
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

// driveVirsh has virsh call what it can, right and wrong.
func driveVirsh(t *testing.T, l *posterntest.Libvirtd) {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const secretUUID = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
	secret := file("secret.xml", "<secret ephemeral='yes' private='no'><uuid>"+secretUUID+"</uuid><usage type='volume'><volume>/x</volume></usage></secret>")
	value := file("value", "c2VjcmV0")
	filter := file("filter.xml", "<filter name='postern-f' chain='root'><rule action='drop' direction='in'/></filter>")
	network := file("net.xml", "<network><name>postern-n</name><bridge name='postern0'/><ip address='192.0.2.1' netmask='255.255.255.0'/></network>")
	cpu := file("cpu.xml", "<cpu><arch>x86_64</arch><model>qemu64</model></cpu>")
	checkpoint := file("cp.xml", "<domaincheckpoint/>")
	disk := file("disk.xml", "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='"+filepath.Join(dir, "pool/v1")+"'/><target dev='vdb' bus='virtio'/></disk>")
	vm2 := file("vm2.xml", strings.Replace(l.DomainXML("vm2"), "<memballoon", "<serial type='pty'/><graphics type='vnc' autoport='yes' passwd='hunter2'/><memballoon", 1))
	if err := os.Mkdir(filepath.Join(dir, "pool"), 0o755); err != nil {
		t.Fatal(err)
	}
	upload := file("upload", strings.Repeat("postern!", 8<<10))
	script := strings.NewReplacer("SECRET.XML", secret, "SECRET", secretUUID, "VALUE", value, "FILTER", filter, "NETWORK", network,
		"CPU", cpu, "CHECKPOINT", checkpoint, "DISK", disk, "VM2", vm2, "POOL", filepath.Join(dir, "pool"), "UPLOAD", upload, "DIR", dir).Replace(virshScript)
	cmd := exec.Command("virsh", "-q", "-c", l.TCPURI())
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("virsh: %v", err)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
}

const virshScript = `hostname
sysinfo
uri
version --daemon
capabilities
nodeinfo
nodecpumap
nodecpustats
nodememstats
node-memory-tune
nodesevinfo
freecell --all
freepages --all
maxvcpus
domcapabilities
cpu-models x86_64
cpu-compare CPU
cpu-baseline CPU
hypervisor-cpu-compare CPU
hypervisor-cpu-baseline CPU
list --all
define VM2
start vm1
start vm2 --paused
domname vm1
domid vm1
domuuid vm1
domstate vm1 --reason
dominfo vm1
domcontrol vm1
dominfo no-such-domain
dumpxml vm1
dumpxml vm2 --security-info
domstats
domjobinfo vm1
domjobinfo vm1 --completed
dommemstat vm1 --period 2
domblklist vm1
domblkerror vm1
domiflist vm1
domifaddr vm1
domfsinfo vm1
domhostname vm1
domtime vm1
domtime vm1 --now
domdisplay vm2
vncdisplay vm2
ttyconsole vm2
guestinfo vm1
guestvcpus vm1
get-user-sshkeys vm1 root
set-user-password vm1 root hunter2
vcpucount vm1
vcpuinfo vm1
vcpupin vm1
vcpupin vm1 0 0
emulatorpin vm1
emulatorpin vm1 0
iothreadinfo vm1
iothreadadd vm1 1
iothreadset vm1 1 --poll-max-ns 1000
iothreaddel vm1 1
schedinfo vm1
schedinfo vm1 --set cpu_shares=1000 --config
memtune vm1
blkiotune vm1
blkiotune vm1 --weight 500 --config
numatune vm1
perf vm1
perf vm1 --enable cmt
setmem vm1 65536 --live
setmaxmem vm1 65536 --config
setvcpus vm1 1 --config
autostart vm1
autostart vm1 --disable
desc vm1 --title first
desc vm1
metadata vm1 http://example.com/
set-lifecycle-action vm1 poweroff restart
send-key vm1 KEY_H KEY_U
inject-nmi vm1
qemu-monitor-command vm1 --hmp info status
qemu-agent-command vm1 guest-ping
guest-agent-timeout vm1 --timeout 5
qemu-monitor-command vm1 '{"execute":"query-status"}'
cpu-stats vm1
domdirtyrate-calc vm1
suspend vm1
resume vm1
reset vm1
reboot vm1
managedsave vm1
start vm1
save vm1 DIR/saved
save-image-dumpxml DIR/saved
restore DIR/saved
dump vm1 DIR/core --memory-only
screenshot vm1 DIR/screen
attach-device vm1 DISK
domblkinfo vm1 vdb
domblkstat vm1 vdb
domblkthreshold vm1 vdb 1000
blkdeviotune vm1 vdb
blkdeviotune vm1 vdb --total-iops-sec 100
blockresize vm1 vdb 1M
blockjob vm1 vdb
blockpull vm1 vdb
blockcommit vm1 vdb
detach-disk vm1 vdb
domif-getlink vm1 vnet9
domifstat vm1 vnet9
domiftune vm1 vnet9
snapshot-create-as vm2 s1 --disk-only
snapshot-list vm2
snapshot-create-as vm1 s1
snapshot-list vm1 --parent
snapshot-current vm1
snapshot-dumpxml vm1 s1
snapshot-info vm1 s1
snapshot-parent vm1 s1
snapshot-revert vm1 s1
snapshot-delete vm1 s1
checkpoint-create vm1 CHECKPOINT
checkpoint-list vm1
checkpoint-dumpxml vm1 c1
backup-begin vm1
backup-dumpxml vm1
domrename vm2 vm3
domxml-from-native qemu-argv DIR/none
domxml-to-native qemu-argv --domain vm1
migrate-getspeed vm1
migrate-setspeed vm1 100
migrate-getmaxdowntime vm1
migrate-setmaxdowntime vm1 100
migrate-compcache vm1
migrate vm1 qemu:///session
domjobabort vm1
dompmsuspend vm1 mem
dompmwakeup vm1
domlaunchsecinfo vm1
domfsfreeze vm1
domfsthaw vm1
domfstrim vm1
secret-define SECRET.XML
secret-list
secret-set-value SECRET --file VALUE
secret-get-value SECRET
secret-dumpxml SECRET
secret-undefine SECRET
nwfilter-define FILTER
nwfilter-list
nwfilter-dumpxml postern-f
nwfilter-undefine postern-f
nwfilter-binding-list
net-define NETWORK
net-list --all
net-info postern-n
net-uuid postern-n
net-dumpxml postern-n
net-autostart postern-n
net-autostart postern-n --disable
net-dhcp-leases postern-n
net-update postern-n add dns-host "<host ip='192.0.2.9'><hostname>h</hostname></host>" --config
net-port-list postern-n
net-undefine postern-n
iface-list --all
iface-dumpxml lo
iface-mac lo
nodedev-list
nodedev-dumpxml computer
nodedev-info computer
pool-capabilities
pool-define-as postern-p dir --target POOL
pool-start postern-p
pool-list --all --details
pool-info postern-p
pool-dumpxml postern-p
pool-uuid postern-p
pool-autostart postern-p
pool-autostart postern-p --disable
pool-build postern-p
pool-refresh postern-p
vol-create-as postern-p v1 65536
vol-list postern-p --details
vol-info v1 --pool postern-p
vol-key v1 --pool postern-p
vol-path v1 --pool postern-p
vol-pool POOL/v1
vol-dumpxml v1 --pool postern-p
vol-upload v1 UPLOAD --pool postern-p
vol-download v1 DIR/download --pool postern-p
vol-clone v1 v2 --pool postern-p
vol-resize v2 131072 --pool postern-p
vol-wipe v2 --pool postern-p
vol-delete v2 --pool postern-p
vol-delete v1 --pool postern-p
find-storage-pool-sources dir
pool-destroy postern-p
pool-delete postern-p
pool-undefine postern-p
shutdown vm1
destroy vm1
destroy vm3
undefine vm3
undefine vm2
quit
`

// driveGo has another client call what virsh does not: the old list calls, events
// and a console's stream.
func driveGo(t *testing.T, l *posterntest.Libvirtd) {
	t.Helper()
	c := golibvirt.NewWithDialer(dialers.NewRemote("127.0.0.1", dialers.UsePort(strconv.Itoa(l.Port)), dialers.WithRemoteTimeout(10*time.Second)))
	if err := c.ConnectToURI("qemu:///system"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, err := c.LifecycleEvents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dom, err := c.DomainLookupByName("vm1")
	if err != nil {
		t.Fatal(err)
	}
	do := func(errs ...any) { _ = errs } // refusals are messages too
	if err := c.DomainCreate(dom); err != nil {
		t.Fatal(err)
	}
	<-events
	do(c.ConnectGetType())
	do(c.ConnectGetVersion())
	do(c.ConnectGetLibVersion())
	do(c.ConnectIsSecure())
	do(c.ConnectNumOfDomains())
	do(c.ConnectListDomains(10))
	do(c.ConnectNumOfDefinedDomains())
	do(c.ConnectListDefinedDomains(10))
	do(c.ConnectNumOfNetworks())
	do(c.ConnectListNetworks(10))
	do(c.ConnectNumOfStoragePools())
	do(c.ConnectListStoragePools(10))
	do(c.ConnectNumOfSecrets())
	do(c.ConnectListSecrets(10))
	do(c.ConnectNumOfNwfilters())
	do(c.ConnectNumOfInterfaces())
	do(c.NodeGetFreeMemory())
	do(c.NodeGetSecurityModel())
	do(c.NodeDeviceLookupByName("computer"))
	do(c.NodeDeviceGetParent("computer"))
	do(c.NodeDeviceNumOfCaps("computer"))
	do(c.NodeDeviceListCaps("computer", 10))
	do(c.DomainLookupByUUID(dom.UUID))
	do(c.DomainLookupByID(9999))
	do(c.DomainIsActive(dom))
	do(c.DomainIsPersistent(dom))
	do(c.DomainIsUpdated(dom))
	do(c.DomainGetOsType(dom))
	do(c.DomainGetMaxMemory(dom))
	do(c.DomainGetMaxVcpus(dom))
	do(c.DomainGetInfo(dom))
	do(c.DomainGetSchedulerType(dom))
	do(c.DomainGetSecurityLabel(dom))
	do(c.DomainGetSecurityLabelList(dom))
	do(c.DomainMemoryPeek(dom, 0, 64, golibvirt.MemoryPhysical))
	do(c.DomainBlockPeek(dom, "/dev/null", 0, 64, 0))
	do(c.DomainGetSchedulerParameters(dom, 16))
	do(c.DomainSnapshotNum(dom, 0))
	do(c.DomainSnapshotListNames(dom, 10, 0))
	do(c.DomainHasCurrentSnapshot(dom, 0))
	do(c.DomainHasManagedSaveImage(dom, 0))
	do(c.DomainOpenConsole(dom, nil, io.Discard, 0))
	do(c.DomainDestroy(dom))
	<-events
	cancel()
	for range events {
		// until the subscription has ended
	}
	if err := c.Disconnect(); err != nil {
		t.Fatal(err)
	}
}

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

// record keeps one short message of each procedure, type and status. What tells
// of the machine is left out.
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
			if len(msg) > 400 || strings.Contains(key, "hostname") || strings.Contains(key, "node_get_info") || found[key] != "" {
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
