package terminal

import (
	"io"
	"os"

	"github.com/postern-project/postern"
)

// maxContent bounds what flags read from files, bytes.
const maxContent = 1 << 20

// Content is the text that a flag reads from a file, a pflag.Value; of several files, one
// after the other, each with a line break at its end.
type Content []byte

// Set implements pflag.Value.
func (c *Content) Set(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxContent+1))
	if err == nil && len(b) > maxContent {
		err = postern.Errorf(postern.Invalid, "%s is larger than %d KiB", path, maxContent>>10)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	*c = append(*c, b...)
	return err
}

// String implements pflag.Value.
func (*Content) String() string { return "" }

// Type implements pflag.Value.
func (*Content) Type() string { return "file" }
