package front

import (
	"slices"
	"strings"
	"testing"
)

func TestTimelineBlock(t *testing.T) {
	adapt := func(block string) (App, error) {
		config, _, err := Adapt([]byte("{\n\tpostern {\n\t\ttimeline {\n"+block+"\n\t\t}\n\t}\n}\n"), "Caddyfile")
		if err != nil {
			return App{}, err
		}
		return Options(config)
	}
	o, err := adapt("tree anyone\nentries admin auditors\npolicy /etc/postern/witnesses\nevery 1m")
	if err != nil || o.Timeline == nil {
		t.Fatal(o, err)
	}
	if l := o.Timeline; !slices.Equal(l.Tree, []string{Anyone}) ||
		!slices.Equal(l.Entries, []string{"admin", "auditors"}) || l.Policy != "/etc/postern/witnesses" ||
		l.Every == 0 {
		t.Errorf("%+v", l)
	}
	for block, want := range map[string]string{
		"entries anyone": "personal data", "entries": "", "policy": "", "publish all": `not "publish"`,
		"}\ntimeline {": "there is one timeline",
	} {
		if _, err := adapt(block); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", block, err)
		}
	}
}
