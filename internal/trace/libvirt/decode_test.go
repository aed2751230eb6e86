package libvirt

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

func mustBeJSON(t *testing.T, b []byte) {
	t.Helper()
	if !json.Valid(b) {
		t.Fatalf("not JSON: %q", b)
	}
}

// named returns the header of a procedure's message.
func head(t testing.TB, name string, typ Type, status Status) Header {
	t.Helper()
	if !strings.Contains(name, ".") {
		name = "remote." + name
	}
	found := Match(name)
	if len(found) != 1 {
		t.Fatalf("%s matches %d procedures", name, len(found))
	}
	n := found[0]
	return Header{Prog: n.Program.Number, Vers: n.Program.Version, Proc: n.Procedure.Number, Type: typ, Status: status}
}

// wire is a payload under construction.
type wire struct{ encoder }

func (w *wire) str(s string) *wire {
	w.word(uint32(len(s)))
	w.pad([]byte(s))
	return w
}

func (w *wire) u32(n ...uint32) *wire {
	for _, n := range n {
		w.word(n)
	}
	return w
}

func (w *wire) dom(name string, id int32) *wire {
	w.str(name)
	for i := range 16 {
		w.wire = append(w.wire, byte(i))
	}
	return w.u32(uint32(id))
}

const domUUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"

