package tracetest

// SetIdentity returns the arguments of connect_set_identity for a client, its process
// and when that was started, and SASL name.
func SetIdentity(pid, start, uid uint64, account, sasl string) []byte {
	const ullong, llong, text = 4, 3, 7 // VIR_TYPED_PARAM_*
	number := func(name string, kind uint32, n uint64) []byte {
		return append(String(name), Word(kind, uint32(n>>32), uint32(n))...)
	}
	b := Word(5)
	b = append(b, number("process-id", llong, pid)...)
	b = append(b, number("process-time", ullong, start)...)
	b = append(b, number("unix-user-id", ullong, uid)...)
	b = append(append(append(b, String("user-name")...), Word(text)...), String(account)...)
	b = append(append(append(b, String("sasl-user-name")...), Word(text)...), String(sasl)...)
	return append(b, Word(0)...)
}
