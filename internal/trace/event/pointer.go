package event

// Pointer is an address in a process: what libvirt's probes know objects by.
type Pointer struct {
	PID  int
	Addr uint64
}

// maxKept is how many entries a map that follows events holds at the most.
const maxKept = 1 << 16

// Bound empties a map that has outgrown its bound: what is forgotten is found
// again, or shown without.
func Bound[K comparable, V any](m map[K]V) {
	if len(m) >= maxKept {
		clear(m)
	}
}

// Forget drops from a map what belongs to processes that are gone.
func Forget[V any](m map[Pointer]V, gone func(pid int) bool) {
	for at := range m {
		if gone(at.PID) {
			delete(m, at)
		}
	}
}
