package main

import (
	"errors"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// bare attaches a program that does nothing to the probes that the others read:
// what the kernel alone takes for a probe, which no tracer can do without.
func bare(library string) (stop func() error, err error) {
	f, err := os.Open(library)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file, err := usdt.Open(f)
	if err != nil {
		return nil, err
	}
	var opts link.UprobeMultiOptions
	for _, p := range file.Probes {
		if slices.Contains(probes, p.Name) {
			opts.Addresses = append(opts.Addresses, p.Offset)
			opts.RefCtrOffsets = append(opts.RefCtrOffsets, p.Semaphore)
		}
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceUprobeMulti, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, err
	}
	ex, err := link.OpenExecutable(library)
	if err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	l, err := ex.UprobeMulti(nil, prog, &opts)
	if err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	return func() error { return errors.Join(l.Close(), prog.Close()) }, nil
}
