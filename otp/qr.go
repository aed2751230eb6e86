package otp

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// QR is a QR code of an otpauth: URL, to be shown and scanned. It contains the secret.
type QR struct{ code *qr.Code }

// NewQR encodes a text. It fails if the text is too long for a QR code.
func NewQR(text string) (QR, error) {
	code, err := qr.Encode(text, qr.M)
	return QR{code}, err
}

// quiet is the margin of light modules that scanners need.
const quiet = 4

// dark reports whether a module is dark, margin included.
func (q QR) dark(x, y int) bool { return q.code.Black(x-quiet, y-quiet) }

func (q QR) side() int { return q.code.Size + 2*quiet }

// Terminal draws the code with half blocks, two modules a character. It sets both
// colours, so that the terminal's own background does not matter.
func (q QR) Terminal() string {
	var b strings.Builder
	for y := 0; y < q.side(); y += 2 {
		b.WriteString("\x1b[38;2;255;255;255;48;2;0;0;0m")
		for x := range q.side() {
			top, bottom := !q.dark(x, y), y+1 < q.side() && !q.dark(x, y+1)
			switch {
			case top && bottom:
				b.WriteString("█")
			case top:
				b.WriteString("▀")
			case bottom:
				b.WriteString("▄")
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String()
}

// PNG returns the code as a PNG image.
func (q QR) PNG() []byte { return q.code.PNG() }

// SVG returns the code as a scalable SVG image without scripts or styles, which can be
// included in a page.
func (q QR) SVG() string {
	var path strings.Builder
	for y := range q.side() {
		for x := range q.side() {
			if q.dark(x, y) {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x, y)
			}
		}
	}
	return fmt.Sprintf(
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges" `+
			`role="img" aria-label="QR code">`+
			`<path fill="#fff" d="M0 0h%dv%dH0z"/><path d="%s"/></svg>`, q.side(), q.side(), q.side(), q.side(),
		path.String())
}

// File returns the secret as a file of that name holds it, for the app of an issuer's
// name: as a QR code in a .png or .svg image, else as an otpauth: URL in a line.
func (o *OATH) File(name, issuer string) ([]byte, error) {
	url := o.URL(issuer)
	code, err := NewQR(url)
	switch {
	case err != nil:
		return nil, err
	case strings.HasSuffix(name, ".png"):
		return code.PNG(), nil
	case strings.HasSuffix(name, ".svg"):
		return []byte(code.SVG()), nil
	}
	return []byte(url + "\n"), nil
}
