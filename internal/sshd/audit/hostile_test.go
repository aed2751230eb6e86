package audit

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// hostile are configurations that are written so that they could be misread: lines
// for sshd beside two factors for everybody, with files and links.
var hostile = map[string]struct {
	config string
	files  map[string]string
	links  map[string]string
}{
	"CRLF":                    {"Match User robot\r\n\tAuthenticationMethods publickey\r\n", nil, nil},
	"capitals":                {"mAtCh uSeR robot\n\taUTHENTICATIONmETHODS publickey\n", nil, nil},
	"double quotes":           {"Match User \"robot\"\n\tAuthenticationMethods \"publickey\"\n", nil, nil},
	"single quotes":           {"Match User 'robot'\n\tAuthenticationMethods publickey\n", nil, nil},
	"equals signs":            {"Match User=robot\n\tAuthenticationMethods=publickey\n", nil, nil},
	"blanks around =":         {"Match User robot\n\tAuthenticationMethods = publickey\n", nil, nil},
	"a comment in Match":      {"Match User robot # alice\n\tAuthenticationMethods publickey\n", nil, nil},
	"a backslash":             {"Match User ro\\bot,robot\n\tAuthenticationMethods publickey\n", nil, nil},
	"a quote that ends not":   {"Match User \"robot\n\tAuthenticationMethods publickey\n", nil, nil},
	"negated patterns":        {"Match User *,!alice,!fred,!root\n\tAuthenticationMethods publickey\n", nil, nil},
	"question marks":          {"Match User ?o?o?\n\tAuthenticationMethods publickey\n", nil, nil},
	"two conditions":          {"Match User robot Group remote\n\tAuthenticationMethods publickey\n", nil, nil},
	"a condition twice":       {"Match User r* User *t\n\tAuthenticationMethods publickey\n", nil, nil},
	"Match all":               {"Match all\n\tAuthenticationMethods publickey\n", nil, nil},
	"Match Exec":              {"Match exec \"true\"\n\tAuthenticationMethods publickey\n", nil, nil},
	"Match Final":             {"Match final all\n\tAuthenticationMethods publickey\n", nil, nil},
	"Match without a pattern": {"Match User\n\tAuthenticationMethods publickey\n", nil, nil},
	"a network":               {"Match Address 203.0.113.0/24\n\tAuthenticationMethods publickey\n", nil, nil},
	"an IPv6 network":         {"Match Address 2001:db8::/32\n\tAuthenticationMethods publickey\n", nil, nil},
	"a network but a part": {
		"Match Address 10.0.0.0/8,!10.255.255.255\n\tAuthenticationMethods publickey\n",
		nil,
		nil,
	},
	"all but a network":       {"Match Address *,!192.0.2.0/24\n\tAuthenticationMethods publickey\n", nil, nil},
	"a port":                  {"Match LocalPort 2222\n\tAuthenticationMethods publickey\n", nil, nil},
	"a group of another name": {"Match Group größe\n\tAuthenticationMethods publickey\n", nil, nil},
	"an umlaut":               {"Match User jürgen\n\tAuthenticationMethods publickey\n", nil, nil},
	"a domain's user":         {"Match User \"CORP\\carol\"\n\tAuthenticationMethods publickey\n", nil, nil},
	"an at sign": {
		"Match User alice@corp.example.com\n\tAuthenticationMethods publickey\n",
		nil,
		nil,
	},
	"a comma in a name": {"Match User eve?addr=*\n\tAuthenticationMethods publickey\n", nil, nil},
	"another root": {
		"Match User toor\n\tPermitRootLogin yes\n\tAuthenticationMethods publickey\n",
		nil,
		nil,
	},
	"form feeds":            {"\fMatch User robot\f\n\tAuthenticationMethods publickey\f\n", nil, nil},
	"no newline at the end": {"Match User robot\n\tAuthenticationMethods publickey", nil, nil},
	"a NUL":                 {"Match User robot\x00 # \n\tAuthenticationMethods publickey\n", nil, nil},
	"a BOM":                 {"\ufeffMatch User robot\n\tAuthenticationMethods publickey\n", nil, nil},
	"a password beside a key": {
		"Match User robot\n\tAuthenticationMethods publickey,keyboard-interactive:pam publickey\n",
		nil,
		nil,
	},
	"include in a block": {
		"Match User robot\n\tInclude one\n",
		map[string]string{"one": "AuthenticationMethods publickey\n"},
		nil,
	},
	"a block in an include": {
		"Include one\nX11Forwarding no\n",
		map[string]string{"one": "Match User robot\nAuthenticationMethods publickey\n"},
		nil,
	},
	"a block in both": {
		"Match User robot\n\tInclude one\n\tAuthenticationMethods publickey\n",
		map[string]string{"one": "Match User alice\n\tX11Forwarding no\n"},
		nil,
	},
	"two files, one missing": {
		"Include missing one\n",
		map[string]string{"one": "Match User robot\nAuthenticationMethods publickey\n"},
		nil,
	},
	"include in quotes": {
		"Include \"one\"\n",
		map[string]string{"one": "Match User robot\nAuthenticationMethods publickey\n"},
		nil,
	},
	"a class of letters": {
		"Include [n-p]ne\n",
		map[string]string{"one": "Match User robot\nAuthenticationMethods publickey\n"},
		nil,
	},
	"all but a class": {
		"Include [!a-c]ne\n",
		map[string]string{"one": "Match User robot\nAuthenticationMethods publickey\n"},
		nil,
	},
	"a hidden file": {
		"Include .o*\n",
		map[string]string{".one": "Match User robot\nAuthenticationMethods publickey\n"},
		nil,
	},
	"a file in a directory": {
		"Include */one\n",
		map[string]string{"d/one": "Match User robot\nAuthenticationMethods publickey\n"},
		nil,
	},
	"a path that climbs": {
		"Include ../../etc/ssh/d/../one\n",
		map[string]string{"one": "Match User robot\nAuthenticationMethods publickey\n", "d/x": ""},
		nil,
	},
	"a file that includes itself": {
		"Include one\n",
		map[string]string{"one": "Include one\nMatch User robot\nAuthenticationMethods publickey\n"},
		nil,
	},
	"a link that loops": {
		"Include d/*.conf\nMatch User robot\n\tAuthenticationMethods publickey\n",
		nil,
		map[string]string{"d/a.conf": "a.conf"},
	},
	"a link to a directory": {
		"Include d/*.conf\nMatch User robot\n\tAuthenticationMethods publickey\n",
		nil,
		map[string]string{"d/a.conf": "/"},
	},
	"a link to nothing": {
		"Include d/*.conf\nMatch User robot\n\tAuthenticationMethods publickey\n",
		nil,
		map[string]string{"d/a.conf": "/nothing"},
	},
	"a huge file": {
		"Include one\n",
		map[string]string{
			"one": strings.Repeat("# nothing\n", 200000) + "Match User robot\nAuthenticationMethods publickey\n",
		},
		nil,
	},
	"very many lines": {
		strings.Repeat("LogLevel INFO\n", 20000) + "Match User robot\nAuthenticationMethods publickey\n",
		nil,
		nil,
	},
	"very many files": {
		strings.Repeat("Include e\n", 3000) + "Match User robot\nAuthenticationMethods publickey\n",
		map[string]string{"e": ""},
		nil,
	},
	"files that multiply": {
		"Include" + strings.Repeat(" a", 12) + "\n",
		map[string]string{
			"a": "Include" + strings.Repeat(" b", 12) + "\n", "b": "Include" + strings.Repeat(" c", 12) + "\n",
			"c": "Match User robot\nAuthenticationMethods publickey\n",
		},
		nil,
	},
	"very many blocks, then root": {
		manyBlocks() +
			"Match User toor Address 10.77.0.0/16\n\tPermitRootLogin yes\n\tAuthenticationMethods publickey\n",
		nil,
		nil,
	},
	"a network but two parts": {
		"Match Address 10.0.0.0/8,!10.255.0.0/16,!10.0.0.0/16\n\tAuthenticationMethods publickey\n",
		nil,
		nil,
	},
	"a host's pattern": {
		"Match Host *.example.com,!bad.example.com\n\tAuthenticationMethods publickey\n",
		nil,
		nil,
	},
}

