package correlate

import (
	"maps"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
)

// AddPID lets events of a process pass, by its number.
func (f *Filter) AddPID(text string) error {
	pid, err := strconv.ParseUint(text, 10, 31)
	if err != nil || pid == 0 {
		return postern.Errorf(postern.Invalid, "%q is not a process number", text)
	}
	f.PIDs = append(f.PIDs, int(pid))
	return nil
}

// AddConnection lets events of a connection pass, by the address that events show.
func (f *Filter) AddConnection(text string) error {
	client, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 64)
	if err != nil {
		return postern.Errorf(postern.Invalid, "%q is not an address such as 0x55d0c8a2e010", text)
	}
	f.Clients = append(f.Clients, client)
	return nil
}

// AddUser lets events of a client pass by its user's login name, number or SASL
// identity. known reports whether it is a number, or a login name of this host.
func (f *Filter) AddUser(name string) (known bool) {
	f.Users = append(f.Users, name)
	if u, err := user.Lookup(name); err == nil {
		f.Users = append(f.Users, u.Uid)
		return true
	}
	_, err := strconv.ParseUint(name, 10, 32)
	return err == nil
}

// The bits of the words for types and statuses. A call and a reply may carry file
// descriptors, which is a type of its own.
var (
	types = map[string]uint32{
		"call": 1<<0 | 1<<4, "reply": 1<<1 | 1<<5, "event": 1 << 2, "message": 1 << 2, "stream": 1 << 3,
		"hole": 1 << 6,
	}
	statuses = map[string]uint32{"ok": 1, "error": 2, "continue": 4}
)

// AddType lets messages of a type pass: call, reply, event, stream, hole.
func (f *Filter) AddType(word string) error { return add(&f.Types, types, word) }

// AddStatus lets replies of a status pass: ok, error, continue.
func (f *Filter) AddStatus(word string) error { return add(&f.Statuses, statuses, word) }

func add(set *uint32, known map[string]uint32, word string) error {
	bit, ok := known[word]
	if !ok {
		return postern.Errorf(postern.Invalid, "%q is none of %s", word,
			strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	}
	*set |= bit
	return nil
}
