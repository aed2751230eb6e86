// Package admin asks a libvirt daemon, over its admin socket, what its workers do, how
// many clients it takes and who they are. It only reads: of the admin program's
// procedures (src/admin/admin_protocol.x) it calls those that change nothing.
//
// What a daemon answers is foreign: lengths are bounded, and nothing panics or grows.
package admin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/postern-project/postern/internal/trace/libvirt"
)

// The admin program and the procedures of it that are called.
const (
	program = 0x06900690

	procOpen        = 1
	procListServers = 4
	procWorkers     = 6
	procListClients = 8
	procClientInfo  = 10
	procLimits      = 12
)

// Server is one of the servers in a daemon, which have clients and workers of their
// own: the one that serves connections to drivers is named after the daemon, another
// one is admin.
type Server struct {
	Name    string
	Workers Workers
	Limits  Limits
	Clients []Client
}

// Workers are the threads that take up calls.
type Workers struct {
	Min, Max, Current, Free uint64
	Priority                uint64 // of their own for calls that wait for nobody
	Queued                  uint64 // calls that no worker has taken up
}

// Limits are how many clients a server has and takes.
type Limits struct {
	Max, Current                               uint64
	MaxUnauthenticated, CurrentUnauthenticated uint64
}

// Client is a connection to a server.
type Client struct {
	ID        uint64    // in the daemon
	Since     time.Time // in whole seconds
	Transport string    // unix, tcp, tls
	ReadOnly  bool
	PID       int    // of a Unix client; 0 for others
	UID       int    // of a Unix client; -1 for others
	User      string // name of UID
	Address   string // of a client over TCP or TLS
	SASLName  string
	TLSName   string // distinguished name of the client's certificate
	SELinux   string // security context
}

// Bounds of what is asked for and read.
const (
	maxServers = 64
	maxClients = 16384 // as many as the protocol allows in one answer
	maxAnswer  = 4 << 20
	maxMissed  = 1024 // messages that are no answer to the call
)

// Ask asks a daemon over a connection to its admin socket, whose deadline the caller
// sets. With an error it returns what was learned before.
func Ask(conn net.Conn) ([]Server, error) {
	a := conversation{conn: conn, decoder: libvirt.Decoder{Limit: 8 * maxClients}}
	if _, err := a.call(procOpen, words(0)); err != nil {
		return nil, err
	}
	names, err := a.servers()
	var servers []Server
	for _, name := range names {
		if err != nil {
			break
		}
		s := Server{Name: name}
		err = a.fill(&s)
		servers = append(servers, s)
	}
	return servers, err
}

// conversation is a connection on which one call is made after another.
type conversation struct {
	conn    net.Conn
	serial  uint32
	decoder libvirt.Decoder
}

func (a *conversation) servers() (names []string, err error) {
	m, err := a.call(procListServers, words(1, 0))
	if err != nil {
		return nil, err
	}
	for i := range m.Values {
		if v := &m.Values[i]; v.Name == "name" && len(names) < maxServers {
			names = append(names, string(v.Bytes))
		}
	}
	return names, nil
}

// fill asks for what belongs to a server.
func (a *conversation) fill(s *Server) error {
	name := text(s.Name)
	m, err := a.call(procWorkers, append(name, words(0)...))
	if err != nil {
		return err
	}
	set(m, map[string]*uint64{
		"minWorkers": &s.Workers.Min, "maxWorkers": &s.Workers.Max, "nWorkers": &s.Workers.Current,
		"freeWorkers": &s.Workers.Free, "prioWorkers": &s.Workers.Priority, "jobQueueDepth": &s.Workers.Queued,
	})
	if m, err = a.call(procLimits, append(name, words(0)...)); err != nil {
		return err
	}
	set(m, map[string]*uint64{
		"nclients_max": &s.Limits.Max, "nclients": &s.Limits.Current,
		"nclients_unauth_max": &s.Limits.MaxUnauthenticated, "nclients_unauth": &s.Limits.CurrentUnauthenticated,
	})
	if m, err = a.call(procListClients, append(name, words(1, 0)...)); err != nil {
		return err
	}
	for _, c := range clientsOf(m) {
		switch err := a.info(s.Name, &c); {
		case err == nil:
			s.Clients = append(s.Clients, c)
		case !errors.As(err, new(*Refusal)): // another client's end is no error
			return err
		}
	}
	return nil
}

