package hostconf

import (
	"fmt"
	"strings"
	"testing"
)

func TestMappingsAreReadAsMeant(t *testing.T) {
	for line, want := range map[string]string{
		"alice:ccccccbcdefg":               "alice ccccccbcdefg literal",
		"alice:ccccccbcdefg:vvvvvvvvvvvv":  "alice ccccccbcdefg,vvvvvvvvvvvv literal",
		"alice:CCCCCCBCDEFG":               "alice ccccccbcdefg",
		"\talice :\tccccccbcdefg ":         "alice ccccccbcdefg",
		"alice:ccccccbcdefg\r":             "alice ccccccbcdefg",
		"alice:ccccccbcdefg # blue: left":  "alice ccccccbcdefg",
		"alice:ccccccbcdefg:":              "alice ccccccbcdefg",
		"\ufeffalice:ccccccbcdefg":         "alice ccccccbcdefg",
		"domain user:cb":                   "domain user cb literal",
		"jürgen:cb":                        "jürgen cb literal",
		"# alice:ccccccbcdefg":             "",
		"  # alice":                        "",
		"":                                 "",
		" \t":                              "",
		"alice":                            "unreadable",
		"alice:":                           "unreadable",
		":ccccccbcdefg":                    "unreadable",
		"alice ccccccbcdefg":               "unreadable",
		"alice:abcdef":                     "unreadable",
		"alice:ccccccbcdefg,vvvvvvvvvvvv":  "unreadable",
		"alice:" + strings.Repeat("c", 44): "unreadable",
		"alice\x00:ccccccbcdefg":           "unreadable",
		"alice = ccccccbcdefg":             "unreadable",
	} {
		read, unreadable := Mappings("f", []byte(line+"\n"))
		got := ""
		for _, m := range read {
			got += m.Account + " " + strings.Join(m.IDs, ",") + map[bool]string{true: " literal"}[m.Literal]
		}
		for _, l := range unreadable {
			got += "unreadable"
			if strings.Contains(fmt.Sprint(l), "ccccc") {
				t.Errorf("%q: the line's secrets are shown: %v", line, l)
			}
		}
		if got != want {
			t.Errorf("%q is read as %q, want %q", line, got, want)
		}
	}
}

func FuzzMappings(f *testing.F) {
	f.Add([]byte("alice:ccccccbcdefg:vv # x\n\n#\nbob\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		read, unreadable := Mappings("f", b)
		if n := strings.Count(string(b), "\n") + 1; len(read)+len(unreadable) > n {
			t.Errorf("%d lines of %d", len(read)+len(unreadable), n)
		}
		for _, m := range read {
			if m.Account == "" || len(m.IDs) == 0 {
				t.Errorf("%+v", m)
			}
		}
	})
}
