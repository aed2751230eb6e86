package qmp

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in              string
		kind            Kind
		name, id, body  string
		class, desc     string
		seconds, micros int64
		cut             bool
	}{
		{
			in: `{"execute":"qmp_capabilities","id":"libvirt-1"}`, kind: Command, name: "qmp_capabilities",
			id: "libvirt-1",
		},
		{
			in: `{"execute":"balloon","arguments":{"value":224395264},"id":"libvirt-7"}` + "\r\n", kind: Command,
			name: "balloon", id: "libvirt-7", body: `{"value":224395264}`,
		},
		{in: `{"return": {}, "id": "libvirt-1"}`, kind: Reply, id: "libvirt-1", body: "{}"},
		{
			in: `{"return": [{"a": "}]\"{"}, 1], "id": "libvirt-4"}`, kind: Reply, id: "libvirt-4",
			body: `[{"a": "}]\"{"}, 1]`,
		},
		{
			in:   `{"id": "libvirt-9", "error": {"class": "GenericError", "desc": "Parameter \"x\" is unexpected"}}`,
			kind: Failure, id: "libvirt-9", class: "GenericError", desc: `Parameter "x" is unexpected`,
		},
		{
			in:   `{"timestamp": {"seconds": 1319466933, "microseconds": 129980}, "event": "RESUME"}`,
			kind: Event, name: "RESUME", seconds: 1319466933, micros: 129980,
		},
		{
			in: `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "BLOCK_JOB_READY", ` +
				`"data": {"device": "d"}}`,
			kind: Event, name: "BLOCK_JOB_READY", seconds: 1, micros: 2, body: `{"device": "d"}`,
		},
		{
			in: `{"QMP": {"version": {}, "capabilities": []}}`, kind: Greeting,
			body: `{"version": {}, "capabilities": []}`,
		},
		{in: `{"return": [{"name": "quit"}, {"na`, kind: Reply, body: `[{"name": "quit"}, {"na`, cut: true},
		{in: `{"execute":"set_passw`, kind: Command, name: "set_passw", cut: true},
		{in: `{'execute':'stop'}`, kind: Command, name: "stop"},
		{in: `{"return": 12}`, kind: Reply, body: "12"},
		{in: `{}`, kind: Unknown},
		{in: `set_password vnc x`, kind: Unknown},
		{in: ``, kind: Unknown},
	} {
		m := Parse([]byte(c.in))
		if m.Kind != c.kind || string(m.Name) != c.name || string(m.ID) != c.id || string(m.Body) != c.body ||
			string(m.Class) != c.class || string(m.Desc) != c.desc || m.Seconds != c.seconds || m.Micros != c.micros ||
			m.Cut != (c.cut || c.kind == Unknown && c.in != "{}" && c.in != "" && c.in[0] == '{') {
			t.Errorf("%s\n got %d name %q id %q body %q error %q %q at %d.%d cut %v", c.in, m.Kind, m.Name, m.ID,
				m.Body, m.Class, m.Desc, m.Seconds, m.Micros, m.Cut)
		}
	}
}

