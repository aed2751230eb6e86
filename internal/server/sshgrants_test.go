package server

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/state"
)

// TestWhatAnAuthoritysSSHCertificatesOpen lists what the state's rules let it issue, and
// what it has issued that is still valid.
func TestWhatAnAuthoritysSSHCertificatesOpen(t *testing.T) {
	st, err := state.Create(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	a, err := ca.Init(t.Context(), ca.Config{}, st.Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Store.People().AddPerson(t.Context(), postern.Person{Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	rules := `[{"groups":["ops"],"principals":["{person}","root"],"extensions":["permit-port-forwarding"]},
		{"principals":["deploy"],"force_command":"deploy"}]`
	if err := os.WriteFile(st.Path(SSHRulesFile), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, _ := posterntest.NewSSHKey(t, t.TempDir(), "key")
	revoked := uint64(0)
	for _, r := range []ca.SSHUserRequest{
		{Principals: []string{"backup"}, ForceCommand: "borg", Extensions: []string{"permit-port-forwarding"}},
		{Principals: []string{"gone"}},
	} {
		r.Person, r.Key, r.Validity = "alice", signer.PublicKey(), time.Hour
		c, err := a.SignSSHUser(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		revoked = c.Serial
	}
	if err := a.RevokeSSH(t.Context(), revoked, postern.Actor{}); err != nil {
		t.Fatal(err)
	}
	u, err := SSHUserCA(t.Context(), st, a)
	if err != nil {
		t.Fatal(err)
	}
	want := []audit.Grant{
		{Forwards: true},
		{Principals: []string{"deploy"}, Command: "deploy"},
		{Principals: []string{"backup"}, Command: "borg", Forwards: true},
	}
	if !slices.EqualFunc(u.Grants, want, func(a, b audit.Grant) bool {
		return slices.Equal(a.Principals, b.Principals) && a.Command == b.Command && a.Forwards == b.Forwards
	}) || len(u.Keys) != 1 {
		t.Errorf("%+v", u)
	}
}
