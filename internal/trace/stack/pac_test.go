package stack

import (
	"bytes"
	"testing"

	"github.com/go-delve/delve/pkg/dwarf/frame"
)

// TestSignedReturnAddresses: what arm64 says of signatures is taken out of a
// program, and of nothing else; a signed address is an address.
func TestSignedReturnAddresses(t *testing.T) {
	for _, c := range []struct{ in, want []byte }{
		// advance_loc 4; negate; def_cfa_offset 45; offset x29 4; offset x30 3
		{
			[]byte{0x41, 0x2d, 0x0e, 0x2d, 0x9d, 0x04, 0x9e, 0x03},
			[]byte{0x41, 0x00, 0x0e, 0x2d, 0x9d, 0x04, 0x9e, 0x03},
		},
		// an expression whose bytes look like it, a long advance, remember, negate, restore
		{
			[]byte{0x0f, 3, 0x2d, 0x2d, 0x2d, 0x03, 0x2d, 0x2d, 0x0a, 0x2d, 0x0b},
			[]byte{0x0f, 3, 0x2d, 0x2d, 0x2d, 0x03, 0x2d, 0x2d, 0x0a, 0x00, 0x0b},
		},
		// two LEB128 numbers, one of them long
		{[]byte{0x0c, 0x9f, 0x2d, 0x2d, 0x2d}, []byte{0x0c, 0x9f, 0x2d, 0x2d, 0x00}},
		// cut, or unknown
		{[]byte{0x10, 0x2d}, []byte{0x10, 0x2d}},
		{[]byte{0x3f, 0x2d}, []byte{0x3f, 0x2d}},
		{[]byte{0x16, 0x01, 0xff, 0xff}, []byte{0x16, 0x01, 0xff, 0xff}},
		{nil, nil},
	} {
		got := bytes.Clone(c.in)
		forgetSigning(got)
		if !bytes.Equal(got, c.want) {
			t.Errorf("%x becomes %x, want %x", c.in, got, c.want)
		}
	}
	var regs registers
	regs.set(arm64.sp, 0x1000)
	regs.set(30, 0xa5a5_5678_9abc_def0)
	r := &row{cfa: rule{kind: frame.RuleCFA, reg: arm64.sp, offset: 16}, ra: 30}
	next, err := arm64.step(r, &regs, &memory{})
	if pc, _ := next.get(arm64.pc); err != nil || pc != 0x5678_9abc_def0 {
		t.Errorf("the caller is at %#x: %v", pc, err)
	}
	if sp, _ := next.get(arm64.sp); sp != 0x1010 {
		t.Errorf("its stack is at %#x", sp)
	}
}
