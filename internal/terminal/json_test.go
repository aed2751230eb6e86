package terminal

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestJSONHasNothingThatATerminalObeys(t *testing.T) {
	const foreign = "vm\x1b[2J\u009b2J\x7f\u202e\u2066x\U000e0041é🔒<&>"
	var b bytes.Buffer
	if err := JSON(&b, foreign); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), `"vm\u001b[2J\u009b2J\u007f\u202e\u2066x\udb40\udc41é🔒<&>"`+"\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	var back string
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != foreign {
		t.Errorf("%q comes back: %v", back, err)
	}
}
