package libvirt

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/event"
)

// newerFile is a protocol file of a libvirt newer than protocol.txt: a known
// procedure, one more of the same program, and a program that it has not.
const newerFile = `/* -*- c -*- */
%#include "internal.h"

const REMOTE_STRING_MAX = 4194304;
const REMOTE_GIFT_LIST_MAX = 0x10;
typedef string remote_nonnull_string<REMOTE_STRING_MAX>;
typedef remote_nonnull_string *remote_string;

enum remote_gift_color { REMOTE_GIFT_COLOR_RED, REMOTE_GIFT_COLOR_BLUE = 4 };

union remote_gift_value switch (int type) {
 case VIR_TYPED_PARAM_INT:
     int i;
 case 2:
     unsigned hyper ul;
};

struct remote_gift {
    remote_nonnull_string name; /* of the gift */
    remote_gift_color color;
    remote_gift_value value;
    unsigned count;
};

struct remote_domain_give_args {
    remote_nonnull_domain dom;
    remote_gift gifts<REMOTE_GIFT_LIST_MAX>;
    opaque secretKey<>;
    unsigned int flags;
};

struct remote_domain_give_ret {
    int given;
};

struct remote_domain_event_gift_msg { int callbackID; remote_string note; };

const REMOTE_PROGRAM = 0x20008086;
const REMOTE_PROTOCOL_VERSION = 1;

enum remote_procedure {
    /* Notes on annotations:
     * - @acl: <object>:<permission>
     */

    /**
     * @generate: none
     * @acl: connect:getattr
     */
    REMOTE_PROC_CONNECT_OPEN = 1,
LISTED
    /**
     * @generate: both
     * @writestream: 1
     * @acl: domain:write
     * @acl: domain:save
     */
    REMOTE_PROC_DOMAIN_GIVE = NEXT,

    /**
     * @acl: none
     */
    REMOTE_PROC_DOMAIN_EVENT_GIFT = LAST
};

struct virGiftProtocolOpenBoxArgs { int box; };
const VIR_GIFT_PROTOCOL_PROGRAM = 0x6160;
const VIR_GIFT_PROTOCOL_PROGRAM_VERSION = 3;
enum virGiftProtocolProcedure { VIR_GIFT_PROTOCOL_PROC_OPEN_BOX = 1 };
`

// makeNewer returns newerFile with the procedures between, as many as there are.
func makeNewer() (text string, next int32) {
	var listed strings.Builder
	remote, _ := builtin().lookup(SetIdentity.Prog, 0)
	for _, p := range remote.Procedures[1:] {
		listed.WriteString("    REMOTE_PROC_" + strings.ToUpper(p.Name) + " = " + number(p.Number) + ",\n")
	}
	next = int32(len(remote.Procedures) + 1)
	return strings.NewReplacer("LISTED", listed.String(), "NEXT", number(next), "LAST",
		number(next+1)).Replace(newerFile), next
}

func number(n int32) string { return strconv.Itoa(int(n)) }

// load loads a protocol file, for the time of a test.
func load(t testing.TB, text string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "remote_protocol.x")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		loaded.files = nil
		loaded.tables.Store(nil)
	})
	return Load(path)
}

