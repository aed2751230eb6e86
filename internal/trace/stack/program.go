package stack

import (
	"bytes"
	"encoding/binary"
	"path"
)

// A lineProgram is a line number program: which source line each instruction of a part of a
// file was made of. See DWARF 5, 6.2.4, and, for the versions from 2 on, its 7.22. What is read
// may be anything: nothing of it decides how much memory is taken, or how long more than the
// program's own length.
type lineProgram struct {
	version, minLength byte
	lineBase           int8
	lineRange          byte
	lengths            []byte // how many operands the opcodes from 1 on have
	names, code        reader // the tables of directories and files; the opcodes
	wide               bool   // offsets have 64 bits
}

// A lineRow says that code from an address on is of a line, up to the next row's.
type lineRow struct {
	addr, file, line uint64
	end              bool // no code is at addr or behind it, until another sequence begins
}

// readProgram reads the header of the line number program that b begins with, and returns
// what follows the program: nil at the end, and where it cannot be told.
func readProgram(b []byte, order binary.ByteOrder) (p lineProgram, rest []byte, ok bool) {
	r := reader{b: b, order: order}
	length := uint64(r.u32())
	if p.wide = length == 0xffffffff; p.wide {
		length = r.u64()
	}
	body := r.bytes(length)
	rest = r.b
	r = reader{b: body, order: order, bad: r.bad}
	if p.version = byte(min(r.u16(), 0xff)); p.version < 2 || p.version > 5 {
		return p, rest, false
	}
	if p.version == 5 {
		if size, selector := r.u8(), r.u8(); size != 8 || selector != 0 {
			return p, rest, false
		}
	}
	head := reader{b: r.bytes(r.offset(p.wide)), order: order}
	p.code = r
	p.minLength = head.u8()
	if p.version >= 4 && head.u8() != 1 { // of processors with instructions in bundles
		return p, rest, false
	}
	head.u8() // whether rows begin statements at first
	p.lineBase, p.lineRange = int8(head.u8()), head.u8()
	p.lengths = head.bytes(uint64(max(head.u8(), 1)) - 1)
	p.names = head
	return p, rest, !r.bad && !head.bad && p.lineRange > 0
}

// Opcodes, by DWARF 5, 7.22. Others have no effect on address, file and line.
const (
	opCopy, opAdvancePC, opAdvanceLine, opSetFile, opConstAddPC, opFixedAdvancePC = 1, 2, 3, 4, 8, 9

	opEndSequence, opSetAddress = 1, 2 // after a 0 and a length
)

// run calls do for each row, until it returns false.
func (p *lineProgram) run(do func(lineRow) bool) {
	row, r := lineRow{file: 1, line: 1}, p.code
	for len(r.b) > 0 && !r.bad {
		emit := false
		switch op := r.u8(); {
		case int(op) > len(p.lengths):
			emit = true
			p.special(op, &row)
		case op == 0:
			emit = extended(&r, &row)
		default:
			emit = op == opCopy
			p.standard(op, &r, &row)
		}
		if !emit {
			continue
		}
		if !do(row) {
			return
		}
		if row.end {
			row = lineRow{file: 1, line: 1}
		}
	}
}

// special advances address and line at once.
func (p *lineProgram) special(op byte, row *lineRow) {
	n := op - byte(len(p.lengths)) - 1
	row.addr += uint64(n/p.lineRange) * uint64(p.minLength)
	row.line += uint64(int(p.lineBase) + int(n%p.lineRange))
}

func (p *lineProgram) standard(op byte, r *reader, row *lineRow) {
	switch op {
	case opCopy:
	case opAdvancePC:
		row.addr += r.uleb() * uint64(p.minLength)
	case opAdvanceLine:
		row.line += r.sleb()
	case opSetFile:
		row.file = r.uleb()
	case opConstAddPC:
		row.addr += uint64((255-byte(len(p.lengths))-1)/p.lineRange) * uint64(p.minLength)
	case opFixedAdvancePC:
		row.addr += uint64(r.u16())
	default:
		for range p.lengths[op-1] {
			r.uleb()
		}
	}
}

// extended does what stands behind a 0, and reports whether that is the end of a sequence.
func extended(r *reader, row *lineRow) bool {
	x := reader{order: r.order}
	x.b = r.bytes(r.uleb())
	switch x.u8() {
	case opEndSequence:
		row.end = !x.bad
	case opSetAddress:
		row.addr = x.u64()
	}
	return row.end
}

