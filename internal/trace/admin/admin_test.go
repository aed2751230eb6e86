package admin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/libvirt"
)

// reply returns the message that answers a call.
func reply(proc int32, serial, status uint32, payload ...[]byte) []byte {
	body := bytes.Join(payload, nil)
	return append(words(uint32(libvirt.HeaderLen+len(body)), program, 1, uint32(proc), 1, serial, status), body...)
}

// param encodes a typed parameter of a kind: VIR_TYPED_PARAM_* of libvirt-common.h.
func param(name string, kind uint32, value []byte) []byte {
	return append(append(text(name), words(kind)...), value...)
}

func number(name string, n uint32) []byte { return param(name, 2, words(n)) }

// aDaemon is what a daemon answers that has one server and two clients, of which one
// has ended before it is asked about.
func aDaemon() [][]byte {
	gone := bytes.Join([][]byte{
		words(1, 51, 1), text("no client with id '8'"), words(2, 0, 0, 0, 0, 0, 0xffffffff, 0),
	}, nil)
	id := func(n, second uint64) []byte {
		b := binary.BigEndian.AppendUint64(text("libvirtd"), n)
		return binary.BigEndian.AppendUint64(b, second)
	}
	keepalive := words(28, 0x6b656570, 1, 1, 2, 0, 0)
	return [][]byte{
		reply(procOpen, 1, 0),
		append(keepalive, reply(procListServers, 2, 0, words(1), text("libvirtd"), words(1))...),
		reply(procWorkers, 3, 0, words(6), number("minWorkers", 5), number("maxWorkers", 20), number("nWorkers", 7),
			number("freeWorkers", 2), number("prioWorkers", 5), number("jobQueueDepth", 3)),
		reply(procLimits, 4, 0, words(4), number("nclients_max", 120), number("nclients", 2),
			number("nclients_unauth_max", 20), number("nclients_unauth", 1)),
		reply(procListClients, 5, 0, words(2), id(7, 1700000000), words(0), id(8, 1700000001), words(2), words(2)),
		reply(procClientInfo, 6, 0, words(4), param("readonly", 6, words(1)), param("unix_process_id", 1, words(4711)),
			param("unix_user_id", 1, words(1000)), param("unix_user_name", 7, text("dan"))),
		reply(procClientInfo, 7, 1, gone),
	}
}

// canned is a connection on which the answers stand already, and that keeps what is
// asked.
type canned struct {
	net.Conn
	answers bytes.Reader
	asked   bytes.Buffer
}

func (c *canned) Read(b []byte) (int, error)  { return c.answers.Read(b) }
func (c *canned) Write(b []byte) (int, error) { return c.asked.Write(b) }

// ask asks a daemon that answers so, and hangs up after it. It returns what was asked.
func ask(answers [][]byte) (servers []Server, asked []byte, err error) {
	c := &canned{}
	c.answers.Reset(bytes.Join(answers, nil))
	servers, err = Ask(c)
	return servers, c.asked.Bytes(), err
}

func TestADaemonIsAsked(t *testing.T) {
	servers, asked, err := ask(aDaemon())
	if err != nil || len(servers) != 1 {
		t.Fatalf("%+v, %v", servers, err)
	}
	s := servers[0]
	if s.Name != "libvirtd" || s.Workers != (Workers{Min: 5, Max: 20, Current: 7, Free: 2, Priority: 5, Queued: 3}) ||
		s.Limits != (Limits{Max: 120, Current: 2, MaxUnauthenticated: 20, CurrentUnauthenticated: 1}) {
		t.Errorf("%+v", s)
	}
	want := Client{
		ID: 7, Since: time.Unix(1700000000, 0), Transport: "unix", ReadOnly: true, PID: 4711, UID: 1000, User: "dan",
	}
	if len(s.Clients) != 1 || s.Clients[0] != want {
		t.Errorf("clients %+v", s.Clients)
	}
	reads := map[int32]bool{1: true, 4: true, 6: true, 8: true, 10: true, 12: true}
	for len(asked) > 0 {
		h, ok := libvirt.ParseHeader(asked)
		if !ok || h.Prog != program || !reads[h.Proc] {
			t.Fatalf("it calls procedure %d, which may change something", h.Proc)
		}
		args := asked[libvirt.HeaderLen:h.Len]
		asked = asked[h.Len:]
		var d libvirt.Decoder
		if m := d.Decode(h, args, len(args)); m.Malformed || m.Trailing > 0 {
			t.Errorf("the call of procedure %d is malformed", h.Proc)
		}
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	good := aDaemon()
	for name, c := range map[string]struct {
		answers [][]byte
		err     error
		says    string
	}{
		"refused": {[][]byte{reply(procOpen, 1, 1, words(1, 7, 1), text("no\x1b[2J"),
			words(2, 0, 0, 0, 0, 0, 0, 0))}, nil, `refuses: no\x1b[2J`},
		"hung up":      {nil, io.EOF, ""},
		"cut":          {[][]byte{good[0][:20]}, io.ErrUnexpectedEOF, ""},
		"payload cut":  {[][]byte{good[0], good[1][:len(good[1])-4]}, io.ErrUnexpectedEOF, ""},
		"no message":   {[][]byte{make([]byte, 28)}, errAnswer, ""},
		"too long":     {[][]byte{words(16<<20, program, 1, 1, 1, 1, 0)}, errAnswer, "16777216 bytes"},
		"not the type": {[][]byte{good[0], reply(procListServers, 2, 0, words(0xffffffff))}, errAnswer, ""},
		"another's answers": {
			[][]byte{bytes.Repeat(reply(procLimits, 1, 0), 2*maxMissed)}, errAnswer, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			servers, _, err := ask(c.answers)
			if err == nil || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v", servers, err)
			}
		})
	}
}

// FuzzAnswers gives a client mutated answers: it neither panics nor keeps more than it
// was sent.
func FuzzAnswers(f *testing.F) {
	for i, answer := range aDaemon() {
		f.Add(uint8(i), answer)
		for _, at := range []int{0, 12, 28, 31, len(answer) - 1} {
			if at < len(answer) {
				bad := bytes.Clone(answer)
				bad[at] ^= 0x81
				f.Add(uint8(i), bad)
			}
		}
	}
	f.Fuzz(func(t *testing.T, at uint8, mutated []byte) {
		answers := aDaemon()
		answers[int(at)%len(answers)] = mutated
		servers, _, _ := ask(answers)
		sent := 0
		for _, a := range answers {
			sent += len(a)
		}
		kept := 0
		for _, s := range servers {
			kept += len(s.Name)
			for _, c := range s.Clients {
				kept += 1 + len(c.User) + len(c.Address) + len(c.SASLName) + len(c.TLSName) + len(c.SELinux)
			}
		}
		if kept > sent {
			t.Errorf("%d bytes are kept of %d", kept, sent)
		}
	})
}
