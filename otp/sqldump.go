package otp

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
)

// sqlStatement finds out that a file is an SQL dump.
var sqlStatement = regexp.MustCompile(`(?im)^\s*(INSERT INTO|CREATE TABLE|COPY)\s`)

// sqlDump reads ImportedTables from a dump: the order of columns from CREATE TABLE, rows
// from INSERT and COPY. It skips the rest.
type sqlDump struct {
	im      *Import
	in      []byte
	at      int
	counted int                 // where line was counted last
	lines   int                 // line ends up to there
	columns map[string][]string // by table
}

// sqlToken is a word, a number, a quoted text without its quotes, or a single
// other character.
type sqlToken struct {
	text   string
	quoted bool
}

// is reports whether the token is that word or character itself.
func (t sqlToken) is(words ...string) bool {
	for _, w := range words {
		if !t.quoted && strings.EqualFold(t.text, w) {
			return true
		}
	}
	return false
}

func (im *Import) readSQL(b []byte) {
	d := &sqlDump{im: im, in: b, columns: map[string][]string{}}
	for t, ok := d.token(); ok; t, ok = d.token() {
		switch {
		case t.is("CREATE"):
			d.create()
		case t.is("INSERT"):
			d.insert()
		case t.is("COPY"):
			d.copy()
		case !t.is(";"):
			d.skipStatement()
		}
	}
}

// line returns the number of the line that has been reached.
func (d *sqlDump) line() int {
	d.lines += bytes.Count(d.in[d.counted:d.at], []byte("\n"))
	d.counted = d.at
	return d.lines + 1
}

// token returns the next token. Comments are stepped over.
func (d *sqlDump) token() (sqlToken, bool) {
	for d.at < len(d.in) {
		rest := d.in[d.at:]
		c := rest[0]
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			d.at++
		case bytes.HasPrefix(rest, []byte("--")) || c == '#':
			d.past("\n")
		case bytes.HasPrefix(rest, []byte("/*")):
			d.past("*/")
		case c == '\'' || c == '"' || c == '`':
			return sqlToken{d.quoted(c), true}, true
		case wordByte(c) || c == '-' || c == '+':
			n := 1
			for n < len(rest) && wordByte(rest[n]) {
				n++
			}
			d.at += n
			return sqlToken{string(rest[:n]), false}, true
		default:
			d.at++
			return sqlToken{string(c), false}, true
		}
	}
	return sqlToken{}, false
}

func wordByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

// past moves behind the next occurrence of what.
func (d *sqlDump) past(what string) {
	i := bytes.Index(d.in[d.at:], []byte(what))
	if i < 0 {
		d.at = len(d.in)
		return
	}
	d.at += i + len(what)
}

// quoted reads text up to the closing quote; a doubled quote or one behind a
// backslash belongs to it.
func (d *sqlDump) quoted(q byte) string {
	var text []byte
	d.at++
	for d.at < len(d.in) {
		c := d.in[d.at]
		d.at++
		switch {
		case c == '\\' && q == '\'' && d.at < len(d.in):
			text = append(text, d.in[d.at])
			d.at++
		case c == q && d.at < len(d.in) && d.in[d.at] == q:
			text = append(text, q)
			d.at++
		case c == q:
			return string(text)
		default:
			text = append(text, c)
		}
	}
	return string(text)
}

// skipStatement moves behind the semicolon that ends the statement.
func (d *sqlDump) skipStatement() {
	for t, ok := d.token(); ok && !t.is(";"); t, ok = d.token() {
	}
}

// table reads a table's name that begins with t, and drops a schema before it.
func (d *sqlDump) table(t sqlToken) string {
	for {
		at := d.at
		if dot, ok := d.token(); !ok || !dot.is(".") {
			d.at = at
			return strings.ToLower(t.text)
		}
		t, _ = d.token()
	}
}

// create notes the columns of CREATE TABLE name (column type …, …).
func (d *sqlDump) create() {
	if t, _ := d.token(); !t.is("TABLE") {
		if !t.is(";") {
			d.skipStatement()
		}
		return
	}
	t, _ := d.token()
	for t.is("IF", "NOT", "EXISTS") {
		t, _ = d.token()
	}
	table := d.table(t)
	if t, _ = d.token(); !t.is("(") {
		d.skipStatement()
		return
	}
	// Constraints pass for columns; they come last, where no value is.
	var columns []string
	first := true
	for depth := 1; depth > 0; {
		t, ok := d.token()
		if !ok {
			return
		}
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case t.is(",") && depth == 1:
			first = true
			continue
		case first && depth == 1:
			columns = append(columns, strings.ToLower(t.text))
		}
		first = false
	}
	d.columns[table] = columns
	d.skipStatement()
}

