//go:build !cgo

package module

// Module stands for what cannot be done without cgo.
type Module struct{}

// Open says so.
func (*Module) Open(OpenArgs, *None) error { return ErrWithout }