// fileName returns the path of a file, from where the compiler ran where it is no absolute
// one; "" when it has none.
func (p *lineProgram) fileName(n uint64, lineStr []byte) string {
	table := p.oldNames
	if p.version == 5 {
		table = p.newNames
	}
	r := p.names
	table(&r, 0, false, lineStr) // the directories stand before the files
	name, dir := table(&r, n, true, lineStr)
	if name == "" || len(name) > maxPath {
		return ""
	}
	for _, d := range []uint64{dir, 0} { // 0 is where the compiler ran
		if path.IsAbs(name) {
			break
		}
		r = p.names
		in, _ := table(&r, d, false, lineStr)
		name = path.Join(in[:min(len(in), maxPath)], name)
		if d == 0 {
			break
		}
	}
	return path.Clean(name)
}

// maxPath bounds the path of a source file, in bytes.
const maxPath = 4096

// oldNames reads a table of directories or files as it is before DWARF 5, and returns the
// name and the directory of its entry n: the first is 1.
func (p *lineProgram) oldNames(r *reader, n uint64, files bool, _ []byte) (name string, dir uint64) {
	for i := uint64(1); ; i++ {
		text, in := r.text(), uint64(0)
		if len(text) == 0 {
			return name, dir
		}
		if files {
			in = r.uleb()
			r.uleb() // when it was changed
			r.uleb() // its size
		}
		if i == n {
			name, dir = string(text), in
		}
	}
}

// What the entries of tables have, and forms of it: DWARF 5, 7.22 and 7.5.6.
const (
	contentPath, contentDirectory = 1, 2

	formData2, formData4, formData8, formString, formBlock = 0x05, 0x06, 0x07, 0x08, 0x09
	formData1, formUdata, formData16, formLineStrp         = 0x0b, 0x0f, 0x1e, 0x1f
)

// newNames reads a table of directories or files as it is in DWARF 5, and returns the name
// and the directory of its entry n: the first is 0.
func (p *lineProgram) newNames(r *reader, n uint64, _ bool, lineStr []byte) (name string, dir uint64) {
	format := make([]struct{ content, form uint64 }, r.u8())
	for i := range format {
		format[i].content, format[i].form = r.uleb(), r.uleb()
	}
	count := r.uleb()
	for i := uint64(0); i < count && len(format) > 0 && !r.bad; i++ {
		for _, f := range format {
			text, number := r.form(f.form, p.wide)
			switch {
			case i != n || r.bad:
			case f.content == contentPath && f.form == formLineStrp:
				at := reader{b: lineStr}
				at.bytes(number)
				name = string(at.text())
			case f.content == contentPath:
				name = string(text)
			case f.content == contentDirectory:
				dir = number
			}
		}
	}
	return name, dir
}

// A reader reads numbers and texts. Where they end too early, it is bad, and has nothing more.
type reader struct {
	b     []byte
	order binary.ByteOrder
	bad   bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return r.order.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return r.order.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return r.order.Uint64(b)
	}
	return 0
}

// offset reads an offset in a section.
func (r *reader) offset(wide bool) uint64 {
	if wide {
		return r.u64()
	}
	return uint64(r.u32())
}

func (r *reader) uleb() uint64 {
	n, _ := r.leb()
	return n
}

func (r *reader) sleb() uint64 {
	n, bits := r.leb()
	if bits > 0 && bits < 64 && n>>(bits-1) != 0 {
		n |= ^uint64(0) << bits
	}
	return n
}

// leb reads a number in groups of 7 bits, and how many bits it has.
func (r *reader) leb() (n uint64, bits uint) {
	for !r.bad {
		b := r.u8()
		n |= uint64(b&0x7f) << bits
		bits += 7
		if b&0x80 == 0 {
			break
		}
	}
	return n, bits
}

// text reads a text that ends in NUL.
func (r *reader) text() []byte {
	i := bytes.IndexByte(r.b, 0)
	if i < 0 {
		i = len(r.b)
	}
	text := r.bytes(uint64(i))
	r.bytes(1)
	return text
}

// form reads a value of a form: a text, or a number, which may be where a text is. Of a form
// that is unknown it cannot tell the length.
func (r *reader) form(form uint64, wide bool) (text []byte, number uint64) {
	switch form {
	case formString:
		return r.text(), 0
	case formLineStrp:
		return nil, r.offset(wide)
	case formUdata:
		return nil, r.uleb()
	case formData1:
		return nil, uint64(r.u8())
	case formData2:
		return nil, uint64(r.u16())
	case formData4:
		return nil, uint64(r.u32())
	case formData8:
		return nil, r.u64()
	case formData16:
		r.bytes(16)
	case formBlock:
		r.bytes(r.uleb())
	default:
		r.b, r.bad = nil, true
	}
	return nil, 0
}
