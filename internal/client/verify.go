package client

import (
	"context"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

// Verify asks a validation service about a code, over Yubico's protocol 2.0, and
// returns the public ID of the YubiKey that made it. The code is used up. It fails
// with postern.Denied for a code that is not good, and postern.Unavailable where
// the service cannot decide.
func Verify(ctx context.Context, service otp.ClientConfig, typed string) (publicID string, err error) {
	code, ok := otp.ParseCode(typed)
	if !ok {
		return "", postern.Errorf(postern.Denied, "that is not the code of a YubiKey")
	}
	client, err := otp.NewClient(service)
	if err != nil {
		return "", err
	}
	defer client.Close()
	answer, err := client.Verify(ctx, code)
	switch {
	case err != nil:
		return "", err
	case answer.Status == otp.StatusOK:
		return code.PublicID, nil
	case answer.Status == otp.StatusBadOTP, answer.Status == otp.StatusReplayedOTP:
		return "", postern.Errorf(postern.Denied, "%s", answer.Status.Words())
	}
	return "", postern.Errorf(postern.Unavailable, "the validation service answers %s: %s", answer.Status,
		answer.Status.Words())
}