func TestTextAndJSON(t *testing.T) {
	longXML := "<domain type='qemu'>\n  <name>vm1</name>\n" + strings.Repeat(" ", 500) + "</domain>"
	for _, c := range []struct {
		what       string
		head       Header
		payload    []byte
		text, json string
	}{
		{
			"lookup", head(t, "domain_lookup_by_name", Call, OK), new(wire).str("x").wire,
			`name="x"`, `{"name":"x"}`,
		},
		{
			"found", head(t, "domain_lookup_by_name", Reply, OK), new(wire).dom("vm1", 3).wire,
			`dom={name="vm1", uuid=` + domUUID + `, id=3}`, `{"dom":{"name":"vm1","uuid":"` + domUUID + `","id":3}}`,
		},
		{
			"not found", head(t, "domain_lookup_by_name", Reply, Failed),
			new(wire).u32(42, 10, 1).str("Domain not found: no domain with matching name 'x'").u32(2,
				0, 1).str("Domain not found: %s").
				u32(1).str("no domain with matching name 'x'").u32(0, 0xffffffff, 0xffffffff, 0).wire,
			`no_domain: Domain not found: no domain with matching name 'x'`,
			`{"code":"no_domain","domain":"qemu","message":"Domain not found: no domain with matching name 'x'",` +
				`"level":"error","dom":null,"str1":"Domain not found: %s","str2":"no domain with matching name 'x'",` +
				`"str3":null,"int1":-1,"int2":-1,"net":null}`,
		},
		{
			"a terminal's escape", head(t, "domain_lookup_by_name", Call, OK),
			new(wire).str("a\x1b]0;x\a\"\n\xff\u202eé").wire,
			`name="a\x1b]0;x\x07\"\n\xff\xe2\x80\xaeé"`, "{\"name\":\"a\\u001b]0;x\\u0007\\\"\\n\ufffd\\u202eé\"}",
		},
		{
			"an eight-bit terminal's escape, hidden text", head(t, "domain_lookup_by_name", Call, OK),
			new(wire).str("\u009b2J\u0085\u2066x\u2069\U000e0041\U0001f512").wire,
			`name="\xc2\x9b2J\xc2\x85\xe2\x81\xa6x\xe2\x81\xa9\xf3\xa0\x81\x81🔒"`,
			`{"name":"\u009b2J\u0085\u2066x\u2069\udb40\udc41🔒"}`,
		},
		{
			"XML", head(t, "domain_define_xml", Call, OK), new(wire).str(longXML).wire,
			`xml=<domain type='qemu'><name>vm1</name>…(549 bytes)`,
			`{"xml":"<domain type='qemu'>\n  <name>vm1</name>\n` + strings.Repeat(" ", 120) + `…"}`,
		},
		{
			"state", head(t, "domain_get_state", Reply, OK), new(wire).u32(1, 5).wire,
			`state=running, reason=5`, `{"state":"running","reason":5}`,
		},
		{
			"lifecycle", head(t, "domain_event_lifecycle", Event, OK), new(wire).dom("vm1", -1).u32(5, 1).wire,
			`dom={name="vm1", uuid=` + domUUID + `, id=-1}, event=stopped, detail=1`, "",
		},
		{
			"parameters", head(t, "domain_get_job_stats", Reply, OK),
			new(wire).u32(3, 3).str("cpu").u32(4, 1, 0).str("on").u32(6, 1).str("why").u32(7).str("x").wire,
			`type=completed, params=[cpu=4294967296, on=1, why="x"]`,
			`{"type":"completed","params":[{"field":"cpu","type":"ullong","value":4294967296},` +
				`{"field":"on","type":"boolean",` +
				`"value":true},{"field":"why","type":"string","value":"x"}]}`,
		},
		{
			"feature", head(t, "connect_supports_feature", Call, OK), new(wire).u32(14).wire,
			`feature=remote_event_callback`, `{"feature":"remote_event_callback"}`,
		},
		{
			"empty", head(t, "connect_close", Call, OK), nil, "", "{}",
		},
		{
			"descriptors", head(t, "domain_create_with_files", CallWithFDs, OK),
			new(wire).u32(2).dom("vm1", -1).u32(1).wire,
			`dom={name="vm1", uuid=` + domUUID + `, id=-1}, flags=paused fds=2`, "",
		},
		{
			"stream", head(t, "domain_open_console", Stream, Continue), []byte("login:"), "6 bytes", "{}",
		},
		{
			"hole", head(t, "storage_vol_download", StreamHole, OK), new(wire).u32(0, 4096, 0).wire,
			`length=4096`, `{"length":4096,"flags":0}`,
		},
		{
			"newer libvirt", head(t, "domain_create", Call, OK), new(wire).dom("vm1", -1).u32(1, 2).wire,
			`dom={name="vm1", uuid=` + domUUID + `, id=-1} [8 bytes not known]`, "",
		},
		{
			"unknown procedure",
			Header{Prog: 0x20008086, Vers: 1, Proc: 9999},
			[]byte("abcd"), "[4 bytes not known]",
			"{}",
		},
		{
			"unknown program", Header{Prog: 1, Vers: 1, Proc: 1}, []byte("abcd"), "[4 bytes not known]", "{}",
		},
		{
			"another protocol", head(t, "domain_lookup_by_name", Call, OK), new(wire).u32(0x7fffffff).wire,
			"[4 bytes not understood]", "{}",
		},
		{
			"keepalive", head(t, "keepalive.ping", Event, OK), nil, "", "{}",
		},
	} {
		var d Decoder
		m := d.Decode(c.head, c.payload, len(c.payload))
		if got := string(m.AppendText(nil, Style{})); got != c.text {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.text)
		}
		got := m.AppendJSON(nil, Style{})
		mustBeJSON(t, got)
		if c.json != "" && string(got) != c.json {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.json)
		}
	}
}

