package timeline

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

// memory is a timeline in memory.
type memory struct {
	mu     sync.Mutex
	events []postern.Event
	fail   error
}

func (m *memory) Append(_ context.Context, events ...postern.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, e := range events {
		e.Index = int64(len(m.events))
		m.events = append(m.events, e)
	}
	return nil
}

func (m *memory) Events(_ context.Context, f Filter) ([]postern.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []postern.Event
	for _, e := range m.events {
		if f.Match(e) && (f.Limit == 0 || len(found) < f.Limit) {
			found = append(found, e)
		}
	}
	return found, nil
}

// TestSentence joins a login, a session and a call into the sentence that the
// timeline is for.
func TestSentence(t *testing.T) {
	session := postern.Link{Kind: postern.LinkSession, ID: "host/boot/7"}
	process := postern.Link{Kind: postern.LinkProcess, ID: "host/boot/4242/99"}
	login := postern.Link{Kind: postern.LinkConnection, ID: "host/sshd/1"}
	domain := postern.Link{Kind: postern.LinkDomain, ID: "c7a5fdbd-edaf-9455-926a-d65c16db1809"}
	yubikey := postern.Link{Kind: string(postern.YubiKey), ID: "vvccccbdefgh"}
	cert := postern.Link{Kind: string(postern.SSHCertificate), ID: "4711"}
	m := &memory{}
	call := postern.Event{
		Kind: postern.EventLibvirtCall, Outcome: postern.OK, Object: "vm3", Took: 41 * time.Millisecond,
		Links: []postern.Link{process, domain}, Details: map[string]string{Procedure: "domainDestroy"},
	}
	for _, e := range []postern.Event{
		{
			Kind: postern.EventOTP, Outcome: postern.Refused, Person: "mallory", Address: "203.0.113.9",
			Links: []postern.Link{login, {Kind: string(postern.YubiKey), ID: "vvother"}},
		},
		{Kind: postern.EventOTP, Outcome: postern.OK, Person: "alice", Links: []postern.Link{login, yubikey}},
		{
			Kind: postern.EventSSHAuth, Outcome: postern.OK, Person: "alice", Address: "192.0.2.7",
			Links: []postern.Link{login, cert},
		},
		{Kind: postern.EventSSHOpened, Outcome: postern.OK, Person: "alice", Links: []postern.Link{login, session}},
		{Kind: "process.started", Outcome: postern.OK, Links: []postern.Link{session, process}},
		{
			Kind: postern.EventLibvirtCall, Outcome: postern.OK, Person: "bob", Object: "vm3",
			Links: []postern.Link{domain},
		},
		call,
		{
			Kind: postern.EventSSHAuth, Outcome: postern.OK, Person: "alice", Address: "198.51.100.1",
			Links: []postern.Link{cert},
		},
	} {
		if err := m.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	call.Index = 6
	joined, err := Join(t.Context(), m, call)
	if err != nil {
		t.Fatal(err)
	}
	if got := indexes(joined); !slices.Equal(got, []int64{0, 1, 2, 3, 4, 6}) {
		t.Errorf("joined are %v", got)
	}
	want := "alice, YubiKey vvccccbdefgh and SSH certificate 4711, from 192.0.2.7, ran domainDestroy on vm3; " +
		"answered in 41 ms."
	if got := Sentence(call, joined); got != want {
		t.Errorf("the sentence is\n%s\nnot\n%s", got, want)
	}
}

func indexes(events []postern.Event) []int64 {
	var list []int64
	for _, e := range events {
		list = append(list, e.Index)
	}
	return list
}

func TestSentences(t *testing.T) {
	for _, c := range []struct {
		e    postern.Event
		want string
	}{
		{
			postern.Event{
				Kind: postern.EventAccessRefused, Outcome: postern.Refused, Address: "192.0.2.1",
				Object: "/wp-admin", Reason: "none-shown", Count: 12,
			},
			"an unknown client, from 192.0.2.1, was refused /wp-admin, 12 times: none shown.",
		},
		{postern.Event{
			Kind: postern.EventPersonAdded, Person: "bob", Outcome: postern.OK,
			Details: map[string]string{"by": "root"},
		}, "bob was added, by root."},
		{
			postern.Event{
				Kind: postern.EventCertIssued, Outcome: postern.OK, Object: "4711",
				Links:   []postern.Link{{Kind: string(postern.X509Certificate), ID: "4711"}},
				Details: map[string]string{"profile": "server", "names": "a.example b.example"},
			},
			"a server was issued the certificate 4711 for a.example b.example.",
		},
		{postern.Event{Kind: postern.EventPersonSuspended, Person: "bob", Outcome: postern.OK}, "bob was suspended."},
		{
			postern.Event{Kind: postern.EventCertIssued, Person: "bob", Outcome: postern.OK},
			"bob was issued the certificate.",
		},
		{postern.Event{
			Kind: postern.EventConfigLoaded, Outcome: postern.Failed, Object: "Caddyfile",
			Reason: "line 3",
		}, "the server could not load the configuration Caddyfile: line 3."},
		{postern.Event{
			Kind: postern.EventLibvirtCall, Outcome: postern.Failed, Person: "bob",
			Took: 1500 * time.Microsecond,
		}, "bob ran a libvirt call, which failed; answered in 1.5 ms."},
		{
			postern.Event{
				Kind: postern.EventLibvirtCall, Outcome: postern.OK, Object: "vm3",
				Details: map[string]string{"procedure": "domainCreate", "user": "root"},
			},
			"the account root ran domainCreate on vm3.",
		},
		{
			postern.Event{Kind: postern.EventPortalCodes, Outcome: postern.OK, Person: "bob", Count: 10},
			"bob made 10 recovery codes.",
		},
		{postern.Event{
			Kind: postern.EventAgentLost, Outcome: postern.Failed, Object: "hv1", Count: 1,
			Reason: "too much",
		}, "the agent lost 1 of what happened on hv1: too much."},
		{
			postern.Event{Kind: postern.EventOTPRestored, Outcome: postern.OK, Person: "root", Count: 3},
			"root was restored from a backup, and 3 keys were disabled.",
		},
		{
			postern.Event{Kind: postern.EventOTPUpstream, Outcome: postern.OK, Person: "root", Object: "none"},
			"root changed the upstream validation service: none.",
		},
		{postern.Event{
			Kind: postern.EventPAMAuth, Outcome: postern.Refused, Person: "bob", Object: "root",
			Details: map[string]string{"service": "sudo"},
		}, "bob was refused by sudo as root."},
		{postern.Event{
			Kind: postern.EventPAMOpened, Outcome: postern.OK, Person: "alice", Object: "root",
			Details: map[string]string{"service": "sudo", "user": "alice"},
		}, "alice became root by sudo."},
		{postern.Event{
			Kind: postern.EventPAMOpened, Outcome: postern.OK, Object: "root",
			Details: map[string]string{"service": "su", "user": "carol"},
		}, "the account carol became root by su."},
		{postern.Event{Kind: postern.EventSSHAuth, Outcome: postern.OK, Person: "bob"}, "bob was accepted by sshd."},
		{
			postern.Event{
				Kind: postern.EventSSHAuth, Outcome: postern.OK, Person: "bob", Object: "bob",
				Details: map[string]string{"key_type": "ED25519-SK"},
				Links:   []postern.Link{{Kind: string(postern.SSHKey), ID: "SHA256:AAAA"}},
			},
			"bob, FIDO2 key SHA256:AAAA, was accepted by sshd as bob.",
		},
		{
			postern.Event{
				Kind: postern.EventSSHAuth, Outcome: postern.OK, Person: "bob", Object: "bob",
				Details: map[string]string{"key_type": "ECDSA-SK-CERT"},
				Links: []postern.Link{
					{Kind: string(postern.SSHCertificate), ID: "4711"},
					{Kind: string(postern.SSHKey), ID: "SHA256:AAAA"},
				},
			},
			"bob, FIDO2 key SHA256:AAAA and SSH certificate 4711, was accepted by sshd as bob.",
		},
		{
			postern.Event{Kind: postern.EventCACreated, Outcome: postern.OK, Object: "root"},
			"the server made the certificate authority root.",
		},
		{postern.Event{
			Kind: postern.EventACMEAccount, Outcome: postern.OK, Person: "bob", Object: "a1",
			Details: map[string]string{"did": postern.ACMECreated},
		}, "bob made the ACME account a1."},
		{
			postern.Event{
				Kind: postern.EventACMEAccount, Outcome: postern.OK, Object: "a1", Address: "192.0.2.1",
				Details: map[string]string{"did": postern.ACMERolledOver},
			},
			"an unknown client, from 192.0.2.1, gave the ACME account a1 another key.",
		},
		{
			postern.Event{
				Kind: postern.EventACMEAccount, Outcome: postern.OK, Person: "bob", Object: "a1",
				Details: map[string]string{"did": postern.ACMEChanged},
			},
			"bob changed the contacts of the ACME account a1.",
		},
		{postern.Event{
			Kind: postern.EventACMEAccount, Outcome: postern.OK, Person: "bob", Object: "a1",
			Details: map[string]string{"did": postern.ACMEDeactivated},
		}, "bob deactivated the ACME account a1."},
		{
			postern.Event{
				Kind: postern.EventACMEAccount, Outcome: postern.OK, Person: "bob", Object: "k1",
				Details: map[string]string{"did": postern.ACMEKeyDisabled, "by": "root"},
			},
			"bob had the ACME key k1 disabled, by root.",
		},
		{
			postern.Event{Kind: postern.EventACMEAccount, Outcome: postern.OK, Person: "bob", Object: "a1"},
			"bob changed the ACME account a1.",
		},
		{postern.Event{Kind: "new.kind", Outcome: postern.OK, Person: "bob", Object: "x"}, "bob did new.kind on x."},
		{
			postern.Event{
				Kind: postern.EventSSHAuth, Outcome: postern.OK, Person: "bob", Object: "bob", Host: "hv1",
				Details: map[string]string{
					"method": "rescue code", "rescue": "4f2a, 2 left",
					postern.DetailClock: "3m0s behind",
				},
			},
			"bob was accepted by sshd as bob; by a rescue code of the set 4f2a, 2 left; the host's clock was 3m0s " +
				"behind " +
				"(told by hv1; the person is a guess by the account).",
		},
		{
			postern.Event{
				Kind: postern.EventLibvirtCall, Outcome: postern.OK, Person: "bob", Object: "vm1", Host: "hv1",
				Details: map[string]string{Procedure: "domainDestroy", "sasl": "bob@EX", Known: string(Strong)},
			},
			"bob, SASL user bob@EX, ran domainDestroy on vm1 (told by hv1; the person is as the host says).",
		},
		{
			postern.Event{
				Kind: postern.EventLibvirtCall, Outcome: postern.OK, Object: "vm1", Host: "hv1",
				Details: map[string]string{Procedure: "domainDestroy", "user": "root", "unit": "backup.service"},
			},
			"the account root, in backup.service, ran domainDestroy on vm1 (told by hv1).",
		},
		{postern.Event{Kind: "new.kind", Outcome: postern.Refused, Person: "bob"}, "bob was refused new.kind."},
	} {
		if got := Sentence(c.e, nil); got != c.want {
			t.Errorf("%s, not %s", got, c.want)
		}
		if got := Sentence(c.e, []postern.Event{c.e}); got != c.want { // [Join] returns the event, too
			t.Errorf("joined with itself: %s, not %s", got, c.want)
		}
	}
}

// TestSentencesOfCodes holds which codes prove a credential: those that were valid.
func TestSentencesOfCodes(t *testing.T) {
	for outcome, want := range map[postern.Outcome]string{
		postern.OK:      "bob, YubiKey vvccccbdefgh, gave a valid one-time code.",
		postern.Refused: "bob gave a one-time code that is not valid.",
	} {
		e := postern.Event{
			Kind: postern.EventOTP, Person: "bob", Outcome: outcome, Object: "vvccccbdefgh",
			Links: []postern.Link{{Kind: string(postern.YubiKey), ID: "vvccccbdefgh"}},
		}
		if got := Sentence(e, []postern.Event{e}); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}

// TestEveryKindIsRegistered compares the kinds of events that are declared with
// those that are described.
func TestEveryKindIsRegistered(t *testing.T) {
	declared := posterntest.EventKinds(t)
	for name, kind := range declared {
		k, ok := postern.EventKindOf(kind)
		if !ok || k.Title == "" || k.OK == "" && k.NotOK == "" {
			t.Errorf("%s is not described: %+v", name, k)
		}
		said := Sentence(postern.Event{Kind: kind, Object: "it", Person: "dan", Outcome: postern.OK}, nil)
		if k.OK != "" && strings.ContainsAny(said, "%#{}") {
			t.Errorf("%s: %s", name, said)
		}
	}
	if len(declared) != len(postern.EventKinds) {
		t.Errorf("%d kinds are declared, and %d described", len(declared), len(postern.EventKinds))
	}
}

// TestJoinEnds joins far more events than it may return.
func TestJoinEnds(t *testing.T) {
	m := &memory{}
	link := func(i int) postern.Link { return postern.Link{Kind: postern.LinkSession, ID: fmt.Sprint(i)} }
	for i := range 2 * MaxJoined {
		if err := m.Append(t.Context(), postern.Event{
			Kind:  "test",
			Links: []postern.Link{link(i), link(i + 1)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	joined, err := Join(t.Context(), m, postern.Event{Index: -1, Links: []postern.Link{link(0)}})
	if err != nil || len(joined) != MaxJoined {
		t.Errorf("%d joined, %v", len(joined), err)
	}
	e, joined, err := JoinAt(t.Context(), m, 3)
	if err != nil || e.Index != 3 || len(joined) != MaxJoined {
		t.Errorf("entry %d, %d joined, %v", e.Index, len(joined), err)
	}
	if _, _, err := JoinAt(t.Context(), m, 2*MaxJoined); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("an entry that is not there: %v", err)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("gate.refused", "/x\x00\xff\u202e", "why")
	f.Add(strings.Repeat("é", 3000), "", "\x1b[31m")
	f.Fuzz(func(t *testing.T, kind, object, reason string) {
		e := Clean(postern.Event{
			Kind: kind, Object: object, Reason: reason, Time: time.Unix(1, 2345),
			Links:   []postern.Link{{Kind: kind, ID: object}, {Kind: kind, ID: object}},
			Details: map[string]string{object: reason},
		})
		if again := Clean(e); len(e.Object) <= maxText && len(e.Kind) <= maxName && len(e.Reason) <= maxText &&
			!reflect.DeepEqual(again.Object, e.Object) {
			t.Errorf("%q becomes %q", e.Object, again.Object)
		}
		line, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(line) || bytes.ContainsAny(line, "\x00\n\x1b") {
			t.Errorf("the line is %q", line)
		}
		back, err := Decode(line)
		if err != nil || !reflect.DeepEqual(back, e) {
			t.Errorf("%+v comes back as %+v, %v", e, back, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	line, err := Encode(postern.Event{Kind: "x", Links: []postern.Link{{Kind: "a", ID: "b"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(`{"time":"x"}`))
	random := make([]byte, 40)
	rand.Read(random)
	f.Add(random)
	f.Fuzz(func(_ *testing.T, line []byte) {
		e, err := Decode(line)
		if err == nil {
			_ = Sentence(e, []postern.Event{e})
		}
	})
}

func TestFilterSaysWhatIsWrong(t *testing.T) {
	for _, f := range []Filter{
		{Address: "192.0.2.0/33"},
		{Outcome: "maybe"},
		{Link: postern.Link{Kind: "x"}},
		{Limit: -1},
	} {
		if postern.CodeOf(f.Validate()) != postern.Invalid {
			t.Errorf("%+v is valid", f)
		}
	}
	if err := (Filter{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestLinksAreParsed(t *testing.T) {
	if got, err := ParseLink("x509=1=2"); err != nil || got != (postern.Link{Kind: "x509", ID: "1=2"}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "yubikey", "yubikey=", "=vvccccbdefgh"} {
		t.Run(text, func(t *testing.T) {
			if _, err := ParseLink(text); postern.CodeOf(err) != postern.Invalid || postern.HintOf(err) == "" {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestKindsAreWhatAFilterSelects: each kind by its name and by what it begins with.
func TestKindsAreWhatAFilterSelects(t *testing.T) {
	kinds := Kinds()
	if !slices.IsSorted(kinds) || !slices.Contains(kinds, "cert") || !slices.Contains(kinds, postern.EventCertIssued) {
		t.Errorf("got %v", kinds)
	}
	for _, kind := range kinds {
		if !slices.ContainsFunc(postern.EventKinds, func(k postern.EventKind) bool {
			return Filter{Kind: kind}.Match(postern.Event{Kind: k.Name})
		}) {
			t.Errorf("%s selects nothing", kind)
		}
	}
	for _, k := range postern.EventKinds {
		if !slices.Contains(kinds, k.Name) {
			t.Errorf("%s is missing", k.Name)
		}
	}
}

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		event postern.Event
		want  string
	}{
		{postern.Event{}, ""},
		{postern.Event{Object: "/private/", Reason: "not-after"}, "/private/: not-after"},
		{postern.Event{Reason: "no certificate"}, "no certificate"},
		{postern.Event{
			Object: "vm1", Details: map[string]string{Procedure: "domain_destroy"},
			Took: 1500 * time.Millisecond,
		}, "domain_destroy vm1 (1.5 s)"},
		{postern.Event{Details: map[string]string{Procedure: "connect_open"}, Count: 3}, "connect_open (3 times)"},
	} {
		t.Run(c.want, func(t *testing.T) {
			if got := Summary(c.event); got != c.want {
				t.Errorf("got %q want %q", got, c.want)
			}
		})
	}
}
