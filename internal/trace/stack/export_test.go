package stack

import (
	"encoding/binary"
	"strings"
)

// RegsAt is a copy of struct pt_regs with this pc.
func RegsAt(pc uint64) []byte {
	b := make([]byte, 8*len(amd64.regs))
	binary.LittleEndian.PutUint64(b[8*16:], pc)
	return b
}

// TextOf returns the address of the first function in the code that a process has
// mapped from a folder, or 0.
func TextOf(pid int, dir string) uint64 {
	maps, err := readMaps(pid)
	if err != nil {
		return 0
	}
	for i := range maps {
		mp := &maps[i]
		if !mp.exec || !strings.HasPrefix(mp.path, dir) {
			continue
		}
		m, err := openModule(pid, mp)
		if err != nil {
			return 0
		}
		defer m.close()
		text := m.elf.Section(".text")
		base, ok := m.address(mp.offset)
		if text == nil || !ok {
			return 0
		}
		return text.Addr - base + mp.start + 8
	}
	return 0
}
