package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"
)

// The numbers of OpenSSH's PROTOCOL.krl.
const (
	krlMagic             = "SSHKRL\n\x00"
	krlFormat            = 1
	krlSectionCerts      = 1
	krlSectionSHA256     = 5
	krlCertSerialList    = 0x20
	krlCertSerialRange   = 0x21
	krlShortestRangeRun  = 3 // from this many consecutive serials on, a range is smaller
	krlFingerprintLength = sha256.Size
)

// KRL returns the revocation list that sshd's RevokedKeys and ssh's
// RevokedHostKeys read (OpenSSH's PROTOCOL.krl): certificates that were revoked or whose
// person is suspended, by serial number under the CA that signed them; revoked keys by
// fingerprint, which covers certificates for them too.
func (a *Authority) KRL(ctx context.Context) ([]byte, error) {
	now := a.now()
	certs, keys, version, err := a.store.SSHRevoked(ctx, now)
	if err != nil {
		return nil, err
	}
	var sections []cryptobyte.BuilderContinuation
	for _, c := range certs {
		iss, err := a.issuer(ctx, c.Issuer)
		if err != nil {
			return nil, err
		}
		pub, err := ssh.NewPublicKey(iss.pub)
		if err != nil {
			return nil, postern.Errorf(postern.Internal, "CA %s: %w", c.Issuer, err)
		}
		sections = append(sections, certSection(pub.Marshal(), c.Serials))
	}
	retired, err := a.retiredSSHCAs()
	if err != nil {
		return nil, err
	}
	if keys = append(keys, retired...); len(keys) > 0 {
		sections = append(sections, keySection(keys))
	}
	der, err := buildKRL(version, now, sections)
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "build the KRL: %w", err)
	}
	return der, nil
}

// retiredSSHCAs returns the keys of the SSH CAs that were retired. A certificate is
// revoked with the key that signed it.
func (a *Authority) retiredSSHCAs() (keys [][]byte, err error) {
	for _, i := range a.list() {
		if i.cert != nil || i.Retired.IsZero() {
			continue
		}
		pub, err := ssh.NewPublicKey(i.pub)
		if err != nil {
			return nil, postern.Errorf(postern.Internal, "CA %s: %w", i.ID, err)
		}
		keys = append(keys, pub.Marshal())
	}
	return keys, nil
}

func buildKRL(version int64, now time.Time, sections []cryptobyte.BuilderContinuation) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddBytes([]byte(krlMagic))
	b.AddUint32(krlFormat)
	b.AddUint64(uint64(version))
	b.AddUint64(uint64(now.Unix()))
	b.AddUint64(0)                   // flags
	b.AddUint32(0)                   // reserved
	addString(&b, []byte("Postern")) // comment
	for _, section := range sections {
		section(&b)
	}
	return b.Bytes()
}

func addString(b *cryptobyte.Builder, s []byte) {
	b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s) })
}

// certSection revokes serials, ascending, of the CA with that key.
func certSection(caKey []byte, serials []uint64) cryptobyte.BuilderContinuation {
	return func(b *cryptobyte.Builder) {
		b.AddUint8(krlSectionCerts)
		b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) {
			addString(b, caKey)
			b.AddUint32(0) // reserved
			ranges, singles := serialRuns(serials)
			for _, r := range ranges {
				b.AddUint8(krlCertSerialRange)
				b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) {
					b.AddUint64(r[0])
					b.AddUint64(r[1])
				})
			}
			if len(singles) > 0 {
				b.AddUint8(krlCertSerialList)
				b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) {
					for _, n := range singles {
						b.AddUint64(n)
					}
				})
			}
		})
	}
}

// serialRuns splits ascending serials into inclusive ranges and what is left.
func serialRuns(serials []uint64) (ranges [][2]uint64, singles []uint64) {
	for i := 0; i < len(serials); {
		j := i
		for j+1 < len(serials) && serials[j+1] == serials[j]+1 {
			j++
		}
		if j-i+1 >= krlShortestRangeRun {
			ranges = append(ranges, [2]uint64{serials[i], serials[j]})
		} else {
			singles = append(singles, serials[i:j+1]...)
		}
		i = j + 1
	}
	return ranges, singles
}

// keySection revokes keys by the SHA-256 of their wire form. OpenSSH wants the
// hashes in ascending order.
func keySection(keys [][]byte) cryptobyte.BuilderContinuation {
	hashes := make([][]byte, 0, len(keys))
	for _, k := range keys {
		sum := sha256.Sum256(k)
		hashes = append(hashes, sum[:krlFingerprintLength])
	}
	slices.SortFunc(hashes, bytes.Compare)
	return func(b *cryptobyte.Builder) {
		b.AddUint8(krlSectionSHA256)
		b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, h := range hashes {
				addString(b, h)
			}
		})
	}
}