func TestSecretsAreMasked(t *testing.T) {
	const secret = "hunter2%41"
	type message struct {
		what    string
		head    Header
		payload []byte
	}
	xml := func(what, s string) message {
		return message{what, head(t, "domain_define_xml", Call, OK), new(wire).str(s).wire}
	}
	vnc := "<domain><devices><graphics type='vnc' passwd='" + secret + "' port='-1'/></devices></domain>"
	for _, c := range []message{
		{"secret value", head(t, "secret_set_value", Call, OK), new(wire).dom("", 0).wire[4:20]},
		{"SASL", head(t, "auth_sasl_step", Call, OK), sasl(secret)},
		{
			"user password", head(t, "domain_set_user_password", Call, OK),
			new(wire).dom("vm1", 1).u32(1).str("root").u32(1).str(secret).u32(0).wire,
		},
		{"VNC in XML", head(t, "domain_define_xml", Call, OK), new(wire).str(vnc).wire},
		{
			"SPICE in XML", head(t, "domain_get_xml_desc", Reply, OK),
			new(wire).str(`<graphics type="spice" passwd = "` + secret + `" passwdValidTo="2030-01-01T00:00:00"/>`).
				wire,
		},
		{
			"in an error", head(t, "domain_define_xml", Reply, Failed),
			new(wire).u32(1, 20, 1).str("line 3: passwd='"+secret+"'>\n---^").u32(2, 0, 0, 0, 0, 0, 0, 0).wire,
		},
		{
			"monitor command", head(t, "qemu.domain_monitor_command", Call, OK),
			new(wire).dom("vm1", 1).str(`{"execute":"set_password","arguments":{"protocol":"vnc","password":"` +
				secret + `"}}`).u32(0).wire,
		},
		{
			"human monitor", head(t, "qemu.domain_monitor_command", Call, OK),
			new(wire).dom("vm1", 1).str("set_password vnc " + secret).u32(1).wire,
		},
		{
			"guest agent", head(t, "qemu.domain_agent_command", Call, OK),
			new(wire).dom("vm1",
				1).str(`{"execute":"guest-set-user-password","arguments":{"username":"root","password":"`+secret+
				`","crypted":false}}`).u32(0, 0).wire,
		},
		{
			"identity token", head(t, "connect_set_identity", Call, OK),
			new(wire).u32(1).str("token").u32(7).str(secret).u32(0).wire,
		},
		{
			"launch secret", head(t, "domain_set_launch_security_state", Call, OK),
			new(wire).dom("vm1", 1).u32(1).str("launch-security-secret").u32(7).str(secret).u32(0).wire,
		},
		{"URI", head(t, "connect_open", Call, OK), new(wire).u32(1).str("esx://root:" + secret +
			"@host/").u32(0).wire},
		{
			"cookie", head(t, "domain_define_xml", Call, OK),
			new(wire).str("<cookies><cookie name='id'>" + secret + "</cookie></cookies>").wire,
		},
		{
			"command line", head(t, "domain_define_xml", Call, OK),
			new(wire).str("<qemu:arg value='secret,id=s0,data=" + secret + ",format=raw'/>").wire,
		},
		xml("a prefix of one's own", "<q:arg value='secret,id=s0,data="+secret+",format=raw'/>"),
		xml("no prefix",
			"<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'><arg value='secret,id=s0,data="+secret+
				"'/></commandline>"),
		xml("a secret with commas and quotes", `<q:arg value="secret,id=s0,data=x,,`+secret+` 'hunter2,,hunter2"/>`),
		xml("a secret with an entity", "<q:arg value='secret,id=s0,data=x&amp;"+secret+"'/>"),
		xml("a secret object as JSON",
			"<q:arg value='{&quot;qom-type&quot;:&quot;secret&quot;,&quot;data&quot;:&quot;"+secret+"&quot;}'/>"),
		xml("firmware configuration on the command line", "<q:arg value='name=opt/com.coreos/config,string="+secret+
			"'/>"),
		xml("firmware configuration", "<sysinfo type='fwcfg'><entry name='opt/com.coreos/config'>"+secret+
			"</entry></sysinfo>"),
		xml("firmware configuration as CDATA", "<entry name='opt/com.coreos/config'><![CDATA[<"+secret+"]]></entry>"),
		xml("Ignition", `<x>{"ignition":{"version":"3"},"passwd":{"users":[{"passwordHash":"`+secret+`"}]}}</x>`),
		xml("cloud-init", "<x>#cloud-config\nchpasswd:\n  list: root:"+secret+"\n</x>"),
		xml("a container's environment", "<initenv name='TOKEN'>"+secret+"</initenv>"),
		xml("a container's environment as CDATA", "<initenv name='TOKEN'><![CDATA["+secret+"]]></initenv>"),
		xml("environment of another prefix", "<q:env name='value=' value='"+secret+"'/>"),
		xml("environment, the name behind", "<q:env\tvalue = \""+secret+"\" name='TOKEN'/>"),
		xml("a URL in a disk", "<source protocol='https' name='x' file='https://dan:"+secret+"@host/x'/>"),
		{
			"a native command line", head(t, "connect_domain_xml_to_native", Reply, OK),
			new(wire).str(`qemu -object '{"qom-type":"secret","id":"s0","data":"` + secret +
				`","format":"raw"}' -vnc :0`).wire,
		},
		{
			"a native command line's options", head(t, "connect_domain_xml_to_native", Reply, OK),
			new(wire).str("qemu -object secret,id=s0,data=x,," + secret + " -drive file.cookie=" + secret).wire,
		},
		{
			"a disk over HTTP", head(t, "qemu.domain_monitor_command", Call, OK),
			new(wire).dom("vm1", 1).str(`{"execute":"blockdev-add","arguments":{"driver":"https","url":"https://dan:` +
				secret + `@host/x"}}`).u32(0).wire,
		},
		{
			"environment", head(t, "domain_define_xml", Call, OK),
			new(wire).str("<qemu:env name='TOKEN' value='" + secret + "'/>").wire,
		},
		{
			"credential", head(t, "domain_define_xml", Call, OK),
			new(wire).str("<entry>io.systemd.credential:passwd.plain.root=" + secret + "</entry>").wire,
		},
	} {
		var d Decoder
		for _, s := range []Style{{}, {Full: true}} {
			m := d.Decode(c.head, c.payload, len(c.payload))
			text, js := string(m.AppendText(nil, s)), string(m.AppendJSON(nil, s))
			if strings.Contains(text, "hunter2") || strings.Contains(js, "hunter2") ||
				strings.Contains(text+js, "68756e74") {
				t.Errorf("%s: shown: %s %s", c.what, text, js)
			}
			if c.what == "secret value" {
				continue
			}
			if m.Malformed || !strings.Contains(js, masked) || s.Full && !strings.Contains(text, masked) {
				t.Errorf("%s: not masked: %s %s", c.what, text, js)
			}
			shown := string(m.AppendJSON(nil, Style{Full: true, Secrets: true}))
			if !strings.Contains(shown, "hunter2") && !strings.Contains(shown, "68756e74") {
				t.Errorf("%s: not shown when asked for: %s", c.what, shown)
			}
			// Cut anywhere, it stays masked.
			for n := range c.payload {
				m := d.Decode(c.head, c.payload[:n], len(c.payload))
				text, js := string(m.AppendText(nil, s)), string(m.AppendJSON(nil, s))
				if strings.Contains(text+js, "hunt") || strings.Contains(text+js, "68756e74") {
					t.Errorf("%s cut at %d: shown: %s %s", c.what, n, text, js)
				}
			}
		}
	}
}

