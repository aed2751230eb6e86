// Package inflight says what libvirt's daemons do at one moment: which calls are open,
// for whom, for how long, and what each of them waits for; who is connected, and how
// much room there is for more.
//
// It asks the daemon's admin socket, and reads the stacks of the daemon's threads,
// which wait in the kernel, from outside. So it also sees calls that are older than any
// trace. What a trace has seen of them, such as when each began, is joined to it.
package inflight

import (
	"encoding/json"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Daemon is what a daemon does at one moment.
type Daemon struct {
	Name        string       `json:"daemon"`
	PID         int          `json:"pid"`
	Time        time.Time    `json:"time"`
	Servers     []Server     `json:"servers,omitempty"` // of which one is named after the daemon, and one admin
	Calls       []Call       `json:"calls"`             // the oldest first
	Connections []Connection `json:"connections"`
	NotAccepted []Client     `json:"not_accepted,omitempty"` // wait for the daemon to accept them
	Problems    []string     `json:"problems,omitempty"`     // why something of this is missing
}

// Server is what a server of a daemon has and may have.
type Server struct {
	Name               string `json:"name"`
	Clients            uint64 `json:"clients"`
	MaxClients         uint64 `json:"max_clients"`
	Unauthenticated    uint64 `json:"unauthenticated"`
	MaxUnauthenticated uint64 `json:"max_unauthenticated"`
	Workers            uint64 `json:"workers"` // that there are
	Busy               uint64 `json:"busy_workers"`
	MaxWorkers         uint64 `json:"max_workers"`
	Queued             uint64 `json:"queued"` // calls that no worker has taken up
	PriorityWorkers    uint64 `json:"priority_workers"`
}

// Bound says what is known of an age.
type Bound string

// What an age can be.
const (
	Unknown Bound = ""
	Exact   Bound = "exact"
	AtLeast Bound = "at least"
	AtMost  Bound = "at most" // as old as its connection
)

// Call is a call without an answer.
type Call struct {
	Program   string          `json:"program"`
	Procedure string          `json:"procedure"`
	Serial    uint32          `json:"serial"`
	Args      json.RawMessage `json:"args,omitempty"` // secrets masked
	Domain    *Domain         `json:"domain,omitempty"`
	Client    *Client         `json:"client,omitempty"`
	// Connection is the daemon's number of the client's connection; 0 when unknown.
	Connection uint64 `json:"connection,omitempty"`
	Thread     int    `json:"tid,omitempty"` // that works on it
	Age        int64  `json:"age_us,omitempty"`
	AgeIs      Bound  `json:"age_is,omitempty"`
	Forwarded  bool   `json:"forwarded,omitempty"` // made at another daemon, too, which knows the client
	Waits      *Wait  `json:"waits,omitempty"`

	text string // of the arguments
	key  key
	peer *event.Peer // at the other end of the connection's socket
}

// key names a call of a daemon's.
type key struct {
	client uint64
	libvirt.Header
}

// Domain is a virtual machine, as far as the call names it.
type Domain struct {
	Name string `json:"name,omitempty"`
	UUID string `json:"uuid,omitempty"`
}

// Reason is what a call waits for.
type Reason string

// What calls wait for.
const (
	ForWorker  Reason = "worker"  // a thread to take it up: all are busy
	ForJob     Reason = "job"     // another job of the same virtual machine to end
	ForMonitor Reason = "monitor" // QEMU to answer a command
	ForAgent   Reason = "agent"   // the agent in the guest to answer
	ForLock    Reason = "lock"    // a mutex of the daemon's that another thread has
	ForDaemon  Reason = "daemon"  // another daemon to answer
	ForProgram Reason = "program" // a program that the daemon has started to end
	ForKernel  Reason = "kernel"  // a system call, such as of a slow disk, to return
)

// Wait is what a call waits for.
type Wait struct {
	For     Reason  `json:"for"`
	Machine string  `json:"machine,omitempty"` // of a monitor
	Command string  `json:"command,omitempty"` // of a monitor, secrets masked; of a program
	ID      string  `json:"id,omitempty"`      // of the monitor command
	Age     int64   `json:"age_us,omitempty"`  // of the monitor command
	Holder  *Holder `json:"holder,omitempty"`  // of a job or a lock
	In      string  `json:"in,omitempty"`      // the innermost function of libvirt's that has a name
}

// Holder is the thread that has what another one waits for.
type Holder struct {
	Thread int     `json:"tid"`
	Name   string  `json:"thread,omitempty"`    // of the thread, where it serves no call
	API    string  `json:"api,omitempty"`       // that owns the job, in the daemon's words
	Call   string  `json:"procedure,omitempty"` // that the thread works on
	Client *Client `json:"client,omitempty"`
	Age    int64   `json:"age_us,omitempty"` // since the thread has the job
}

// Connection is a client's connection.
type Connection struct {
	ID        uint64    `json:"id"`
	Server    string    `json:"server"`
	Since     time.Time `json:"since"`
	Transport string    `json:"transport"`
	ReadOnly  bool      `json:"read_only,omitempty"`
	Calls     int       `json:"calls"` // that are open
	Client    *Client   `json:"client"`
}

// Client is who is at the other end of a connection. The members are those of the
// lines that other traces print as JSON.
type Client struct {
	PID      int    `json:"pid,omitempty"`
	UID      *int   `json:"uid,omitempty"`
	User     string `json:"user,omitempty"`
	Start    uint64 `json:"start,omitempty"`
	Session  uint32 `json:"session,omitempty"`
	Command  string `json:"command,omitempty"`
	Remote   string `json:"remote,omitempty"`
	TLSName  string `json:"tls_name,omitempty"`
	SASLName string `json:"sasl_name,omitempty"`
	SELinux  string `json:"selinux,omitempty"`
	Via      int    `json:"via,omitempty"`
}

// adminServer is the name of the server whose clients are administrators.
const adminServer = "admin"