func TestTailID(t *testing.T) {
	for in, want := range map[string]string{
		`ice": "x"}], "id": "libvirt-412"}`:          "libvirt-412",
		`ice": "x"}], "id": "libvirt-412"}` + "\r\n": "libvirt-412",
		`"id": "disk0"}], "return": 1}`:              "",
		`"id": {"a": 1}}`:                            "",
		`"id": "libvirt-4`:                           "",
		``:                                           "",
	} {
		if got := string(TailID([]byte(in))); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestMask(t *testing.T) {
	const s = `hunter2\"x`
	for _, c := range []struct{ in, want string }{
		{
			`{"execute":"set_password","arguments":{"protocol":"vnc","password":"` + s +
				`","connected":"keep"},"id":"libvirt-5"}`,
			`{"execute":"set_password","arguments":{"protocol":"vnc","password":"***","connected":"keep"},` +
				`"id":"libvirt-5"}`,
		},
		{
			`{"execute":"object-add","arguments":{"qom-type":"secret","id":"s0","data":"` + s +
				`","keyid":"masterKey0"}}`,
			`{"execute":"object-add","arguments":{"qom-type":"secret","id":"s0","data":"***","keyid":"masterKey0"}}`,
		},
		{
			`{"execute":"set_password","arguments":{"password": "` + s,
			`{"execute":"set_password","arguments":{"password": "***"`,
		},
		{
			`{'execute':'set_password','arguments':{'password' : '` + s + `'}}`,
			`{'execute':'set_password','arguments':{'password' : "***"}}`,
		},
		{`{"pass\u0077ord":"` + s + `"}`, `{"pass\u0077ord":"***"}`},
		{
			`{"execute":"human-monitor-command","arguments":{"command-line":"set_password vnc ` + s + `"}}`,
			`{"execute":"human-monitor-command","arguments":{"command-line":"set_password ***"}}`,
		},
		{
			`{"execute":"human-monitor-command","arguments":{"command-line":"info block"}}`,
			`{"execute":"human-monitor-command","arguments":{"command-line":"info block"}}`,
		},
		{
			`{"execute":"qom-set","arguments":{"path":"/objects/s0","property":"data","value":"` + s + `"}}`,
			`{"execute":"qom-set","arguments":{"path":"/objects/s0","property":"data","value":"***"}}`,
		},
		{
			`{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"a"}]}}`,
			`{"execute":"send-key","arguments":{"keys":"***"}}`,
		},
		{`{"event": "RESUME", "data": {"a": "b"}}`, `{"event": "RESUME", "data": {"a": "b"}}`},
		{
			`{"execute":"guest-set-user-password","arguments":{"username":"r","password":"` + s + `"}}`,
			`{"execute":"guest-set-user-password","arguments":{"username":"r","password":"***"}}`,
		},
		{
			`{"execute":"guest-exec","arguments":{"path":"/bin/sh","arg":["-c","x ` + s + `"],"env":["P=` + s +
				`"],"input-data":"aHVudA==","capture-output":true}}`,
			`{"execute":"guest-exec","arguments":{"path":"/bin/sh","arg":"***","env":"***","input-data":"***",` +
				`"capture-output":true}}`,
		},
		{
			`{"return": {"exitcode": 0, "out-data": "` + s + `", "err-data": "` + s + `", "exited": true}}`,
			`{"return": {"exitcode": 0, "out-data": "***", "err-data": "***", "exited": true}}`,
		},
		{
			`{"execute":"blockdev-add","arguments":{"driver":"https","node-name":"n",` +
				`"url":"https://dan:hunter2@host/x","cookie":"` + s + `"}}`,
			`{"execute":"blockdev-add","arguments":{"driver":"https","node-name":"n",` +
				`"url":"https://dan:***@host/x","cookie":"***"}}`,
		},
		{
			`{"execute":"drive-mirror","arguments":{"device":"d","target":"ftp:\/\/dan:hunter2@host\/x"}}`,
			`{"execute":"drive-mirror","arguments":{"device":"d","target":"ftp://dan:***@host/x"}}`,
		},
		{
			`{"execute":"migrate","arguments":{"uri":"exec:curl -u dan:hunter2 -T - https://h"}}`,
			`{"execute":"migrate","arguments":{"uri":"exec:***"}}`,
		},
		{
			`{"execute":"migrate","arguments":{"channels":[{"addr":{"transport":"exec","args":["curl","hunter2"]}}]}}`,
			`{"execute":"migrate","arguments":{"channels":[{"addr":{"transport":"exec","args":"***"}}]}}`,
		},
		{
			`{"execute":"migrate","arguments":{"uri":"tcp:192.0.2.1:49152"}}`,
			`{"execute":"migrate","arguments":{"uri":"tcp:192.0.2.1:49152"}}`,
		},
		{
			`{"return": [{"inserted": {"file": "json:{\"driver\":\"https\",\"url\":\"https://h/x\",` +
				`\"password\":\"hunter2\"}"}}]}`,
			`{"return": [{"inserted": {"file": "json:{\"driver\":\"https\",\"url\":\"https://h/x\",` +
				`\"password\":\"***\"}"}}]}`,
		},
		{
			`{"return": [{"file": "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/x\"}}"}]}`,
			`{"return": [{"file": "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/x\"}}"}]}`,
		},
		{
			`{"id": "libvirt-9", "error": {"class": "GenericError", ` +
				`"desc": "Could not open 'https://dan:hunter2@host/x'"}}`,
			`{"id": "libvirt-9", "error": {"class": "GenericError", ` +
				`"desc": "Could not open 'https://dan:***@host/x'"}}`,
		},
		{
			`{"execute":"human-monitor-command","arguments":{"command-line":"expire_password vnc 99"}}`,
			`{"execute":"human-monitor-command","arguments":{"command-line":"expire_password ***"}}`,
		},
		{
			`{"execute":"human-monitor-command","arguments":{"command-line":"change vnc password hunter2"}}`,
			`{"execute":"human-monitor-command","arguments":{"command-line":"change vnc ***"}}`,
		},
		{
			`{"execute":"human-monitor-command",` +
				`"arguments":{"command-line":"drive_add 0 file=https://dan:hunter2@host/x"}}`,
			`{"execute":"human-monitor-command",` +
				`"arguments":{"command-line":"drive_add 0 file=https://dan:***@host/x"}}`,
		},
		{
			`{"execute":"human-monitor-command",` +
				`"arguments":{"command-line":"object_add {\"qom-type\":\"secret\",\"data\":\"hunter2\"}"}}`,
			`{"execute":"human-monitor-command",` +
				`"arguments":{"command-line":"object_add {\"qom-type\":\"secret ***"}}`,
		},
		{"object_add secret,id=s,data=hunter2,passwd", "object_add secret ***"},
		{"expire_password spice +60", "expire_password ***"},
		{"change vnc password", "change vnc ***"},
		{"migrate exec:hunter2", "migrate exec: ***"},
		{"qom-set /objects/s data hunter2", "qom-set ***"},
		{"set_password vnc hunter2", "set_password ***"},
		{"sendkey h-u-n-t-e-r-2", "sendkey ***"},
		{"object_add secret,id=s8,data=hunter2", "object_add secret ***"},
		{"info status", "info status"},
	} {
		if got := string(AppendMasked(nil, []byte(c.in))); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.in, got, c.want)
		}
		for n := range c.in {
			if got := string(AppendMasked(nil, []byte(c.in[:n]))); strings.Contains(got, "hunt") {
				t.Errorf("%s: shown: %s", c.in[:n], got)
			}
		}
	}
}

