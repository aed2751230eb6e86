package audit

import (
	"slices"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

func TestWhatForcedCommandsOpen(t *testing.T) {
	for _, c := range []struct {
		command, chroot string
		want            Severity
	}{
		{"internal-sftp", "/srv/%u", Medium},
		{"internal-sftp -R", "/srv", Medium},
		{"internal-sftp", "none", High},
		{"internal-sftp", "/", High},
		{"internal-sftp", "/./", High},
		{"/usr/lib/openssh/sftp-server", "/srv", High},
		{"borg serve --restrict-to-path /srv/borg", "", Medium},
		{"cd /srv/borg && borg serve --restrict-to-repository /srv/borg/a", "", Medium},
		{"cd /srv/borg; /usr/bin/borg serve --restrict-to-path /srv/borg", "", Medium},
		{"borg serve", "", High},
		{"/usr/bin/rrsync -ro /srv", "", Medium},
		{"/usr/share/rsync/rrsync /srv", "", Medium},
		{"/home/eve/bin/rrsync /srv", "", High},
		{"./git-shell", "", High},
		{"git-shell", "", Medium},
		{"svnserve -t -r /srv/svn", "", Medium},
		{"/usr/local/bin/backup.sh", "", High},
		{"/bin/bash", "", Critical},
		{"sh -c id", "", Critical},
		{"/usr/bin/zsh -l", "", Critical},
		{"git-shell -c \"$SSH_ORIGINAL_COMMAND\"", "", Critical},
		{"rrsync /srv; $SSH_ORIGINAL_COMMAND", "", Critical},
		{"rrsync /srv & bash", "", Critical},
		{"rrsync `id`", "", Critical},
		{"rrsync $(id)", "", Critical},
		{"cd $HOME && bash", "", Critical},
		{"cd /srv && bash", "", Critical},
		{"cd /srv && cd /x && bash", "", Critical},
		{"sudo rrsync /srv", "", Critical},
		{"env rrsync /srv", "", Critical},
		{"/usr/bin/screen -xRR", "", Critical},
		{"", "", Critical},
	} {
		if _, got := confines(c.command, c.chroot); got != c.want {
			t.Errorf("%q below %q: %s, want %s", c.command, c.chroot, got, c.want)
		}
	}
}

// TestKeysThatNameACommand reads authorized_keys as sshd does.
func TestKeysThatNameACommand(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIz5i8Y8Gn3SRYzVlO6TgGZSzXd0h8ovTRiRmrSMvyBm x"
	for _, c := range []struct {
		text     string
		commands []string
		forwards bool
		open     bool
	}{
		{`restrict,command="a b" ` + key, []string{"a b"}, false, false},
		{`command="a",no-port-forwarding ` + key, []string{"a"}, false, false},
		{`restrict,port-forwarding,command="a" ` + key, []string{"a"}, true, false},
		{`COMMAND="say \"x\"" ` + key, []string{`say "x"`}, true, false},
		{`cert-authority,restrict,command="a" ` + key, []string{"a"}, false, false},
		{"# " + key + "\n\n" + `restrict,command="a" ` + key, []string{"a"}, false, false},
		{`restrict,command="a" ` + key + "\n" + key, []string{"a"}, false, true},
		{`restrict,command="a" ` + key + "\n" + `from="192.0.2.1" ` + key, []string{"a"}, false, true},
		{`restrict,command="a" ` + key + "\nnot a key", []string{"a"}, false, true},
		{`command="" ` + key, nil, false, true},
		{`environment="command=a" ` + key, nil, false, true},
		{key + ` command="a"`, nil, false, true},
	} {
		root := posterntest.SSHDFiles(t, map[string]string{"home/x/.ssh/authorized_keys": c.text + "\n"})
		a := audit{host: &host{}}
		a.Root = root
		k := a.keysOf(account{name: "x", home: "/home/x"}, []string{"none", "%h/.ssh/authorized_keys"})
		if k == nil || !slices.Equal(k.commands, c.commands) || k.forwards != c.forwards || k.open != c.open {
			t.Errorf("%s: %+v", c.text, k)
		}
	}
}
