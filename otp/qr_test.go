package otp

import (
	"bytes"
	"image/png"
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

// TestQRIsDrawnAlike: terminal, SVG and PNG show the same modules.
func TestQRIsDrawnAlike(t *testing.T) {
	q, err := NewQR(NewOATH(postern.TOTP, "alice", "phone").URL("Postern"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(q.PNG()))
	if err != nil {
		t.Fatal(err)
	}
	scale := img.Bounds().Dx() / q.side()
	svg := q.SVG()
	lines := strings.Split(strings.TrimSpace(q.Terminal()), "\n")
	n := 0
	for y := range q.side() {
		row := []rune(strings.NewReplacer("\x1b[38;2;255;255;255;48;2;0;0;0m", "", "\x1b[0m", "").Replace(lines[y/2]))
		for x := range q.side() {
			r, _, _, _ := img.At(x*scale+scale/2, y*scale+scale/2).RGBA()
			dark := r < 0x8000
			light := strings.ContainsRune(map[int]string{0: "█▀", 1: "█▄"}[y%2], row[x])
			if dark != q.dark(x, y) || light == dark {
				t.Fatalf("module %d,%d: PNG %v, terminal %v, want %v", x, y, dark, !light, q.dark(x, y))
			}
			if dark {
				n++
			}
		}
	}
	if got := strings.Count(svg, "h1v1h-1z"); got != n || n == 0 {
		t.Errorf("the SVG draws %d modules of %d", got, n)
	}
	if _, err := NewQR(strings.Repeat("x", 10_000)); err == nil {
		t.Error("a text too long for a QR code is encoded")
	}
}

func TestASecretIsWrittenAsItsFileIsNamed(t *testing.T) {
	o := NewOATH(postern.TOTP, "alice", "phone")
	for name, begin := range map[string]string{
		"a.png": "\x89PNG", "a.svg": "<svg", "a.txt": "otpauth://totp/Org:alice?", "": "otpauth://totp/Org:alice?",
	} {
		text, err := o.File(name, "Org")
		if err != nil || !strings.HasPrefix(string(text), begin) {
			t.Errorf("%q begins with %.30q, %v", name, text, err)
		}
	}
}