// manyBlocks tells more kinds of connection apart than are tried.
func manyBlocks() string {
	var b strings.Builder
	for i := range 21 {
		fmt.Fprintf(&b, "Match User user%d Address 10.%d.0.0/16\n\tX11Forwarding no\n", i, i)
	}
	return b.String()
}

// connections are those that sshd is asked about, to see what is true.
var connections = []string{
	"user=robot,host=h,addr=203.0.113.9,laddr=198.51.100.1,lport=22",
	"user=alice,host=h,addr=10.1.2.3,laddr=198.51.100.1,lport=22",
	"user=robot,host=h,addr=10.77.0.1,laddr=198.51.100.1,lport=22",
	"user=alice,host=h,addr=2001:db8::5,laddr=198.51.100.1,lport=22",
	"user=alice,host=h,addr=203.0.113.9,laddr=198.51.100.1,lport=2222",
	"user=jürgen,host=h,addr=203.0.113.9,laddr=198.51.100.1,lport=22",
	"user=alice@corp.example.com,host=h,addr=203.0.113.9,laddr=198.51.100.1,lport=22",
	`user=CORP\carol,host=h,addr=203.0.113.9,laddr=198.51.100.1,lport=22`,
	"user=toor,host=h,addr=203.0.113.9,laddr=198.51.100.1,lport=22",
	"user=toor,host=h,addr=10.77.0.1,laddr=198.51.100.1,lport=22",
	"user=alice,host=www.example.com,addr=203.0.113.9,laddr=198.51.100.1,lport=22",
}

