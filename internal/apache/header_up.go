package apache

import (
	"slices"
	"strings"
)

// headerUp is a header by which an application gets something of the certificate.
type headerUp struct {
	name, value string
	none        string // what Apache sends without a certificate
}

// tellGuards returns the guards by which the RequestHeader lines of a host are
// carried over that tell the application something of the certificate. They let
// everybody pass.
func (c *converter) tellGuards(s *site) (out []guard) {
	for i := range s.steps {
		st := &s.steps[i]
		if !st.is("RequestHeader") || st.gone || !strings.Contains(st.Raw, "%{SSL_CLIENT_") {
			continue
		}
		h, ok := c.headerUp(st)
		if !ok {
			continue
		}
		st.Directive = st.with([]string{"set", h.name, h.none}) // for who shows none
		g := st.ground()
		same := slices.IndexFunc(out, func(o guard) bool {
			return o.regexp == g.regexp && slices.Equal(o.prefix, g.prefix)
		})
		if same < 0 {
			g.depth, g.ways = s.depth, ways{certify: true, open: []openWay{{rules: []string{"true"}}}}
			out, same = append(out, g), len(out)
		}
		out[same].headers = append(out[same].headers, h)
	}
	return out
}

// headerUp reads a RequestHeader line whose value names variables of the certificate.
func (c *converter) headerUp(st *step) (h headerUp, ok bool) {
	args := st.Args
	if st.when != nil || len(args) < 3 || len(args) > 4 ||
		!slices.Contains([]string{"set", "add", "append"}, strings.ToLower(args[0])) {
		return h, false
	}
	if len(args) == 4 && !strings.EqualFold(args[3], "early") {
		return h, false
	}
	v := c.vocabulary(apExpr)
	var parts []string
	none := ""
	for rest := args[2]; rest != ""; {
		before, after, found := strings.Cut(rest, "%{")
		if before != "" {
			parts = append(parts, quote(before))
			none += before
		}
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}s")
		if !closed || strings.Contains(name, "}") {
			return h, false
		}
		x, err := v.headerVariable(name)
		if err != nil {
			c.notes.add(Lost, st.Directive, "%v", err)
			return h, false
		}
		parts, rest = append(parts, x), tail
		if strings.EqualFold(name, "SSL_CLIENT_VERIFY") {
			none += "NONE"
		} else {
			none += "(null)"
		}
	}
	for _, r := range v.changed {
		c.notes.add(Changed, st.Directive, "%s", r)
	}
	return headerUp{args[1], strings.Join(parts, " + "), none}, true
}

// headerVariable writes a variable as a header has it: of an attribute that
// occurs more than once the first.
func (v *vocabulary) headerVariable(name string) (string, error) {
	switch strings.ToUpper(name) {
	case "SSL_CLIENT_CERT":
		return "cert.pem", nil
	case "SSL_CLIENT_M_SERIAL":
		return `(size(cert.serial) % 2 == 1 ? "0" : "") + cert.serial.upperAscii()`, nil
	case "SSL_CLIENT_M_VERSION":
		return "string(cert.version)", nil
	case "SSL_CLIENT_S_DN", "SSL_CLIENT_I_DN":
		field := map[byte]string{'S': "subject", 'I': "issuer"}[name[len("SSL_CLIENT_")]&^0x20]
		if v.oneline {
			return "cert." + field + ".oneline", nil
		}
		return "cert." + field + ".dn", nil
	}
	x, err := v.variable(name)
	if err != nil {
		return "", err
	}
	return x.cel, nil
}