func TestNewerProtocolFile(t *testing.T) {
	text, next := makeNewer()
	const box = 0x6160
	payload := []byte("\x00\x00\x00\x03vm1\x00" + "0123456789abcdef" + "\xff\xff\xff\xff" + // dom
		"\x00\x00\x00\x02" + // gifts
		"\x00\x00\x00\x01a\x00\x00\x00" + "\x00\x00\x00\x04" + "\x00\x00\x00\x01\x00\x00\x00\x07" +
		"\x00\x00\x00\x09" +
		"\x00\x00\x00\x01b\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x08" +
		"\x00\x00\x00\x00" +
		"\x00\x00\x00\x04seal" + "\x00\x00\x00\x02")
	call := Header{Prog: SetIdentity.Prog, Vers: 1, Proc: next}
	var d Decoder
	if m := d.Decode(call, payload, len(payload)); m.Procedure != nil || m.Part != Nothing ||
		ProcedureName(call.Prog, call.Proc) != number(next) {
		t.Fatalf("known before it is loaded: %+v", m)
	}
	if err := load(t, text); err != nil {
		t.Fatal(err)
	}
	m := d.Decode(call, payload, len(payload))
	want := `dom={name="vm1", uuid=30313233-3435-3637-3839-616263646566, id=-1}, gifts=[` +
		`{name="a", color=blue, i=7, count=9}, {name="b", color=red, ul=8, count=0}], secretKey=***, ` +
		`flags=0x2`
	if got := string(m.AppendText(nil, Style{})); got != want || m.Trailing > 0 || m.Malformed {
		t.Errorf("got  %s\nwant %s\n%+v", got, want, m)
	}
	p := m.Procedure
	if p.Name != "domain_give" || p.ACL != "domain:write,domain:save" || !p.Stream() || p.ret == 0 {
		t.Errorf("%+v", p)
	}
	if _, event := Lookup(call.Prog, next+1); event == nil || !event.Event() || event.Stream() {
		t.Errorf("%+v", event)
	}
	if o := m.Domain(); string(o.Name) != "vm1" {
		t.Errorf("about %q", o.Name)
	}
	if prog, open := Lookup(box, 1); open == nil || open.Name != "open_box" || prog.Name != "gift" ||
		prog.Version != 3 ||
		open.args == 0 {
		t.Errorf("%+v %+v", prog, open)
	}
	set, err := Procedures(nil, []string{"*give", "gift.*"})
	if err != nil || !set[event.Procedure{Prog: call.Prog, Proc: next}] || !set[event.Procedure{Prog: box, Proc: 1}] {
		t.Errorf("%v %v", set, err)
	}
}

// TestKnownProceduresStay: an older libvirt's file takes nothing away, and a secret
// stays one.
func TestKnownProceduresStay(t *testing.T) {
	err := load(t, `
		struct remote_secret_set_value_args { remote_nonnull_secret secret; opaque value<65536>; unsigned int flags; };
		const REMOTE_PROGRAM = 0x20008086;
		enum remote_procedure { REMOTE_PROC_CONNECT_OPEN = 1, REMOTE_PROC_CONNECT_CLOSE = 2 };`)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range builtin().programs {
		for _, want := range p.Procedures {
			if _, got := Lookup(p.Number, want.Number); got == nil || got.Name != want.Name ||
				got.Event() != want.Event() {
				t.Errorf("%s.%s is %+v", p.Name, want.Name, got)
			}
		}
	}
	found := Match("remote.secret_set_value")
	payload := make([]byte, 16+4+4+4+4+4)
	copy(payload[16+8+3:], "\x04open") // the value's length and text
	var d Decoder
	m := d.Decode(Header{Prog: SetIdentity.Prog, Vers: 1, Proc: found[0].Procedure.Number}, payload, len(payload))
	if got := string(m.AppendText(nil, Style{})); strings.Contains(got, "open") ||
		!strings.Contains(got, "value=***") {
		t.Error(got)
	}
}