func sasl(data string) []byte {
	w := new(wire).u32(0, uint32(len(data)))
	for _, c := range data {
		w.u32(uint32(c))
	}
	return w.wire
}

func TestObjectOfACall(t *testing.T) {
	for _, c := range []struct {
		head    Header
		payload []byte
		kind    ObjectKind
		name    string
	}{
		{head(t, "domain_create", Call, OK), new(wire).dom("vm1", -1).wire, ObjectDomain, "vm1"},
		{head(t, "domain_lookup_by_name", Call, OK), new(wire).str("vm2").wire, ObjectDomain, "vm2"},
		{
			head(t, "domain_define_xml", Call, OK), new(wire).str("<domain type='kvm'><name>vm3</name></domain>").wire,
			ObjectDomain, "vm3",
		},
		{
			head(t, "domain_snapshot_delete", Call, OK), new(wire).str("s1").dom("vm4", -1).u32(0).wire,
			ObjectSnapshot,
			"s1",
		},
		{head(t, "connect_close", Call, OK), nil, ObjectNone, ""},
	} {
		var d Decoder
		m := d.Decode(c.head, c.payload, len(c.payload))
		if o := m.Object(); o.Kind != c.kind || string(o.Name) != c.name {
			t.Errorf("%s: kind %d, name %q; want %d, %q", m.Procedure.Name, o.Kind, o.Name, c.kind, c.name)
		}
		if c.kind == ObjectSnapshot && string(m.Domain().Name) != "vm4" {
			t.Errorf("a snapshot's domain is %q", m.Domain().Name)
		}
	}
}

