//go:build !linux

package system

import (
	"context"
	"os"
)

// OpenInRoot fails: it needs Linux.
func OpenInRoot(string, string) (*os.File, error) {
	return nil, NeedsLinux("reading below another root")
}

// StatInRoot fails: it needs Linux.
func StatInRoot(string, string) (os.FileInfo, error) {
	return nil, NeedsLinux("reading below another root")
}

// Sandbox runs nothing: it needs Linux.
type Sandbox struct{}

// NewSandbox fails: it needs Linux.
func NewSandbox(string) (*Sandbox, error) {
	return nil, NeedsLinux("running a program below another root")
}

// Close does nothing.
func (*Sandbox) Close() {}

// MakeDir fails: it needs Linux.
func (*Sandbox) MakeDir(string) error { return NeedsLinux("running a program below another root") }

// Write fails: it needs Linux.
func (*Sandbox) Write(string, []byte) error {
	return NeedsLinux("running a program below another root")
}

// Output fails: it needs Linux.
func (*Sandbox) Output(context.Context, ...string) (stdout, stderr []byte, err error) {
	return nil, nil, NeedsLinux("running a program below another root")
}
