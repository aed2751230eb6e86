package stack

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"sync"

	"github.com/postern-project/postern/internal/trace/event"
)

// Namer names the functions of stacks whose files had no names when they were unwound: by
// debug files, which it finds by the files' build-ids. It is not safe for concurrent use.
// Close ends it.
type Namer struct {
	// Debug lists folders with debug files by build-id; nil means /usr/lib/debug.
	Debug []string
	// Fetch returns the path of the debug file of a build-id in hexadecimal; nil for none.
	// Its error is that there is none.
	Fetch func(id string) (string, error)
	// Background fetches without waiting: frames have no names until the file is there.
	Background bool

	names    map[place]string
	files    map[string]*symbols // by build-id; nil for none
	fetching sync.WaitGroup
	fetched  chan fetched
}

// fetched is a debug file that was fetched in the background.
type fetched struct {
	id      string
	symbols *symbols
}

// place is where a function begins.
type place struct {
	id    string
	start uint64
}

// maxNamed bounds how many files and functions are remembered.
const (
	maxNamedFiles = 128
	maxNamed      = 1 << 16
)

// Close waits until nothing is fetched any more, which what Fetch uses must end.
func (n *Namer) Close() { n.fetching.Wait() }

// Name names the frames that have none and whose function is known by its bounds.
func (n *Namer) Name(frames []event.Frame) {
	n.collect()
	for i := range frames {
		if f := &frames[i]; f.Symbol == "" && f.Size > 0 && f.BuildID != "" {
			f.Symbol = n.name(place{f.BuildID, f.Start})
		}
	}
}

func (n *Namer) name(at place) string {
	name, known := n.names[at]
	if known {
		return name
	}
	if s := n.file(at.id); s != nil {
		if f := s.find(at.start); f != nil {
			name = s.name(f)
		}
	}
	if n.names == nil || len(n.names) >= maxNamed {
		n.names = map[place]string{}
	}
	n.names[at] = name
	return name
}

// file returns the functions of the debug file of a build-id, or nil.
func (n *Namer) file(id string) *symbols {
	s, known := n.files[id]
	if known {
		return s
	}
	if n.files == nil || len(n.files) >= maxNamedFiles {
		n.files = map[string]*symbols{}
	}
	s = n.read(id)
	n.files[id] = s
	return s
}

func (n *Namer) read(id string) *symbols {
	want, err := hex.DecodeString(id)
	if err != nil || len(want) < 3 || len(want) > 64 {
		return nil
	}
	for _, dir := range n.debug() {
		if s := readDebug(filepath.Join(dir, ".build-id", id[:2], id[2:]+".debug"), want); s != nil {
			return s
		}
	}
	switch {
	case n.Fetch == nil:
		return nil
	case n.Background:
		n.start(id, want)
		return nil
	}
	return n.fetch(id, want)
}

func (n *Namer) fetch(id string, want []byte) *symbols {
	file, err := n.Fetch(id)
	if err != nil {
		return nil
	}
	return readDebug(file, want)
}

// start fetches a debug file in the background. What does not fit into the channel is
// fetched again when it is asked for again.
func (n *Namer) start(id string, want []byte) {
	if n.fetched == nil {
		n.fetched = make(chan fetched, maxNamedFiles)
	}
	n.fetching.Go(func() {
		if s := n.fetch(id, want); s != nil {
			select {
			case n.fetched <- fetched{id, s}:
			default:
			}
		}
	})
}

// collect takes what was fetched in the background. Functions of it that had no name get
// one from now on.
func (n *Namer) collect() {
	for {
		select {
		case f := <-n.fetched:
			n.files[f.id] = f.symbols
			clear(n.names)
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

// readDebug returns the functions of a debug file that has this build-id, or nil.
func readDebug(path string, id []byte) *symbols {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	e, err := elfFile(f)
	if err != nil || !bytes.Equal(buildID(e), id) {
		return nil
	}
	s := new(symbols)
	s.add(e)
	s.sort()
	return s
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