func TestLargeArraysAreCountedNotKept(t *testing.T) {
	w := new(wire).u32(16384)
	for range 16384 {
		w.dom("vm", 1)
	}
	w.u32(16384)
	d := Decoder{Limit: 100}
	m := d.Decode(head(t, "connect_list_all_domains", Reply, OK), w.wire, len(w.wire))
	if m.Malformed || m.Trailing != 0 || len(m.Values) > 110 || m.Omitted != 16384-25 {
		t.Fatalf("malformed %v, %d left, %d values, %d omitted", m.Malformed, m.Trailing, len(m.Values), m.Omitted)
	}
	mustBeJSON(t, m.AppendJSON(nil, Style{}))
}

func TestMatch(t *testing.T) {
	if n := len(Match("remote.domain_create*")); n < 4 {
		t.Errorf("remote.domain_create* matches %d", n)
	}
	if n := Match("qemu.*"); len(n) != 7 {
		t.Errorf("qemu.* matches %d", len(n))
	}
	if Match("[") != nil {
		t.Error("a broken glob matches")
	}
}

func TestHeader(t *testing.T) {
	w := new(wire).u32(28, 0x20008086, 1, 66, 0, 7, 0).wire
	h, ok := ParseHeader(w)
	if got := string(h.AppendName(nil)); !ok || got != "remote.1.auth_list" || h.Serial != 7 {
		t.Errorf("got %s, serial %d", got, h.Serial)
	}
	if _, ok := ParseHeader(w[:27]); ok {
		t.Error("27 bytes are no header")
	}
	for _, n := range []uint32{27, MaxMessage + 1} {
		if _, ok := ParseHeader(new(wire).u32(n, 0, 0, 0, 0, 0, 0).wire); ok {
			t.Errorf("a message of %d bytes is none", n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	e := &encoder{r: rand.New(rand.NewPCG(5, 6))}
	for i, s := range shapes() {
		if i%40 == 0 {
			e.wire = nil
			e.payload(s.typ)
			f.Add(s.head.Prog, s.head.Proc, uint32(s.head.Type), uint32(s.head.Status), e.wire, 0)
		}
	}
	f.Fuzz(func(t *testing.T, prog uint32, proc int32, typ, status uint32, payload []byte, missing int) {
		d := Decoder{Limit: 64}
		m := d.Decode(Header{Prog: prog, Vers: 1, Proc: proc, Type: Type(typ), Status: Status(status)}, payload,
			len(payload)+max(0, missing%100))
		for _, s := range []Style{{}, {Full: true}, {Full: true, Secrets: true}} {
			m.AppendText(nil, s)
			mustBeJSON(t, m.AppendJSON(nil, s))
		}
		m.Object()
		m.Domain()
		m.Identity()
		if len(m.Values) > 64+40*8 {
			t.Fatalf("%d values kept", len(m.Values))
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	var d Decoder
	var buf []byte
	call := head(b, "domain_lookup_by_name", Reply, OK)
	payload := new(wire).dom("vm1", 3).wire
	b.Run("text", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = d.Decode(call, payload, len(payload)).AppendText(buf[:0], Style{})
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = d.Decode(call, payload, len(payload)).AppendJSON(buf[:0], Style{})
		}
	})
	xml := new(wire).str("<domain type='qemu'>\n<name>vm1</name>" + strings.Repeat("<disk type='file'/>\n", 300) +
		"</domain>").wire
	define := head(b, "domain_get_xml_desc", Reply, OK)
	b.Run("xml", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = d.Decode(define, xml, len(xml)).AppendText(buf[:0], Style{})
		}
	})
	if !bytes.Contains(buf, []byte("vm1")) {
		b.Fatal(string(buf))
	}
}
