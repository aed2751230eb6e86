package doctor_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/directory"
	"github.com/postern-project/postern/internal/doctor"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/state"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDirectoryIsTried examines a state whose directory answers, and then does not.
func TestDirectoryIsTried(t *testing.T) {
	slapd, dir := posterntest.StartSlapd(t), filepath.Join(t.TempDir(), "state")
	slapd.Change("dn: uid=alice,dc=example,dc=com\nchangetype: add\n" +
		"objectClass: inetOrgPerson\nuid: alice\ncn: A\nsn: A\n")
	st, err := state.Create(t.Context(), dir)
	must(t, err)
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("reader"), 0o600))
	must(t, st.Store.Directory().Use(t.Context(), &directory.Config{
		URL: slapd.Plain, Name: "corp", CA: []string{slapd.CA}, Base: slapd.Base, BindDN: slapd.Reader,
		PasswordFile: secret,
	}))
	must(t, st.Close())
	examine := func() *doctor.Report { return doctor.Examine(t.Context(), doctor.Host{Dir: dir}) }
	if r := examine(); !slices.Contains(r.OK, "the directory corp has 1 person") {
		t.Errorf("%q", r.OK)
	}
	slapd.Stop()
	r := examine()
	if !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
		return f.Part == "directory" && !f.Advice && f.Fix != "" && strings.Contains(f.Problem, "corp")
	}) {
		t.Errorf("%+v", r.Findings)
	}
}
