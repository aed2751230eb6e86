package agent

import (
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

const remoteProgram, qemu = 0x20008086, 0x20008087

func TestWatchedCalls(t *testing.T) {
	watched, err := Watch(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]condition{
		"remote.domain_destroy": always, "remote.domain_create_xml": always, "remote.domain_reboot": always,
		"remote.secret_get_value": always, "remote.domain_memory_peek": always, "remote.domain_screenshot": always,
		"qemu.domain_monitor_command": always, "admin.client_close": always, "admin.connect_daemon_shutdown": always,
		"remote.domain_get_xml_desc": secrets,
		"remote.domain_get_info":     0, "remote.connect_open": 0, "remote.auth_list": 0,
		"remote.connect_list_all_domains":   0,
		"remote.domain_interface_addresses": 0, "admin.server_list_clients": 0,
	} {
		found := libvirt.Match(name)
		if len(found) != 1 {
			t.Fatalf("%s: %d procedures", name, len(found))
		}
		if got := watched[event.Procedure{
			Prog: found[0].Program.Number,
			Proc: found[0].Procedure.Number,
		}]; got != want {
			t.Errorf("%s: condition %d, want %d", name, got, want)
		}
	}
	known := libvirt.Known()
	for _, p := range []event.Procedure{
		{Prog: remoteProgram, Proc: known[remoteProgram] + 1},
		{Prog: qemu, Proc: known[qemu] + 5000},
		{Prog: 0x12345678, Proc: 1},
		{Prog: remoteProgram, Proc: -1},
		{Prog: remoteProgram},
	} {
		if watched.of(p.Prog, p.Proc) != always {
			t.Errorf("%v, which no table knows, is not watched", p)
		}
	}
	if got := apiName(remoteProgram, 10); got != "domainCreateXML" {
		t.Error(got)
	}
	if some, err := Watch([]string{"domain_get_info"}); len(some) != 1 || some.of(qemu, 5000) != 0 || err != nil {
		t.Error(some, err)
	}
}
