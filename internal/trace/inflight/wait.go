package inflight

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/stack"
)

// What a thread waits in, by the names of functions: libvirt.so exports them, and so does
// libvirt_driver_qemu.so.
var (
	lockFunctions = []string{
		"pthread_mutex_lock", "___pthread_mutex_lock", "__pthread_mutex_lock", "__GI___pthread_mutex_lock",
		"virMutexLock",
		"__lll_lock_wait",
	}
	programFunctions = []string{"virCommandWait", "virCommandRun", "virProcessWait"}
	daemonFunctions  = []string{"virNetClientSendWithReply", "virNetClientProgramCall", "virNetClientSendStream"}
)

// beginsJob reports whether a function waits for a virtual machine's job:
// virDomainObjBeginJobInternal of libvirt.so, qemuDomainObjBeginJobInternal of older
// drivers, and what calls them.
func beginsJob(f event.Frame) bool {
	return strings.Contains(f.Symbol, "DomainObjBegin") && strings.Contains(f.Symbol, "Job")
}

func ofAgent(f event.Frame) bool { return strings.HasPrefix(f.Symbol, "qemuAgent") }

// conditions are the functions in which a thread waits until another one wakes it.
var conditions = []string{"virCondWaitUntil", "virCondWait"}

// reason returns what a thread waits for, and the index of the frame that tells so.
func reason(t *stack.Thread) (Reason, int) {
	if i := t.In("qemuMonitorSend"); i >= 0 {
		return ForMonitor, i
	}
	if i := slices.IndexFunc(t.Frames, beginsJob); i >= 0 && t.In(conditions...) >= 0 {
		return ForJob, i
	}
	if i := slices.IndexFunc(t.Frames, ofAgent); i >= 0 {
		return ForAgent, i
	}
	for _, known := range []struct {
		functions []string
		reason    Reason
	}{{lockFunctions, ForLock}, {programFunctions, ForProgram}, {daemonFunctions, ForDaemon}} {
		if i := t.In(known.functions...); i >= 0 {
			return known.reason, i
		}
	}
	return ForKernel, 0
}

// within returns the innermost function of libvirt's that has a name.
func within(t *stack.Thread) string {
	for _, f := range t.Frames {
		if f.Symbol != "" && strings.HasPrefix(path.Base(f.Module), "libvirt") &&
			!strings.HasPrefix(f.Symbol, "virCond") && !strings.HasPrefix(f.Symbol, "virMutex") &&
			!strings.HasPrefix(f.Symbol, "virObjectLock") {
			return f.Symbol
		}
	}
	return ""
}

// job is what a virtual machine's job tells of itself: owner, ownerAPI and started of
// virDomainJobObj (src/conf/virdomainjob.h, before it src/qemu/qemu_domainjob.h).
type job struct {
	owner   int // thread
	api     string
	started time.Time
}

// dispatcher is the function of libvirt.so that a worker is in while it serves a call.
const dispatcher = "virNetServerProgramDispatch"

// unseen says that a worker works, but not on which call: its stack could be followed only
// for some frames. One case is a frame of no fixed size (alloca), whose frame pointer is
// unknown. "" for any other thread.
func unseen(name string, tid int, t *stack.Thread) string {
	worker := strings.HasPrefix(name, "rpc-") || strings.HasPrefix(name, "prio-rpc-")
	in := within(t)
	if !worker || in == "" || t.In(dispatcher) >= 0 || t.In(conditions...) >= 0 || t.In(lockFunctions...) >= 0 {
		return ""
	}
	return fmt.Sprintf("the call that thread %d works on cannot be seen; it waits in %s", tid, in)
}

// The job stands behind the condition on which others wait for it: at the most so many
// bytes behind the word that they sleep on.
const jobBehind = 256

// longest is how long ago a job can have begun.
const longest = 10 * 365 * 24 * time.Hour

// jobOf returns the job for whose end a thread sleeps on a futex: three words, of which
// one is a thread of the daemon's, the next the name of a function, and the last a moment in
// milliseconds.
func (m memory) jobOf(futex uint64, threads map[int]string, now time.Time) (job, bool) {
	var b [jobBehind]byte
	if futex%4 != 0 || !m.read(futex&^7, b[:]) {
		return job{}, false
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }
	for i := 0; i+24 <= len(b); i += 8 {
		owner, started := word(i), word(i+16)
		if _, ok := threads[int(owner&(1<<31-1))]; !ok || owner >= 1<<31 {
			continue
		}
		if began := time.UnixMilli(int64(started)); started < 1<<62 && now.Sub(began) < longest && !began.After(now) {
			return job{int(owner), identifier(m.text(word(i+8), 128)), began}, true
		}
	}
	return job{}, false
}

// identifier returns a text that is a name in C, else "".
func identifier(s string) string {
	for _, c := range s {
		if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return ""
		}
	}
	return s
}

// patience is how long libvirt waits for a job before it gives up
// (VIR_JOB_WAIT_TIME of src/hypervisor/domain_job.h), and some time to do so.
const patience = 40 * time.Second

// since returns since when a thread waits for a job: the moment in milliseconds that it
// keeps among the words of its frames, to give up in time.
func since(words []uint64, now time.Time) (time.Time, bool) {
	for _, w := range words {
		if at := time.UnixMilli(int64(w & (1<<62 - 1))); !at.After(now) && now.Sub(at) < patience {
			return at, true
		}
	}
	return time.Time{}, false
}

// mutexOwner returns the thread that has a mutex, by the word that others sleep on: it
// follows in glibc's pthread_mutex_t as __owner. 0 when none has.
func (m memory) mutexOwner(futex uint64, threads map[int]string) int {
	var b [4]byte
	if futex%4 != 0 || !stack.ReadMemory(int(m), futex+8, b[:]) {
		return 0
	}
	owner := int(int32(binary.LittleEndian.Uint32(b[:])))
	if _, ok := threads[owner]; !ok {
		return 0
	}
	return owner
}

const maxCommand = 2048

// command returns the monitor command that a thread waits for the answer to: a text of
// JSON whose address it keeps.
func (m memory) command(words []uint64) string {
	const begin = `{"execute"`
	var b [len(begin)]byte
	for _, w := range words {
		if w > 1<<16 && w < 1<<47 && stack.ReadMemory(int(m), w, b[:]) && string(b[:]) == begin {
			return m.text(w, maxCommand)
		}
	}
	return ""
}
