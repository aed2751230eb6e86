package otp

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/postern-project/postern"
)

// WriteKSM writes keys as the key file of yubikey-ksm, which ReadImport can read. It
// leaves out keys whose secret is not here. Slots' access codes are not known, and are
// written as none.
func WriteKSM(w io.Writer, keys []*Key) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "# ykksm 1")
	for _, k := range keys {
		if k.Secret == nil {
			continue
		}
		fmt.Fprintf(b, "%d,%s,%s,%s,000000000000,%s,%s\n", k.Serial, k.PublicID,
			hex.EncodeToString(k.Secret.PrivateID[:]), hex.EncodeToString(k.Secret.Key[:]), ksmDate(k.Created),
			ksmDate(k.Last.Time))
	}
	return b.Flush()
}

func ksmDate(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05")
}

// WriteVal writes counters as ykval-export does.
func WriteVal(w io.Writer, keys []*Key) error {
	b := bufio.NewWriter(w)
	for _, k := range keys {
		active := 0
		if k.Status == postern.CredentialActive {
			active = 1
		}
		counter, use, low, high, modified, nonce := int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), k.Last.Nonce
		if k.Last.Seq >= 0 {
			counter, use = k.Last.Seq>>8, k.Last.Seq&0xff
			low, high = int64(k.Last.Timestamp&0xffff), int64(k.Last.Timestamp>>16)
		}
		if !k.Last.Time.IsZero() {
			modified = k.Last.Time.Unix()
		}
		if nonce == "" {
			nonce = "0000000000000000"
		}
		fmt.Fprintf(b, "%d,%d,%d,%s,%d,%d,%d,%d,%s,\n", active, k.Created.Unix(), modified, k.PublicID, counter, use,
			low, high, nonce)
	}
	return b.Flush()
}