// set sets the numbers that parameters name.
func set(m *libvirt.Message, numbers map[string]*uint64) {
	for name, v := range m.Params() {
		if n := numbers[name]; n != nil {
			*n = v.Num
		}
	}
}

// clientsOf reads the answer to server_list_clients.
func clientsOf(m *libvirt.Message) (clients []Client) {
	for i := range m.Values {
		v := &m.Values[i]
		if v.Name == "id" && len(clients) < maxClients {
			clients = append(clients, Client{ID: v.Num, UID: -1})
		}
		if len(clients) == 0 {
			continue
		}
		c := &clients[len(clients)-1]
		switch v.Name {
		case "timestamp":
			c.Since = time.Unix(int64(v.Num), 0)
		case "transport":
			c.Transport = transports[v.Num]
		}
	}
	return clients
}

// transports are virClientTransport of libvirt-admin.h.
var transports = map[uint64]string{0: "unix", 1: "tcp", 2: "tls"}

// info asks who a client is.
func (a *conversation) info(server string, c *Client) error {
	b := binary.BigEndian.AppendUint64(text(server), c.ID)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Since.Unix()))
	transport := uint32(0)
	for n, name := range transports {
		if name == c.Transport {
			transport = uint32(n)
		}
	}
	m, err := a.call(procClientInfo, append(b, words(transport, 0)...))
	if err != nil {
		return err
	}
	for name, v := range m.Params() {
		c.set(name, v)
	}
	return nil
}

// set takes a parameter: VIR_CLIENT_INFO_* of libvirt-admin.h.
func (c *Client) set(name string, v *libvirt.Value) {
	switch name {
	case "readonly":
		c.ReadOnly = v.Num != 0
	case "sock_addr":
		c.Address = string(v.Bytes)
	case "unix_process_id":
		c.PID = int(int32(v.Num))
	case "unix_user_id":
		c.UID = int(int32(v.Num))
	case "unix_user_name":
		c.User = string(v.Bytes)
	case "sasl_user_name":
		c.SASLName = string(v.Bytes)
	case "tls_x509_dname":
		c.TLSName = string(v.Bytes)
	case "selinux_context":
		c.SELinux = string(v.Bytes)
	}
}

// Refusal is a call that the daemon answered with an error.
type Refusal struct{ Text string }

func (r *Refusal) Error() string { return "the daemon refuses: " + r.Text }

// errAnswer is the error for bytes that are no answer of this protocol.
var errAnswer = errors.New("the daemon's answer is not of the admin protocol")

// call makes a call and returns its answer, which stands until the next one.
func (a *conversation) call(proc int32, args []byte) (*libvirt.Message, error) {
	a.serial++
	b := words(uint32(libvirt.HeaderLen+len(args)), program, 1, uint32(proc), uint32(libvirt.Call), a.serial, 0)
	if _, err := a.conn.Write(append(b, args...)); err != nil {
		return nil, err
	}
	for range maxMissed {
		h, payload, err := a.read()
		if err != nil {
			return nil, err
		}
		if h.Prog != program || h.Proc != proc || h.Serial != a.serial || !h.Type.IsReply() {
			continue // a keepalive
		}
		m := a.decoder.Decode(h, payload, len(payload))
		if f := m.Failure(); f != nil {
			return nil, &Refusal{string(libvirt.AppendPrintable(nil, string(f.Message)))}
		}
		if m.Malformed || m.Part == libvirt.Error {
			return nil, errAnswer
		}
		return m, nil
	}
	return nil, errAnswer
}

// read reads one message.
func (a *conversation) read() (libvirt.Header, []byte, error) {
	var head [libvirt.HeaderLen]byte
	if _, err := io.ReadFull(a.conn, head[:]); err != nil {
		return libvirt.Header{}, nil, err
	}
	h, ok := libvirt.ParseHeader(head[:])
	if !ok {
		return h, nil, errAnswer
	}
	if h.Len > maxAnswer {
		return h, nil, fmt.Errorf("%w: %d bytes", errAnswer, h.Len)
	}
	payload, err := io.ReadAll(io.LimitReader(a.conn, int64(h.Len-libvirt.HeaderLen)))
	if err == nil && len(payload) < int(h.Len-libvirt.HeaderLen) {
		err = io.ErrUnexpectedEOF
	}
	return h, payload, err
}

// words encodes numbers as XDR does.
func words(numbers ...uint32) []byte {
	var b []byte
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

// text encodes a string as XDR does.
func text(s string) []byte {
	b := append(words(uint32(len(s))), s...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
