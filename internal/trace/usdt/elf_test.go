package usdt

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"testing"
)

// builtELF makes an ELF file of notes: code at 0x1000 (file offset 0x1000),
// data at 0x5000 (file offset 0x3000), .stapsdt.base at base.
func builtELF(machine elf.Machine, notes []byte, base uint64) []byte {
	const headers, textOff, dataOff, names = 64 + 2*56, 0x1000, 0x3000,
		"\x00.note.stapsdt\x00.stapsdt.base\x00.shstrtab\x00"
	le := binary.LittleEndian
	b := make([]byte, dataOff+0x1000)
	notesAt := uint64(len(b))
	b = append(b, notes...)
	namesAt := uint64(len(b))
	b = append(b, names...)
	sections := uint64(len(b))
	put := func(v any) { b, _ = binary.Append(b, le, v) }
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_NOTE), Off: notesAt, Size: uint64(len(notes)), Addralign: 4})
	put(elf.Section64{Name: 15, Type: uint32(elf.SHT_PROGBITS), Addr: base, Off: textOff, Size: 1, Addralign: 1})
	put(elf.Section64{Name: 29, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names)), Addralign: 1})

	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Phoff: 64, Shoff: sections,
		Ehsize: 64, Phentsize: 56, Phnum: 2, Shentsize: 64, Shnum: 4, Shstrndx: 3,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	head, _ := binary.Append(nil, le, h)
	head, _ = binary.Append(head, le, elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Off: textOff, Vaddr: 0x1000, Filesz: 0x1000, Memsz: 0x1000,
	})
	head, _ = binary.Append(head, le, elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W),
		Off: dataOff, Vaddr: 0x5000, Filesz: 0x100, Memsz: 0x1000,
	})
	copy(b, head[:headers])
	return b
}

func builtNote(location, base, semaphore uint64, text string) []byte {
	le := binary.LittleEndian
	desc := le.AppendUint64(nil, location)
	desc = le.AppendUint64(desc, base)
	desc = le.AppendUint64(desc, semaphore)
	desc = append(desc, text...)
	n := le.AppendUint32(nil, 8)
	n = le.AppendUint32(n, uint32(len(desc)))
	n = le.AppendUint32(n, stapNote)
	n = append(append(n, "stapsdt\x00"...), desc...)
	for len(n)%4 != 0 {
		n = append(n, 0)
	}
	return n
}

func TestPlacesAreFileOffsets(t *testing.T) {
	const text = "libvirt\x00rpc_client_new\x008@%rbx\x00"
	for _, c := range []struct {
		name          string
		base          uint64
		addr, at, sem uint64
		noted         [3]uint64 // location, base, semaphore
	}{
		{"as linked", 0x1800, 0x1234, 0x1234, 0x3010, [3]uint64{0x1234, 0x1800, 0x5010}},
		{"prelinked up", 0x1900, 0x1334, 0x1334, 0x3110, [3]uint64{0x1234, 0x1800, 0x5010}},
		{"prelinked down", 0x1700, 0x1134, 0x1134, 0x3000, [3]uint64{0x1234, 0x1800, 0x5100}},
		{"semaphore past the file's data", 0x1800, 0x1234, 0x1234, 0x3800, [3]uint64{0x1234, 0x1800, 0x5800}},
		{"no semaphore", 0x1800, 0x1234, 0x1234, 0, [3]uint64{0x1234, 0x1800, 0}},
		{"no base section", 0, 0x1234, 0x1234, 0x3010, [3]uint64{0x1234, 0x1800, 0x5010}},
	} {
		t.Run(c.name, func(t *testing.T) {
			notes := builtNote(c.noted[0], c.noted[1], c.noted[2], text)
			f, err := Open(bytes.NewReader(builtELF(elf.EM_X86_64, notes, c.base)))
			if err != nil {
				t.Fatal(err)
			}
			p := f.Probes[0]
			if len(f.Probes) != 1 || p.Addr != c.addr || p.Offset != c.at || p.Semaphore != c.sem || p.Err != nil {
				t.Errorf("%+v, want address 0x%x at 0x%x, semaphore at 0x%x", p, c.addr, c.at, c.sem)
			}
		})
	}
}

func TestFilesThatCannotBeTraced(t *testing.T) {
	const text = "libvirt\x00probe\x00\x00"
	outside := builtELF(elf.EM_X86_64, builtNote(0x9000, 0, 0, text), 0)
	if _, err := Open(bytes.NewReader(outside)); err == nil {
		t.Error("a probe outside the code is accepted")
	}
	readonly := builtELF(elf.EM_X86_64, builtNote(0x1000, 0, 0x1000, text), 0)
	if _, err := Open(bytes.NewReader(readonly)); err == nil {
		t.Error("a semaphore in read-only memory is accepted")
	}
	without := builtELF(elf.EM_X86_64, nil, 0)
	without = bytes.Replace(without, []byte(".note.stapsdt"), []byte(".note.xxxxxxx"), 1)
	if _, err := Open(bytes.NewReader(without)); !errors.Is(err, ErrNoProbes) {
		t.Errorf("a file without probes: %v", err)
	}
	// What cannot be read can still be counted.
	odd, err := Open(bytes.NewReader(builtELF(elf.EM_X86_64,
		builtNote(0x1000, 0, 0, "libvirt\x00probe\x008@%nope\x00"), 0)))
	if err != nil || odd.Probes[0].Err == nil {
		t.Errorf("a probe with an unknown register: %v", err)
	}
}
