package terminal

import "testing"

func TestASlipOfTheKeyboardIsRecognized(t *testing.T) {
	words := []string{"list", "issue", "revoke", "renew", "show"}
	for word, want := range map[string]string{
		"lst": "list", "lsit": "list", "isue": "issue", "revok": "revoke", "shwo": "show", "xyz": "", "l": "", "": "",
		"destroy": "",
	} {
		if got := Nearest(word, words); got != want {
			t.Errorf("%q is taken for %q, not %q", word, got, want)
		}
	}
}
