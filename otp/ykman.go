package otp

import (
	"encoding/hex"
	"fmt"

	"github.com/postern-project/postern"
)

// NewKey returns a YubiKey with a fresh secret, and a random public ID unless one
// is given. Invalid if that is not an even number of up to 16 letters of modhex,
// which is what ykman takes.
func NewKey(publicID string) (*Key, error) {
	if publicID == "" {
		publicID = NewPublicID()
	}
	if !ValidPublicID(publicID) || len(publicID)%2 != 0 {
		return nil, postern.Errorf(postern.Invalid, "%q is not a public ID", publicID).
			WithHint("an even number of up to 16 letters of cbdefghijklnrtuv")
	}
	secret := NewSecret()
	return &Key{PublicID: publicID, Secret: &secret, Last: Never}, nil
}

// YkmanCommand returns the command that writes the key's secret into a slot, 1 or 2,
// of the YubiKey that is plugged in. It asks for what YkmanAnswers returns, which
// so stands in no list of processes.
func (k *Key) YkmanCommand(slot int) string {
	return fmt.Sprintf("ykman otp yubiotp %d --public-id %s", slot, k.PublicID)
}

// YkmanAnswers returns the private ID and the AES key, in hexadecimal.
func (k *Key) YkmanAnswers() (privateID, key string) {
	return hex.EncodeToString(k.Secret.PrivateID[:]), hex.EncodeToString(k.Secret.Key[:])
}

// YkmanWords says in words for a person how to run the command, and what to answer. It holds
// the secret.
func (k *Key) YkmanWords(slot int) string {
	privateID, key := k.YkmanAnswers()
	return fmt.Sprintf("Where the key is plugged in, run\n\n    %s\n\nand answer\n\n    private ID: %s\n"+
		"    secret key: %s\n\nThis is shown once.\n",
		k.YkmanCommand(slot), privateID, key)
}

// YkmanScript returns a shell script that runs the command and answers it.
func (k *Key) YkmanScript(slot int) string {
	privateID, key := k.YkmanAnswers()
	return fmt.Sprintf(`#!/bin/sh
# Writes a secret into slot %d of the YubiKey that is plugged in.
exec %s <<'END'
%s
%s
y
END
`, slot, k.YkmanCommand(slot), privateID, key)
}
