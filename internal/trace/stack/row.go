package stack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/go-delve/delve/pkg/dwarf/frame"
)

// A row says, for one pc, how to find the caller's registers.
type row struct {
	begin, end uint64 // the function, in the module's addresses
	cfa        rule
	regs       []saved
	ra         uint64 // the register that holds the return address
	last       bool   // there is no caller
	signal     bool   // the caller was interrupted, it did not call
	depth      int64  // of the stack pointer below the frame's address; 0 until it is needed, or unsure
}

type rule struct {
	kind       frame.Rule
	reg        uint64
	offset     int64
	expression []byte
}

type saved struct {
	reg uint64
	rule
}

// row returns the row for a pc in the module's own addresses. Rows are kept:
// working one out costs more than all else.
func (m *module) row(pc uint64) (*row, error) {
	if r, ok := m.rows[pc]; ok {
		if r == nil {
			return nil, errNoFrameInfo
		}
		return r, nil
	}
	r, err := m.makeRow(pc)
	if len(m.rows) >= maxRows {
		clear(m.rows)
	}
	m.rows[pc] = r
	return r, err
}

func (m *module) makeRow(pc uint64) (r *row, err error) {
	defer noPanic(m.name, &err)
	at, ok := m.entry(pc)
	if !ok {
		return nil, errNoFrameInfo
	}
	fde, err := m.unit(at)
	if err != nil {
		return nil, err
	}
	back := uint64(m.elf.ByteOrder.Uint32(fde[4:]))
	if back == 0 {
		return nil, errNoFrameInfo // a CIE
	}
	cie, err := m.unit(at + 4 - back)
	if err != nil {
		return nil, err
	}
	if bytes.Count(fde, []byte{frame.DW_CFA_remember_state})+bytes.Count(cie,
		[]byte{frame.DW_CFA_remember_state}) > maxRemembers {
		return nil, fmt.Errorf("%s: call frame information at %#x is too complex", m.name, at)
	}
	return m.establish(cie, fde, at, pc)
}

// unit reads a CIE or FDE with its length word.
func (m *module) unit(at uint64) ([]byte, error) {
	head, err := m.read(at, 4)
	if err != nil || len(head) < 4 {
		return nil, errNoFrameInfo
	}
	n := m.elf.ByteOrder.Uint32(head)
	if n < 8 || n > maxEntry {
		return nil, fmt.Errorf("%s: call frame information at %#x has %d bytes", m.name, at, n)
	}
	b, err := m.read(at, int(n)+4)
	if err == nil && len(b) < int(n)+4 {
		err = errNoFrameInfo
	}
	return b, err
}

// establish has the library run the programs of a CIE and an FDE up to pc. It is
// given the two alone, the FDE's pointer to its CIE adapted: reading a whole
// section takes it tens of milliseconds, and one entry it does not know would
// spoil the rest.
func (m *module) establish(cie, fde []byte, at, pc uint64) (*row, error) {
	both := append(bytes.Clone(cie), fde...)
	m.elf.ByteOrder.PutUint32(both[len(cie)+4:], uint32(len(cie)+4))
	entries, err := frame.Parse(both, m.elf.ByteOrder, 0, 8, at-uint64(len(cie)))
	if err != nil {
		return nil, err
	}
	if len(entries) != 1 || !entries[0].Cover(pc) {
		return nil, errNoFrameInfo
	}
	e := entries[0]
	if m.machine == elf.EM_AARCH64 {
		forgetSigning(e.CIE.InitialInstructions)
		forgetSigning(e.Instructions)
	}
	ctx, err := e.EstablishFrame(pc)
	if err != nil {
		return nil, err
	}
	r := &row{
		begin: e.Begin(), end: e.End(), cfa: ruleOf(ctx.CFA), ra: ctx.RetAddrReg,
		signal: bytes.IndexByte([]byte(e.CIE.Augmentation), 'S') >= 0,
	}
	for reg, dw := range ctx.Regs {
		switch {
		case dw.Rule == frame.RuleUndefined && reg == r.ra:
			r.last = endsHere(cie, fde, reg)
		case dw.Rule == frame.RuleUndefined:
			// Also what the library makes of DW_CFA_restore: a register as the
			// caller left it.
		case dw.Rule == frame.RuleValOffset:
			u := ruleOf(dw)
			u.offset *= e.CIE.DataAlignmentFactor // the library leaves it unscaled
			r.regs = append(r.regs, saved{reg, u})
		default:
			r.regs = append(r.regs, saved{reg, ruleOf(dw)})
		}
	}
	return r, nil
}

// endsHere reports whether the entry declares the return address undefined, as
// those of _start and clone do.
func endsHere(cie, fde []byte, reg uint64) bool {
	undefined := binary.AppendUvarint([]byte{frame.DW_CFA_undefined}, reg)
	return bytes.Contains(fde, undefined) || bytes.Contains(cie, undefined)
}

func ruleOf(d frame.DWRule) rule {
	return rule{kind: d.Rule, reg: d.Reg, offset: d.Offset, expression: bytes.Clone(d.Expression)}
}
