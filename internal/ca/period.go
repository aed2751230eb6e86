package ca

import (
	"time"

	"github.com/postern-project/postern"
)

// Period is when a certificate is to be valid. Its zero value leaves that to the
// certificate's profile.
type Period struct {
	Validity            time.Duration // from now on; 0: the profile's
	NotBefore, NotAfter time.Time     // just these, to the second; zero: chosen here
}

// maxPast is how far in the past a certificate may be asked to begin: as long as an
// order may take.
const maxPast = 7 * day

// in returns the first and the last second of a certificate of that policy which is
// issued now.
func (p Period) in(policy Policy, now time.Time, backdate time.Duration) (from, to time.Time, err error) {
	from, to = p.NotBefore, p.NotAfter
	start := from
	if from.IsZero() {
		start, from = now, now.Add(-backdate)
	}
	validity := p.Validity
	if validity == 0 {
		validity = policy.Validity
	}
	if to.IsZero() {
		to = start.Add(validity)
	}
	switch length := to.Sub(start); {
	case length < time.Minute || length > policy.longest():
		return from, to, postern.Errorf(postern.Invalid, "a validity of %s is not between a minute and %s",
			Lifetime(length.Round(time.Second)), Lifetime(policy.longest())).
			WithHint("that is what the profile %s permits", policy.Profile)
	case start.Before(now.Add(-maxPast)):
		return from, to, postern.Errorf(postern.Invalid, "a certificate begins at most %d days in the past",
			maxPast/day)
	case !to.After(now):
		return from, to, postern.Errorf(postern.Invalid, "a certificate does not end in the past")
	}
	return from, to, nil
}

// within ends a certificate no later than its issuer. A server's is, backdating and
// last second included, no longer than browsers accept. What was asked for exactly is
// refused rather than changed.
func (p Period) within(from, to time.Time, iss *issuer, server bool) (time.Time, time.Time, error) {
	last := iss.cert.NotAfter
	if !p.NotAfter.IsZero() && to.After(last) {
		return from,
			to, postern.Errorf(postern.Invalid, "the certificate would end after its CA, %s, which ends on %s",
				iss.ID, last.Format(time.RFC3339))
	}
	if latest := from.Add(MaxServerValidity - time.Second); server && latest.Before(last) {
		last = latest
	}
	if to.After(last) && p.NotAfter.IsZero() {
		to = last
	}
	if first := to.Add(time.Second - MaxServerValidity); server && from.Before(first) && p.NotBefore.IsZero() {
		from = first
	}
	return from, to, nil
}

// Accept returns the profile under which a server's certificate for that period would
// be issued now; "" is ProfileServer. NotFound: there is no such profile. Invalid: its
// certificates cannot be valid then.
func (a *Authority) Accept(name Profile, p Period) (Profile, error) {
	policy, err := a.serverPolicy(name)
	if err != nil {
		return name, err
	}
	iss, err := a.signing(Server)
	if err != nil {
		return policy.Profile, err
	}
	from, to, err := p.in(policy, a.now(), a.cfg.Backdate)
	if err == nil {
		_, _, err = p.within(from, to, iss, true)
	}
	return policy.Profile, err
}
