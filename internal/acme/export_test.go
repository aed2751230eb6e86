package acme

// ParseForFuzz reads a request as the server does before it knows whose it is.
func ParseForFuzz(body []byte) {
	env, head, err := parseEnvelope(body)
	if err != nil {
		return
	}
	if head.Key != nil && checkKey(head.Key) == nil {
		env.open(head.Key, head.Alg)
	}
	certID(head.KeyID)
}
