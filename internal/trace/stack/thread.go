package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern/internal/trace/event"
)

// Thread is the stack of a thread that sleeps, as it stood at one moment.
type Thread struct {
	Frames []event.Frame // the innermost first; the last is not the outermost one where it could not go on
	call   int           // the number of the system call that it sleeps in
	arg    uint64        // the first argument of that
	sps    []uint64      // of each frame
	arch   *arch
	memory memory
}

// ErrRuns is the error for a thread that does not sleep in a system call, so that where
// it is cannot be seen.
var ErrRuns = errors.New("the thread runs")

// maxStack bounds how many bytes of a thread's stack are looked at.
const maxStack = 256 << 10

// Sleeping unwinds the stack of a thread that sleeps in a system call. The thread is
// neither stopped nor slowed down: the kernel says where it sleeps, and its stack is
// read from outside. It needs what ptrace(2) needs. Registers that the innermost
// functions do not save are unknown. On amd64 a frame pointer among them is concluded from
// its function's machine code; where that cannot tell, frames are missing at the end.
func (u *Unwinder) Sleeping(pid, tid int) (Thread, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.arch == nil {
		return Thread{}, errors.New("stacks cannot be unwound here")
	}
	at, err := sleeps(pid, tid)
	if err != nil {
		return Thread{}, err
	}
	t := Thread{call: at.call, arg: at.arg, arch: u.arch, memory: memory{base: at.sp, bytes: readStack(pid, at.sp)}}
	var r registers
	r.set(u.arch.sp, at.sp)
	r.set(u.arch.pc, at.pc)
	_, _ = u.unwind(pid, r, &t.memory, event.Return{}) // the frames up to there
	t.Frames, t.sps = slices.Clone(u.frames), slices.Clone(u.sps)
	if now, err := sleeps(pid, tid); err != nil || now != at {
		return Thread{}, ErrRuns // it woke meanwhile, and what was read is of no one moment
	}
	return t, nil
}

// sleep is where a thread sleeps.
type sleep struct {
	call        int
	arg, sp, pc uint64
}

// sleeps returns where a thread sleeps, from /proc/PID/task/TID/syscall: the number of
// the system call, six arguments, stack pointer and program counter.
func sleeps(pid, tid int) (s sleep, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, tid))
	if err != nil {
		return s, err
	}
	f := strings.Fields(string(b))
	if len(f) != 9 {
		return s, ErrRuns
	}
	s.call, err = strconv.Atoi(f[0])
	for i, v := range map[int]*uint64{1: &s.arg, 7: &s.sp, 8: &s.pc} {
		var perr error
		*v, perr = strconv.ParseUint(f[i], 0, 64)
		err = errors.Join(err, perr)
	}
	return s, err
}

// readStack copies a stack from its pointer upwards, as far as it is mapped.
func readStack(pid int, sp uint64) []byte {
	const page = 4096
	var stack []byte
	for at := sp; len(stack) < maxStack; {
		b := make([]byte, page-at%page)
		if !ReadMemory(pid, at, b) {
			break
		}
		stack = append(stack, b...)
		at += uint64(len(b))
	}
	return stack
}

// Futex returns the address of the word that the thread sleeps on, if it does.
func (t *Thread) Futex() (addr uint64, ok bool) {
	return t.arg, t.arch != nil && t.call == t.arch.futex
}

// Child returns the process whose end the thread waits for, if it does.
func (t *Thread) Child() (pid int, ok bool) {
	return int(int32(t.arg)), t.arch != nil && t.call == t.arch.wait4 && int32(t.arg) > 0
}

// In returns the index of the innermost frame of one of these functions, or -1.
func (t *Thread) In(functions ...string) int {
	return slices.IndexFunc(t.Frames, func(f event.Frame) bool { return slices.Contains(functions, f.Symbol) })
}

// Words returns the words of the stack that belong to the frames from one index up to
// another: what their functions keep there, arguments and registers of their callers
// among it.
func (t *Thread) Words(from, to int) []uint64 {
	if from < 0 || from >= len(t.sps) || to <= from {
		return nil
	}
	end := t.memory.base + uint64(len(t.memory.bytes))
	if to < len(t.sps) {
		end = min(end, t.sps[to])
	}
	var words []uint64
	for at := t.sps[from]; at+8 <= end && at >= t.memory.base; at += 8 {
		words = append(words, binary.LittleEndian.Uint64(t.memory.bytes[at-t.memory.base:]))
	}
	return words
}