// list reads a, b, …) behind an opening bracket.
func (d *sqlDump) list() (values []string, ok bool) {
	for {
		t, ok := d.token()
		switch {
		case !ok:
			return nil, false
		case t.is(")"):
			return values, true
		case t.is("NULL"):
			values = append(values, "")
		case !t.is(","):
			values = append(values, t.text)
		}
	}
}

// insert reads INSERT INTO name [(columns)] VALUES (…), (…);
func (d *sqlDump) insert() {
	t, _ := d.token()
	for t.is("INTO", "OR", "REPLACE", "IGNORE") {
		t, _ = d.token()
	}
	table := d.table(t)
	columns := d.columns[table]
	t, _ = d.token()
	if t.is("(") {
		var ok bool
		if columns, ok = d.list(); !ok {
			d.im.skip(d.line(), "an INSERT that does not end")
			return
		}
		t, _ = d.token()
	}
	if !t.is("VALUES") {
		d.skipStatement()
		return
	}
	for {
		t, ok := d.token()
		if !ok || t.is(";") {
			return
		}
		if !t.is("(") {
			continue
		}
		values, ok := d.list()
		if !ok {
			d.im.skip(d.line(), "an INSERT that does not end")
			return
		}
		d.row(table, columns, values)
	}
}

// copy reads COPY name (columns) FROM stdin; and the lines behind it.
func (d *sqlDump) copy() {
	t, _ := d.token()
	table := d.table(t)
	columns := d.columns[table]
	if t, _ = d.token(); t.is("(") {
		columns, _ = d.list()
	}
	d.skipStatement()
	d.past("\n")
	for d.at < len(d.in) {
		row, _, _ := bytes.Cut(d.in[d.at:], []byte("\n"))
		d.at = min(d.at+len(row)+1, len(d.in))
		text := strings.TrimSuffix(string(row), "\r")
		if text == `\.` {
			return
		}
		values := strings.Split(text, "\t")
		for i := range values {
			if values[i] == `\N` {
				values[i] = ""
			}
		}
		d.row(table, columns, values)
	}
}

// ImportedTables are the tables of other servers' databases that are imported.
var ImportedTables = []string{"yubikeys", "clients", "apikeys", "oathtokens"}

// row imports one row of a table that matters.
func (d *sqlDump) row(table string, columns, values []string) {
	if !slices.Contains(ImportedTables, table) {
		return
	}
	line := d.line()
	if len(values) > len(columns) || !d.im.addRow(line, table, rowOf(columns, values)) {
		d.im.skip(line, "a row of table %s whose columns are not known", table)
	}
}

// rowOf returns the values by the names of their columns.
func rowOf(columns, values []string) map[string]string {
	v := map[string]string{}
	for i, value := range values[:min(len(values), len(columns))] {
		v[strings.ToLower(columns[i])] = strings.TrimSpace(value)
	}
	return v
}

// addRow imports a row whose columns have names, of a table or a CSV file. It
// reports whether it knows them.
func (im *Import) addRow(line int, table string, v map[string]string) bool {
	has := func(name string) bool { _, ok := v[name]; return ok }
	switch {
	case has("yk_counter"):
		im.addCounter(line, counterFields{
			active: v["active"], modified: v["modified"], publicID: v["yk_publicname"],
			counter: v["yk_counter"], use: v["yk_use"], low: v["yk_low"], high: v["yk_high"], nonce: v["nonce"],
		})
	case has("aeskey"):
		if has("time") {
			c, ok := yubiserverCounter(v["publicname"], v["counter"], v["time"])
			if !ok {
				im.skip(line, "a counter is out of range")
				return true
			}
			im.Counters = append(im.Counters, c)
		}
		im.addKey(line, keyFields{
			serial: v["serialnr"], publicID: v["publicname"], privateID: v["internalname"],
			key: v["aeskey"], created: v["created"], active: v["active"],
		})
	case table == "oathtokens":
		im.addOATH(line, oathFields{
			kind: "hotp", secret: DecodeSecret(v["secret"]), counter: v["counter"], used: true,
			account: v["nickname"], serial: v["publicname"], disabled: v["active"] == "0",
		})
	case has("secret") && table != "":
		if table == "apikeys" { // yubiserver keeps it as it is
			v["secret"] = base64.StdEncoding.EncodeToString([]byte(v["secret"]))
		}
		im.addClient(line, clientFields{
			id: v["id"], active: v["active"], created: v["created"], secret: v["secret"], label: v["nickname"],
		})
	default:
		return false
	}
	return true
}