// TestProtocolFilesThatAreNone: each is refused, with the place, and leaves everything
// as it was.
func TestProtocolFilesThatAreNone(t *testing.T) {
	nested := "struct t0 { int i; };\n"
	for i := range 40 {
		nested += "struct t" + number(int32(i+1)) + " { t" + number(int32(i)) + " a; };\n"
	}
	program := func(fields string) string {
		return fields + "const X_PROGRAM = 77;\nenum x_procedure { X_PROC_A = 1 };"
	}
	for text, want := range map[string]string{
		"/* it never ends":                 "line 1: this comment has no end",
		"const A = 1;\nconst B = C;":       `line 2: no constant is called "C"`,
		"struct a { int b; }":              "the file ends too early",
		"struct a { int b; } c;":           `line 1: "c" instead of ";"`,
		"struct a { int 3; };":             `"3" is no name`,
		"struct a { int b<-1>; };":         "nothing has -1 elements",
		"struct a { int b<4294967296>; };": "nothing has 4294967296 elements",
		"enum a { };":                      "is no name|is empty|instead of",
		"program X { } = 1;":               `"program" defines nothing`,
		"struct a { int b; } $":            `'$' is not of the language`,
		"const REMOTE_PROGRAM = 1; enum r { REMOTE_PROC_A = 1 };":      "program remote is 536903814, not remote 1",
		"const X_PROGRAM = 77; enum x { X_PROC_A = 2 };":               "X_PROC_A is not procedure 1",
		program("struct x_a_args { x_a_args again; };"):                "contains itself, or is nested too deep",
		program("typedef a b; typedef b a; struct x_a_args { a x; };"): "contains itself, or is nested too deep",
		program(nested + "struct x_a_args { t40 x; };"):                "nested too deep",
		program("struct x_a_args { };"):                                "is empty",
		program("struct x_a_args { nothing x; };"):                     "there is no type nothing",
		program("struct x_a_args { float x; };"):                       "there is no type float",
		program("struct x_a_args { char x[0]; };"):                     "char[0] is empty",
		program("struct x_a_args { int x[3]; };"):                      "int[3] is a type that libvirt has not used",
	} {
		err := load(t, text)
		if postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if !slices.ContainsFunc(strings.Split(want, "|"), func(w string) bool {
			return strings.Contains(err.Error(), w)
		}) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
		if known() != builtin() {
			t.Fatalf("%q is known", text)
		}
	}
	if err := Load(filepath.Join(t.TempDir(), "none.x")); postern.CodeOf(err) != postern.NotFound {
		t.Error(err)
	}
}

// TestProtocolFilesOfADirectory: libvirt's sources as they lie, of which one needs the
// other.
func TestProtocolFilesOfADirectory(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"src/a/first_protocol.x": "struct x_a_args { later x; }; const X_PROGRAM = 77; enum x_procedure { X_PROC_A " +
			"= 1 };",
		"src/b/virlateprotocol.x": "struct later { int y; };", "src/b/other.x": "none of them",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := load(t, ""); err != nil { // to be taken back afterwards
		t.Fatal(err)
	}
	if err := Load(dir); err != nil {
		t.Fatal(err)
	}
	var d Decoder
	m := d.Decode(Header{Prog: 77, Vers: 1, Proc: 1}, []byte{0, 0, 0, 5}, 4)
	if got := string(m.AppendText(nil, Style{})); got != "x={y=5}" {
		t.Error(got)
	}
}

// prelude is as much of protocol.txt as every table needs.
const prelude = `struct virNetMessageError code:int
struct virNetStreamHole length:hyper
struct remote_nonnull_domain name:string<64> id:int
table error_code ok=0
`

// FuzzProtocolFile reads mutated protocol files, and decodes by what they say.
func FuzzProtocolFile(f *testing.F) {
	f.Add([]byte(strings.NewReplacer("LISTED", "", "NEXT", "2", "LAST", "3").Replace(newerFile)),
		[]byte("\x00\x00\x00\x01"))
	f.Add([]byte("struct x_a_args { unsigned hyper a<>; opaque b[16]; char c[4]; bool *d; }; const X_PROGRAM = 7;"+
		"enum x_procedure { X_PROC_A = 1 };"), []byte("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07"))
	f.Add([]byte("union u switch (int t) { case 1: int a; }; typedef u *v; struct x_a_msg { v w<9>; };"+
		"const X_PROGRAM = 7; enum x_procedure { /** @acl: a:b */ X_PROC_A };"), []byte("\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, text, payload []byte) {
		s, err := readTables(prelude)
		if err != nil {
			t.Fatal(err)
		}
		enums, err := s.readProtocol(text)
		for _, e := range enums {
			if err == nil {
				err = s.procedures(e)
			}
		}
		if err != nil {
			return
		}
		made, err := s.compile()
		if err != nil {
			return
		}
		if len(made.types)+len(made.fields) > 8*len(text)+64 {
			t.Fatalf("%d bytes make %d types and %d fields", len(text), len(made.types), len(made.fields))
		}
		loaded.tables.Store(made)
		defer loaded.tables.Store(nil)
		d := Decoder{Limit: 64}
		for _, p := range made.programs {
			for i := range p.Procedures {
				m := d.Decode(Header{Prog: p.Number, Proc: int32(i + 1)}, payload, len(payload))
				m.AppendText(nil, Style{})
				mustBeJSON(t, m.AppendJSON(nil, Style{Full: true}))
			}
		}
	})
}
