package usdt

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Mapping is a file that a process has mapped, at the first place it did.
type Mapping struct {
	Path       string // in the process's own mount namespace
	Deleted    bool   // Path names another file by now, or none
	Dev        string // as in /proc/PID/maps
	Inode      uint64
	Start, End uint64
}

// Mappings returns the files that a process has mapped, each once.
func Mappings(pid int) ([]Mapping, error) {
	// One read: the kernel may show a file twice or not at all when the process
	// maps something between two.
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	return parseMaps(data), nil
}

func parseMaps(data []byte) []Mapping {
	var out []Mapping
	for line := range bytes.Lines(data) {
		m, ok := parseMapping(string(bytes.TrimRight(line, "\n")))
		if !ok || len(out) > 0 && out[len(out)-1].Inode == m.Inode && out[len(out)-1].Dev == m.Dev {
			continue
		}
		out = append(out, m)
	}
	return out
}

// parseMapping reads one line of maps: "7f00-7f01 r-xp 00000000 fe:00 123 /path".
func parseMapping(line string) (m Mapping, ok bool) {
	var f [5]string
	rest := line
	for i := range f {
		f[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
	}
	path := strings.TrimLeft(rest, " ")
	if !strings.HasPrefix(path, "/") {
		return m, false
	}
	from, to, _ := strings.Cut(f[0], "-")
	var errs [3]error
	m.Start, errs[0] = strconv.ParseUint(from, 16, 64)
	m.End, errs[1] = strconv.ParseUint(to, 16, 64)
	m.Inode, errs[2] = strconv.ParseUint(f[4], 10, 64)
	for _, err := range errs {
		if err != nil {
			return m, false
		}
	}
	m.Dev = f[3]
	m.Path, m.Deleted = strings.CutSuffix(path, " (deleted)")
	return m, true
}

// Open opens the very file that a process has mapped, also when it was replaced
// on disk or lies in another mount namespace.
func (m Mapping) Open(pid int) (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, m.Start, m.End))
	if err == nil || m.Deleted {
		return f, err
	}
	// Without CAP_CHECKPOINT_RESTORE map_files is closed; the path does as long
	// as the file was not replaced.
	return os.Open(fmt.Sprintf("/proc/%d/root%s", pid, m.Path))
}
