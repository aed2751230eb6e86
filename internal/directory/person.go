package directory

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
	"github.com/postern-project/postern"
)

// Attributes that identify an entry for good, in the order of preference: RFC 4530,
// [MS-ADA3] section 2.42, FreeIPA.
var idAttributes = []string{"entryUUID", "objectGUID", "ipaUniqueID", "nsUniqueId"}

func personAttributes(name string) []string {
	return append([]string{
		name, "mail", "displayName", "cn",
		"userAccountControl", "accountExpires", "primaryGroupID", // Active Directory
		"shadowExpire",         // RFC 2307
		"pwdAccountLockedTime", // draft-behera-ldap-password-policy, section 5.3.3
		"nsAccountLock",        // 389 Directory Server, FreeIPA
	}, idAttributes...)
}

// person returns the person of an entry, or notes in the snapshot why there is none.
func (r *reader) person(e *ldap.Entry, s *Snapshot) (Person, bool) {
	p := Person{
		ID: id(e), Name: e.GetEqualFoldAttributeValue(r.c.NameAttribute), Disabled: disabled(e, r.now),
		FullName: fullName(first(e, "displayName", "cn")),
	}
	if p.Name == "" || len(p.Name) > 256 || !utf8.ValidString(p.Name) {
		s.Skipped = append(s.Skipped, e.DN+": it has no "+r.c.NameAttribute+" that is text")
		return p, false
	}
	if mail := e.GetEqualFoldAttributeValue("mail"); mail != "" {
		var err error
		if p.Email, err = postern.CleanEmail(mail); err != nil {
			s.Skipped = append(s.Skipped, e.DN+": its mail is no plain e-mail address")
		}
	}
	return p, true
}

func first(e *ldap.Entry, attributes ...string) string {
	for _, a := range attributes {
		if v := e.GetEqualFoldAttributeValue(a); v != "" {
			return v
		}
	}
	return ""
}

// id returns what identifies an entry, whatever its name: its name, if it has nothing
// else.
func id(e *ldap.Entry) string {
	for _, a := range idAttributes {
		if v := e.GetEqualFoldRawAttributeValue(a); len(v) > 0 {
			if a == "objectGUID" {
				return hex.EncodeToString(v)
			}
			return strings.ToLower(string(v))
		}
	}
	return normal(e.DN)
}

// lockedByAdministrator is a time that never was: the account is locked until it is
// unlocked. Another time is that of too many wrong passwords, which any client can try.
const lockedByAdministrator = "000001010000Z"

// disabled reports whether an entry may not sign in: any of the ways in which
// directories say so is enough, and so is a value that cannot be read.
func disabled(e *ldap.Entry, now time.Time) bool {
	if v := e.GetEqualFoldAttributeValue("userAccountControl"); v != "" {
		const accountDisable = 2 // [MS-ADTS] section 2.2.16
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n&accountDisable != 0 {
			return true
		}
	}
	if strings.EqualFold(e.GetEqualFoldAttributeValue("nsAccountLock"), "true") {
		return true
	}
	if e.GetEqualFoldAttributeValue("pwdAccountLockedTime") == lockedByAdministrator {
		return true
	}
	return expired(e.GetEqualFoldAttributeValue("accountExpires"), filetime, now) ||
		expired(e.GetEqualFoldAttributeValue("shadowExpire"), days, now)
}

// expired reports whether an account's end, as a number that at reads, has passed.
func expired(value string, at func(int64) (time.Time, bool), now time.Time) bool {
	if value == "" {
		return false
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return true
	}
	end, ends := at(n)
	return ends && !now.Before(end)
}

// filetime reads 100 ns since 1601; 0 and the largest are no end ([MS-ADA1] section 2.1).
func filetime(n int64) (time.Time, bool) {
	const to1970 = 11644473600 // seconds
	if n <= 0 || n == 1<<63-1 {
		return time.Time{}, false
	}
	return time.Unix(n/1e7-to1970, 0), true
}

// days reads days since 1970; a negative number is no end (shadow(5)).
func days(n int64) (time.Time, bool) {
	if n < 0 || n > 1<<20 {
		return time.Time{}, false
	}
	return time.Unix(n*24*60*60, 0), true
}

// normal returns an entry's name in one form, to be compared: without regard to case and
// to how many blanks stand together (RFC 4518 section 2.6.1).
func normal(dn string) string {
	if parsed, err := ldap.ParseDN(dn); err == nil {
		dn = parsed.String()
	}
	return strings.ToLower(strings.Join(strings.Fields(dn), " "))
}
