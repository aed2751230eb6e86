package stack

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/postern-project/postern/internal/trace/event"
)

// Namer names the functions of stacks whose files had no names when they were unwound, and
// the source lines: by debug files, which it finds by the files' build-ids. It is not safe for
// concurrent use. Close ends it.
type Namer struct {
	// Debug lists folders with debug files by build-id; nil means /usr/lib/debug.
	Debug []string
	// Cached returns the path that the debug file of a build-id in hexadecimal has if it was
	// fetched before; nil for none.
	Cached func(id string) string
	// Fetch returns the path of such a file, which may take long; nil for none. Its error is
	// that there is none.
	Fetch func(id string) (string, error)
	// Background fetches without waiting: frames have no names until the file is there.
	Background bool

	names    map[place]string
	lines    map[place]line
	files    map[string]*debugFile // by build-id; of what there is none, an empty one
	size     int                   // of files, in bytes, roughly
	fetching sync.WaitGroup
	fetched  chan fetched
}

// debugFile is what is known of the code of a file.
type debugFile struct {
	symbols *symbols // nil when nothing names functions
	lines   *lines   // nil when nothing tells source lines
	asked   bool     // it was fetched, or cannot be
}

func (d *debugFile) size() int { return d.symbols.size() + d.lines.size() }

// fetched is a debug file that was fetched in the background.
type fetched struct {
	id   string
	file *debugFile
}

// place is an address in a file: where a function begins, or an instruction.
type place struct {
	id   string
	addr uint64
}

// line is a source line.
type line struct {
	file   string
	number int
}

// maxNamed bounds how many files and functions are remembered, and how many bytes of files.
const (
	maxNamedFiles = 128
	maxNamedBytes = 256 << 20
	maxNamed      = 1 << 16
)

// Close waits until nothing is fetched any more, which what Fetch uses must end.
func (n *Namer) Close() { n.fetching.Wait() }

// Name names the frames that have none and whose function is known by its bounds, and says
// which source lines they stand in.
func (n *Namer) Name(frames []event.Frame) {
	n.collect()
	for i := range frames {
		f := &frames[i]
		if f.Size == 0 || f.BuildID == "" {
			continue
		}
		if f.Symbol == "" {
			f.Symbol = n.name(place{f.BuildID, f.Start}, f.Module)
		}
		if f.File == "" {
			at := f.Start + f.Offset
			if i > 0 {
				at-- // it returns to the instruction after the call
			}
			l := n.line(place{f.BuildID, at}, f.Module)
			f.File, f.Line = l.file, l.number
		}
	}
}

// name returns the name of the function that begins at a place of the file at a path.
func (n *Namer) name(at place, path string) string {
	name, known := n.names[at]
	if known {
		return name
	}
	d := n.file(at.id, path)
	if d.symbols == nil && !d.asked {
		d.asked = true
		n.ask(at.id, d)
	}
	if d.symbols != nil {
		if f := d.symbols.find(at.addr); f != nil {
			name = d.symbols.name(f)
		}
	}
	remember(&n.names, at, name)
	return name
}

// line returns the source line of an instruction. Nothing is fetched for lines alone.
func (n *Namer) line(at place, path string) line {
	l, known := n.lines[at]
	if known {
		return l
	}
	if d := n.file(at.id, path); d.lines != nil {
		l.file, l.number = d.lines.find(at.addr)
	}
	remember(&n.lines, at, l)
	return l
}

func remember[V any](known *map[place]V, at place, v V) {
	if *known == nil || len(*known) >= maxNamed {
		*known = map[place]V{}
	}
	(*known)[at] = v
}

// file returns what is known of the code of the file at a path that has this build-id.
func (n *Namer) file(id, path string) *debugFile {
	d := n.files[id]
	if d == nil {
		d = n.read(id, path)
		n.keep(id, d)
	}
	return d
}

func (n *Namer) keep(id string, d *debugFile) {
	if n.files == nil || len(n.files) >= maxNamedFiles || n.size+d.size() > maxNamedBytes {
		n.files, n.size = map[string]*debugFile{}, 0
	}
	n.files[id] = d
	n.size += d.size()
}

// read reads the debug file of a build-id that this host has. Where there is none, the file
// itself may tell its lines; its functions had their names before.
func (n *Namer) read(id, path string) *debugFile {
	want, err := hex.DecodeString(id)
	if err != nil || len(want) < 3 || len(want) > 64 {
		return &debugFile{asked: true}
	}
	var places []string
	for _, dir := range n.debug() {
		places = append(places, filepath.Join(dir, ".build-id", id[:2], id[2:]+".debug"))
	}
	if n.Cached != nil {
		places = append(places, n.Cached(id))
	}
	for _, p := range places {
		if d := readDebug(p, want); d != nil {
			return d
		}
	}
	d := &debugFile{asked: n.Fetch == nil}
	withFile(path, want, func(e *elf.File) { d.lines = readLines(e) })
	return d
}

// ask fetches the debug file of a build-id. In the background what does not fit into the
// channel stays unknown.
func (n *Namer) ask(id string, d *debugFile) {
	want, _ := hex.DecodeString(id)
	fetch := func() *debugFile {
		file, err := n.Fetch(id)
		if err != nil {
			return nil
		}
		return readDebug(file, want)
	}
	if !n.Background {
		if got := fetch(); got != nil {
			n.take(d, got)
		}
		return
	}
	if n.fetched == nil {
		n.fetched = make(chan fetched, maxNamedFiles)
	}
	n.fetching.Go(func() {
		if got := fetch(); got != nil {
			select {
			case n.fetched <- fetched{id, got}:
			default:
			}
		}
	})
}

// take adds what a fetched debug file tells. What had no name or line gets one from now on.
func (n *Namer) take(d, got *debugFile) {
	n.size += got.size() - d.size()
	*d = *got
	clear(n.names)
	clear(n.lines)
}

// collect takes what was fetched in the background.
func (n *Namer) collect() {
	for {
		select {
		case f := <-n.fetched:
			if d := n.files[f.id]; d != nil {
				n.take(d, f.file)
			}
		default:
			return
		}
	}
}

func (n *Namer) debug() []string {
	if n.Debug == nil {
		return []string{debugDir}
	}
	return n.Debug
}

// readDebug returns what a debug file tells that has this build-id, or nil.
func readDebug(path string, id []byte) (d *debugFile) {
	withFile(path, id, func(e *elf.File) {
		d = &debugFile{symbols: new(symbols), lines: readLines(e), asked: true}
		d.symbols.add(e)
		d.symbols.sort()
	})
	return d
}

// withFile calls do with the ELF file at a path, if it has this build-id. The path may be
// anything: a recording names it.
func withFile(path string, id []byte, do func(*elf.File)) {
	if fi, err := os.Stat(path); !filepath.IsAbs(path) || err != nil || !fi.Mode().IsRegular() {
		return
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if e, err := elfFile(f); err == nil && bytes.Equal(buildID(e), id) {
		do(e)
	}
}

// Naming is a sink that names the frames of events before it hands them on.
type Naming struct {
	event.Sink
	Namer *Namer // nil names none
}

// Event names an event's frames and hands it on.
func (n Naming) Event(e *event.Event) error {
	if n.Namer != nil {
		n.Namer.Name(e.Frames)
	}
	return n.Sink.Event(e)
}