// TestNoConfigurationIsReadTooKindly holds the auditor against the sshd of this host,
// which reads the same files: where a key alone is enough, that is found, or the
// auditor says that it cannot judge.
func TestNoConfigurationIsReadTooKindly(t *testing.T) {
	weak := 0
	for name, h := range hostile {
		t.Run(name, func(t *testing.T) {
			posterntest.NeedRoot(t)
			files := map[string]string{
				"etc/ssh/sshd_config": twoFactors + h.config,
				"etc/pam.d/sshd":      asksCode,
				"etc/passwd": "root:x:0:0::/root:/bin/bash\ntoor:x:0:0::/root:/bin/bash\n" +
					"sshd:x:104:65534::/run/sshd:/usr/sbin/nologin\n" +
					"alice:x:1000:1000::/home/alice:/bin/bash\nfred:x:1001:1001::/home/fred:/bin/bash\n" +
					"robot:x:1002:1002::/home/robot:/bin/sh\n" +
					"jürgen:x:1003:1200::/home/j:/bin/bash\nCORP\\carol:x:1004:1004::/home/c:/bin/bash\n" +
					"eve,addr=x:x:1005:1005::/home/e:/bin/bash\n",
				"etc/group": "root:x:0:\nremote:x:1100:robot\ngröße:x:1200:\n",
			}
			for name, content := range h.files {
				files["etc/ssh/"+name] = content
			}
			root := posterntest.SSHDFiles(t, files)
			for name, target := range h.links {
				link(t, root, filepath.Join("etc/ssh", name), target)
			}
			report, err := Auditor{
				Root:  root,
				Clock: func() Clock { return Clock{Synchronized: true} },
			}.Audit(t.Context())
			open := err != nil || len(report.Open()) > 0
			refused, keyAlone := truth(t, root)
			if keyAlone {
				weak++
			}
			if (keyAlone || refused || strings.Contains(name, "comma")) && !open {
				t.Errorf("refused by sshd %v, a key alone is enough %v, and nothing is found", refused, keyAlone)
			}
			t.Logf("refused by sshd %v, a key alone is enough %v; %v", refused, keyAlone, err)
		})
	}
	if weak < 25 {
		t.Errorf("in %d configurations a key is enough: they do not tell much", weak)
	}
}

// truth asks sshd whether it takes the files below a root, and whether a key
// alone opens an account.
func truth(t *testing.T, root string) (refused, keyAlone bool) {
	t.Helper()
	sshd := posterntest.SSHDCommand(t, root)
	for _, c := range connections {
		if refused || keyAlone {
			break
		}
		args := append(sshd[1:len(sshd):len(sshd)], "-f", filepath.Join(root, "etc/ssh/sshd_config"), "-T", "-C", c)
		out, err := exec.Command(sshd[0], args...).Output()
		refused = refused || err != nil
		keyAlone = keyAlone ||
			strings.Contains(" "+strings.ReplaceAll(string(out), "\n", " \n")+" ",
				"authenticationmethods publickey \n") ||
			strings.Contains(string(out), "authenticationmethods publickey,keyboard-interactive:pam publickey\n")
	}
	return refused, keyAlone
}