func FuzzQMP(f *testing.F) {
	for _, s := range []string{
		`{"execute":"set_password","arguments":{"protocol":"vnc","password":"123456","connected":"keep"},` +
			`"id":"libvirt-5"}`,
		`{"return": [{"current": true, "CPU": 0, "pc": 1048560, "halted": false, "thread_id": 13299}], ` +
			`"id": "libvirt-4"}`,
		`{"timestamp": {"seconds": 1319466933, "microseconds": 129980}, "event": "RESUME"}`,
		`{"id": "libvirt-9", "error": {"class": "GenericError", "desc": "Parameter \"x\" is unexpected"}}`,
		`{"QMP": {"version": {"qemu": {"micro": 19, "minor": 2, "major": 7}, "package": "Debian"}, ` +
			`"capabilities": ["oob"]}}`,
		`{'execute':'qom-set','arguments':{'value':'\'x'}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := Parse(b)
		m.Member("password")
		if len(m.Name)+len(m.Body) > 6*len(b) {
			t.Fatal("more came out than went in")
		}
		TailID(b)
		if masked := AppendMasked(nil, b); len(masked) > 6*len(b)+16 {
			t.Fatalf("%d bytes became %d", len(b), len(masked))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	in := []byte(`{"return": [` + strings.Repeat(`{"name": "quit", "x": 1}, `, 1000) + `1], "id": "libvirt-2"}`)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		Parse(in)
	}
}
