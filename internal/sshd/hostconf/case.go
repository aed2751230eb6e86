package hostconf

import "fmt"

// Case is one kind of connection that a Match block may treat differently.
type Case struct {
	User         string `json:"user"`
	Host         string `json:"host,omitempty"`
	Address      string `json:"address"`
	LocalAddress string `json:"local_address,omitempty"`
	LocalPort    string `json:"local_port,omitempty"`

	UID     int  // -1: the account does not exist
	Local   bool // it stands in passwd(5)
	Groups  []string
	Service string // PAM's
}

func (c Case) String() string {
	return fmt.Sprintf("user=%s,host=%s,addr=%s,laddr=%s,lport=%s", c.User, c.Host, c.Address, c.LocalAddress,
		c.LocalPort)
}
