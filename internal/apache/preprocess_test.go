package apache_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/postern-project/postern/internal/apache"
)

// TestConditionsAndMacros converts lines under conditions and in macros: a place
// whose name begins with /in is guarded, one that begins with /out is not.
func TestConditionsAndMacros(t *testing.T) {
	place := func(name string) string { return "<Location /" + name + ">\nRequire all denied\n</Location>\n" }
	for name, text := range map[string]string{
		"a name that is defined": "Define A\n<IfDefine A>\n" + place("in") + "</IfDefine>\n<IfDefine !A>\n" +
			place("out") + "</IfDefine>\n",
		"a name that is defined later": "<IfDefine A>\n" + place("out") + "</IfDefine>\nDefine A\n" + place("in"),
		"a name defined under another": "<IfDefine A>\nDefine B\n</IfDefine>\n<IfDefine B>\n" + place("out") +
			"</IfDefine>\n" + place("in"),
		"a name that is taken back": "Define A\nUnDefine A\n<IfDefine A>\n" + place("out") + "</IfDefine>\n" +
			place("in"),
		"a module that is loaded": "LoadModule ssl_module modules/mod_ssl.so\n<IfModule mod_ssl.c>\n" + place("in") +
			"</IfModule>\n<IfModule !ssl_module>\n" + place("out") + "</IfModule>\n",
		"a module that is not": "LoadModule ssl_module modules/mod_ssl.so\n<IfModule mod_evasive.c>\n" +
			place("out") + "</IfModule>\n<IfModule !mod_evasive.c>\n" + place("in") + "</IfModule>\n",
		"a module, with none named": "<IfModule mod_ssl.c>\n" + place("in") + "</IfModule>\n",
		"a release": "<IfVersion >= 2.4>\n" + place("in") + "</IfVersion>\n<IfVersion < 2.4>\n" +
			place("out") + "</IfVersion>\n<IfVersion !~ ^2\\.4>\n" + place("out2") + "</IfVersion>\n",
		"a file": "<IfFile /site.conf>\n" + place("in") + "</IfFile>\n<IfFile /none>\n" +
			place("out") + "</IfFile>\n",
		"conditions in each other": "Define A\n<IfDefine A>\n<IfDefine B>\n<IfDefine A>\n" + place("out") +
			"</IfDefine>\n</IfDefine>\n" + place("in") + "</IfDefine>\n",
		"a macro": "<Macro Closed $p>\n" + place("$p") + "</Macro>\nUse closed in\n",
		"a macro used twice": "<Macro Closed $p $pp>\n" + place("$pp") +
			"</Macro>\nUse Closed out in\nUse Closed out2 in2\n",
		"a macro in a section": "<Macro Closed>\nRequire all denied\n</Macro>\n<Location /in>\nUse Closed\n" +
			"</Location>\n",
		"a macro that uses another": "<Macro A $x>\n" + place("$x") +
			"</Macro>\n<Macro B $y>\nUse A $y\n</Macro>\nUse B in\n",
		"a macro under a condition": "<IfDefine A>\n<Macro M>\n" + place("out") +
			"</Macro>\n</IfDefine>\n<Macro M>\n" + place("in") + "</Macro>\nUse M\n",
		"files by a pattern": "Include /conf.d/*.conf\nIncludeOptional /none/*.conf\n",
	} {
		files := fstest.MapFS{
			"site.conf":     {Data: []byte("Listen 80\nServerName www.example.com\n" + text)},
			"conf.d/a.conf": {Data: []byte(place("in"))}, "conf.d/b.txt": {Data: []byte(place("out"))},
		}
		r, err := apache.Convert(apache.Config{FS: files}, "/site.conf")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.Contains(r.Caddyfile, "require /in") || strings.Contains(r.Caddyfile, "require /out") {
			t.Errorf("%s:\n%s", name, r.Caddyfile)
		}
	}
	for name, text := range map[string]string{
		"a macro without end":            "<Macro A>\nRequire all denied\n",
		"a macro that uses itself":       "<Macro A>\nUse A\nUse A\n</Macro>\nUse A\n",
		"a macro with too few values":    "<Macro A $x>\n</Macro>\nUse A\n",
		"a parameter that is nothing":    "<Macro A \"\">\n</Macro>\nUse A x\n",
		"a condition that crosses":       "<IfDefine A>\n<Location /x>\n</IfDefine>\n</Location>\n",
		"a macro that grows without end": "<Macro A $x>\nUse A $x$x$x$x\n</Macro>\nUse A aaaaaaaa\n",
	} {
		if _, err := apache.Convert(apache.Config{FS: fstest.MapFS{"site.conf": {Data: []byte(text)}}},
			"/site.conf"); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}
