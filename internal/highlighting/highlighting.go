// Package highlighting stands in for the extension that highlights code in what Caddy's
// templates render from Markdown. Goldmark itself then writes a block of code, with its
// language as a class.
package highlighting

import (
	"github.com/alecthomas/chroma/v2/formatters/html"
	"github.com/yuin/goldmark"
)

// Option stands in for an option of the extension.
type Option struct{}

// WithFormatOptions takes how highlighted code is written, and uses nothing of it.
func WithFormatOptions(...html.Option) Option { return Option{} }

// NewHighlighting returns an extension that changes nothing.
func NewHighlighting(...Option) goldmark.Extender { return unchanged{} }

type unchanged struct{}

func (unchanged) Extend(goldmark.Markdown) {}
