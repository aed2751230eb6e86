package format

import "testing"

func TestCommandLinesShowNoSecrets(t *testing.T) {
	for line, want := range map[string]string{
		"virsh -c qemu:///system dominfo vm1":               "virsh -c qemu:///system dominfo vm1",
		"virsh -q secret-set-value 5ec7e7a1-0000 c2VzYW1l=": "virsh -q secret-set-value 5ec7e7a1-0000 ***",
		"virsh secret-set-value 5ec7e7a1-0000 --base64 c2VzYW1l": "virsh secret-set-value 5ec7e7a1-0000 " +
			"--base64 ***",
		"virsh set-user-password vm1 root pass word":                 "virsh set-user-password vm1 root *** ***",
		`virsh qemu-monitor-command vm1 {"execute": "set_password"}`: "virsh qemu-monitor-command vm1 *** ***",
		"tool --password=x --user=dan":                               "tool --password=*** --user=dan",
		"tool --password x y":                                        "tool --password *** y",
		"env LIBVIRT_TOKEN=abc tool":                                 "env LIBVIRT_TOKEN=*** tool",
		"virt-install --graphics vnc,password=x":                     "virt-install --graphics vnc,password=***",
		"virsh qemu-agent-command vm1 YmFzZTY0":                      "virsh qemu-agent-command vm1 ***",
		"virsh -c esx://root:hunter2@host/ list":                     "virsh -c esx://***host/ list",
		"qemu --object=secret,id=s,data=hunter2":                     "qemu --object=secret,***",
		"qemu -object secret,id=s,data=hunter2":                      "qemu -object secret,***",
		"qemu -fw_cfg name=opt/x,string=hunter2 -S":                  "qemu -fw_cfg name=opt/x,string=*** -S",
		"qemu -drive file.cookie=hunter2":                            "qemu -drive file.cookie=***",
		"virsh -c qemu:///system qemu-monitor-command vm1 --hmp set": "virsh -c qemu:///system qemu-monitor-command " +
			"vm1 --hmp ***",
		`tool {"password":"hunter2"} x`: `tool *** x`,
		"":                              "",
	} {
		if got := MaskCommand(line); got != want {
			t.Errorf("%q is shown as %q, want %q", line, got, want)
		}
	}
}
