package otp

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"
)

// usualCode is the length of a code with the factory's public ID of 12 letters.
const usualCode = 12 + blockLetters

// skipPassword finds the code in what was typed, which may begin with a password, and
// leaves only the code in the attempt. The end of the password is not marked: public
// IDs have up to 16 letters, and a password may have the same letters. It ends where a
// code of a known key begins.
func (t *try) skipPassword(ctx context.Context) error {
	if !t.attempt.Password {
		return nil
	}
	typed := t.attempt.Code
	_, short := digits(typed)
	_, backup := backupHash(t.proof.Person, typed)
	if short || backup {
		return nil
	}
	n, err := t.yubikeyCode(ctx, typed)
	if err != nil {
		return err
	}
	if n == 0 && t.attempt.Digits {
		n = sixDigits(typed)
	}
	if strings.TrimSpace(typed[:n]) == "" {
		n = 0
	}
	t.proof.Password, t.attempt.Code = n, typed[n:]
	return nil
}

// yubikeyCode returns where in typed a YubiKey's code begins: the code of a key in the
// store, else of a key whose secret the upstream service has, else one of the usual
// length, else 0.
func (t *try) yubikeyCode(ctx context.Context, typed string) (int, error) {
	upstream, usual := -1, 0
	for _, start := range codeStarts(typed) {
		key, _, reason, err := openCode(ctx, t.keys, typed[start:])
		switch {
		case err != nil:
			return 0, err
		case key != nil && (reason == "" || reason == key.refusal()):
			return start, nil
		case upstream < 0 && (key != nil && reason == upstreamKey && t.mayUse(key) || t.isMapped(typed[start:])):
			upstream = start
		case utf8.RuneCountInString(strings.TrimSpace(typed[start:])) == usualCode:
			usual = start
		}
	}
	if upstream >= 0 {
		return upstream, nil
	}
	return usual, nil
}

// isMapped reports whether a reading of the code is of a key that the mapping file
// names for the account.
func (t *try) isMapped(code string) bool {
	for _, c := range Readings(code) {
		if t.mapped.Has(t.attempt.User, c.PublicID) {
			return true
		}
	}
	return false
}

// codeStarts returns where in typed a YubiKey's code can begin, the longest first.
func codeStarts(typed string) []int {
	var starts []int
	end := len(strings.TrimRightFunc(typed, unicode.IsSpace))
	start := end
	for letters := 1; letters <= maxCode && start > 0; letters++ {
		r, size := utf8.DecodeLastRuneInString(typed[:start])
		if unicode.IsSpace(r) {
			break
		}
		start -= size
		if letters >= blockLetters && Readings(typed[start:end]) != nil {
			starts = append([]int{start}, starts...)
		}
	}
	return starts
}

// sixDigits returns where six digits at the end of typed begin, 0 for none.
func sixDigits(typed string) int {
	end := len(strings.TrimRightFunc(typed, unicode.IsSpace))
	start := end
	for start > 0 && end-start < 6 && typed[start-1] >= '0' && typed[start-1] <= '9' {
		start--
	}
	if end-start < 6 {
		return 0
	}
	return start
}
