package stack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
)

// A mapping is one executable or other file-backed range of a process.
type mapping struct {
	start, end uint64
	offset     uint64 // in the file
	exec       bool
	dev        string // major:minor, in hexadecimal as the kernel writes it
	inode      uint64
	path       string
	base       uint64 // where the file's first mapping starts
	size       uint64 // from there to the end of its last
}

// The bounds of what is read of a process's maps: a process has up to 65,530
// mappings of some hundred bytes.
const (
	maxMapsBytes = 16 << 20
	maxMappings  = 1 << 16
)

// readMaps reads a process's mappings in one go, so that they are of one moment
// as far as the kernel gives that.
func readMaps(pid int) ([]mapping, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMapsBytes))
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, errors.New("the process has exited")
	}
	return parseMaps(b), nil
}

// parseMaps reads the text of /proc/PID/maps. Lines that are not of its form are
// left out; what has no file is too, but for the vDSO.
func parseMaps(b []byte) []mapping {
	var all []mapping
	for line := range bytes.Lines(b) {
		if m, ok := parseMapping(bytes.TrimSuffix(line, []byte("\n"))); ok && len(all) < maxMappings {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b mapping) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	bases(all)
	return all
}

func parseMapping(line []byte) (mapping, bool) {
	var f [5][]byte
	rest := line
	for i := range f {
		rest = bytes.TrimLeft(rest, " ")
		n := bytes.IndexByte(rest, ' ')
		if n < 0 {
			n = len(rest)
		}
		f[i], rest = rest[:n], rest[n:]
	}
	lo, hi, ok := bytes.Cut(f[0], []byte("-"))
	if !ok || len(f[1]) < 4 {
		return mapping{}, false
	}
	m := mapping{exec: f[1][2] == 'x', dev: string(f[3]), path: string(bytes.TrimLeft(rest, " "))}
	var errs [4]error
	m.start, errs[0] = strconv.ParseUint(string(lo), 16, 64)
	m.end, errs[1] = strconv.ParseUint(string(hi), 16, 64)
	m.offset, errs[2] = strconv.ParseUint(string(f[2]), 16, 64)
	m.inode, errs[3] = strconv.ParseUint(string(f[4]), 10, 64)
	if errors.Join(errs[:]...) != nil || m.end <= m.start {
		return mapping{}, false
	}
	return m, m.path == vdsoName || m.inode != 0
}

const vdsoName = "[vdso]"

// bases sets where each file's mappings begin and end. Mappings of one file
// belong together while their offsets grow.
func bases(all []mapping) {
	for i := 0; i < len(all); {
		j := i + 1
		for j < len(all) && all[j].inode == all[i].inode && all[j].dev == all[i].dev && all[j].path == all[i].path &&
			all[j].offset > all[j-1].offset {
			j++
		}
		for k := i; k < j; k++ {
			all[k].base, all[k].size = all[i].start, all[j-1].end-all[i].start
		}
		i = j
	}
}

// find returns the mapping that holds an address, or nil.
func find(maps []mapping, addr uint64) *mapping {
	i, ok := slices.BinarySearchFunc(maps, addr, func(m mapping, addr uint64) int {
		switch {
		case m.end <= addr:
			return -1
		case m.start > addr:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return &maps[i]
}
