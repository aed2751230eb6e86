package libvirt_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
	"github.com/postern-project/postern/internal/posterntest"
)

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
	secret := file("secret.xml", "<secret ephemeral='yes' private='no'><uuid>"+secretUUID+
		"</uuid><usage type='volume'><volume>/x</volume></usage></secret>")
	value := file("value", "c2VjcmV0")
	filter := file("filter.xml", "<filter name='postern-f' chain='root'><rule action='drop' direction='in'/></filter>")
	network := file("net.xml",
		"<network><name>postern-n</name><bridge name='postern0'/><ip address='192.0.2.1' "+
			"netmask='255.255.255.0'/></network>")
	cpu := file("cpu.xml", "<cpu><arch>x86_64</arch><model>qemu64</model></cpu>")
	checkpoint := file("cp.xml", "<domaincheckpoint/>")
	disk := file("disk.xml", "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='"+
		filepath.Join(dir, "pool/v1")+"'/><target dev='vdb' bus='virtio'/></disk>")
	vm2 := file("vm2.xml", strings.Replace(l.DomainXML("vm2"), "<memballoon",
		"<serial type='pty'/><graphics type='vnc' autoport='yes' passwd='hunter2'/><memballoon", 1))
	if err := os.Mkdir(filepath.Join(dir, "pool"), 0o755); err != nil {
		t.Fatal(err)
	}
	upload := file("upload", strings.Repeat("postern!", 8<<10))
	script := strings.NewReplacer("SECRET.XML", secret, "SECRET", secretUUID, "VALUE", value, "FILTER", filter,
		"NETWORK", network,
		"CPU", cpu, "CHECKPOINT", checkpoint, "DISK", disk, "VM2", vm2, "POOL", filepath.Join(dir, "pool"), "UPLOAD",
		upload, "DIR", dir).Replace(virshScript)
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
	c := golibvirt.NewWithDialer(dialers.NewRemote("127.0.0.1", dialers.UsePort(strconv.Itoa(l.Port)),
		dialers.WithRemoteTimeout(2*time.Minute)))
	if err := c.ConnectToURI("qemu:///system"); err != nil {
		t.Fatalf("connect: %v", err)
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
		t.Fatalf("create vm1: %v", err)
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
	// libvirtd ends a connection whose connect_close it serves as soon as it has
	// sent what is queued: before the answer, where that is queued later.
	if err := c.Disconnect(); err != nil && !errors.Is(err, golibvirt.ErrInterrupted) {
		t.Fatalf("disconnect: %v", err)
	}
}
