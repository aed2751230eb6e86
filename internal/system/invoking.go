package system

import (
	"os"
	"os/user"
	"strings"

	"github.com/postern-project/postern"
)

// InvokingUser returns the name of the user who started this program, also by sudo, as a
// person's name; "admin" if it is none.
func InvokingUser() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	name = strings.ToLower(name)
	if !postern.ValidName(name) {
		return "admin"
	}
	return name
}
