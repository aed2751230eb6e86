package event

// Frame is one level of a stack.
type Frame struct {
	PC           uint64 // of the innermost frame the instruction, of the others where the call returns to
	Symbol       string // the function's name; "" when nothing names it
	Start        uint64 // where the function begins, in the module's own addresses
	Offset       uint64 // of PC in the function
	Size         uint64 // of the function, in bytes; 0 when not even its bounds are known
	Module       string // path of the mapped file, or [vdso]; "" when PC is in none
	BuildID      string // of the file, in hexadecimal; "" when it has none
	ModuleOffset uint64 // of PC from where the module is mapped
	ModuleSize   uint64 // bytes from there to the end of its last mapping
	// File and Line are the source line of PC, or of the call that returns there: a path as
	// the compiler knew it, from where it ran unless it is absolute; "" and 0 when unknown.
	File string
	Line int
}

// Return is where a function whose return is watched returns to, and the stack
// pointer then.
type Return struct{ PC, SP uint64 }
