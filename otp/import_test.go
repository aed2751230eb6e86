package otp

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

const (
	ksmFile = "# ykksm 1\n" +
		"4711,dlcfffckrcde,ca62baca62ba,ecde18dbe76fbd0c33330f1c354871db,be70aeca62ba,2009-01-22 00:25:11,\r\n" +
		"# a comment\n\n" +
		"4713,dlcfffckrcdedlcf,ca62baca62bb,ecde18dbe76fbd0c33330f1c354871dc,be70aeca62ba,2009-01-22T00:25:11," +
		"2009-02-13 00:05:40,0 # progflags\n"
	ykmanLog    = "13337,vvccccccbdef,8792ebfe26cc,ecde18dbe76fbd0c33330f1c354871db,,2026-11-23T21:15:17,\n"
	traditional = "LOGGING START,11/24/26 5:48 AM\n" +
		"Yubico OTP,11/24/26 5:48 " +
		"AM,1,vvccccccbdef,8792ebfe26cc,ecde18dbe76fbd0c33330f1c354871db,,,0,0,0,0,0,0,0,0,0,0\n" +
		"Yubico OTP,24.11.2026, 05:48,1,vv cc cc cc bd eg,87 92 eb fe 26 " +
		"cc,ecde18dbe76fbd0c33330f1c354871db,,,0,0,0,0,0,0,0,0,0,0\n" +
		"OATH-HOTP,11/24/26 5:49 AM,2,,,3132333435363738393031323334353637383930,,,0,0,0,6,0,0,0,0,0,0\n" +
		"Static Password,11/24/26 5:50 AM,2,,,,,,0,0,0,0,0,0,0,0,0,0\n"
	pskcLog = `<?xml version="1.0" encoding="UTF-8"?>
<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc">
<KeyPackage><DeviceInfo><Manufacturer>Yubico</Manufacturer><SerialNo>77</SerialNo></DeviceInfo>` +
		`<CryptoModuleInfo><Id>1</Id></CryptoModuleInfo>` +
		`<Key Id="77:1" Algorithm="http://www.yubico.com/#yubikey-aes">` +
		`<AlgorithmParameters><ResponseFormat Length="44" Encoding="ALPHANUMERIC"/></AlgorithmParameters>` +
		`<Data><Secret><PlainValue>7N4Y2+dvvQwzMw8cNUhx2w==</PlainValue></Secret></Data>` +
		`<UserId>CN=vvccccccbdef, UID=8792ebfe26cc</UserId></Key></KeyPackage>
<KeyPackage><Key Id="77:2" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp">` +
		`<Data><Secret><PlainValue>MTIz</PlainValue></Secret></Data></Key></KeyPackage>
`
	valExport = "1,1359470658,1359470659,cccccccccccb,2,1,32729,4,aoincuhfuahsabcd,\n" +
		"0,1359470658,1359470659,cccccccccccd,32770,9,1,0,aoincuhfuahsabcd,notes\n" +
		"1,1359470658,-1,cccccccccccf,-1,-1,-1,-1,0000000000000000,\n"
	clientsExport = "1,1,1383728711,EHmo8FMxuhumBlTinC4uYL0Mgwg=,,,\n2,0,1383728711,,a@example.com,,cccccccccccb\n"
	sqliteDump    = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE yubikeys (\n" +
		"  active BOOLEAN DEFAULT TRUE,\n  created INT NOT NULL,\n  modified INT NOT NULL,\n" +
		"  yk_publicname VARCHAR(16) UNIQUE NOT NULL,\n  yk_counter INT NOT NULL,\n  yk_use INT NOT NULL,\n" +
		"  yk_low INT NOT NULL,\n  yk_high INT NOT NULL,\n  nonce VARCHAR(40) DEFAULT '',\n" +
		"  notes VARCHAR(100) DEFAULT '',\n  PRIMARY KEY (yk_publicname)\n);\n" +
		"INSERT INTO yubikeys VALUES(1,1359470658,1359470659,'cccccccccccb',2,1,32729,4,'aoincuhfuahsabcd','it''s; " +
		"(a), note');\nCREATE TABLE queue (queued INT, otp VARCHAR(100));\nINSERT INTO queue VALUES(1,'x');\nCOMMIT;\n"
	mysqlDump = "-- MySQL dump\n/*!40101 SET NAMES utf8 */;\nCREATE TABLE `yubikeys` (\n" +
		"  `serialnr` int(11) NOT NULL,\n  `publicname` varchar(16) NOT NULL,\n  `created` varchar(24) NOT NULL,\n" +
		"  `internalname` varchar(12) NOT NULL,\n  `aeskey` varchar(32) NOT NULL,\n" +
		"  `lockcode` varchar(12) NOT NULL,\n  `creator` varchar(8) NOT NULL,\n  `active` tinyint(1) DEFAULT '1',\n" +
		"  `hardware` tinyint(1) DEFAULT '1',\n  PRIMARY KEY (`publicname`)\n) ENGINE=InnoDB;\n" +
		"LOCK TABLES `yubikeys` WRITE;\n" +
		"INSERT INTO `yubikeys` VALUES (1,'vvccccccbdef','2009-01-22 " +
		"00:25:11','8792ebfe26cc','ecde18dbe76fbd0c33330f1c354871db','','',1,1),(2,'vvccccccbdeg','','8792ebfe26cd'," +
		"'ecde18dbe76fbd0c33330f1c354871dc','','\\'',0,1);\nUNLOCK TABLES;\n"
	postgresDump = "CREATE TABLE public.clients (\n    id integer NOT NULL,\n    secret character varying(60)\n" +
		");\nCOPY public.yubikeys (active, created, modified, yk_publicname, yk_counter, yk_use, yk_low, yk_high, " +
		"nonce, notes) FROM stdin;\nt\t1359470658\t1359470659\tcccccccccccb\t2\t1\t32729\t4\taoincuhfuahsabcd\t\\N\n" +
		"\\.\n\nCOPY public.clients (id, active, created, secret, email, notes, otp) FROM stdin;\n" +
		"1\tt\t1383728711\tEHmo8FMxuhumBlTinC4uYL0Mgwg=\t\\N\t\t\n\\.\n"
	yubiserverDump = "CREATE TABLE yubikeys(\n nickname varchar(16) unique not null,\n" +
		" publicname varchar(16) unique not null,\n created varchar(24) not null,\n" +
		" internalname varchar(12) not null,\n aeskey varchar(32) not null,\n active boolean default true,\n" +
		" counter integer not null default 1,\n time integer not null default 1\n);\n" +
		"INSERT INTO yubikeys " +
		"VALUES('u3','idkfefrdhtru','2026-11-24T06:22:05.974Z','609963eae7b5','c68c9df8cbfe7d2f994cb904046c7218',1," +
		"256,1019200);\nCREATE TABLE apikeys(\n nickname varchar(16),\n secret varchar(28),\n" +
		" id integer primary key\n);\nINSERT INTO apikeys VALUES('me','abcdefghijklmnopqrst',1);\n"
)

var importSeeds = []string{
	ksmFile, ykmanLog, traditional, pskcLog, valExport, clientsExport, sqliteDump, mysqlDump,
	postgresDump, yubiserverDump,
}

// yubicoFiles are files with YubiKeys, their counters or API clients, a row of
// docs/import.md each.
var yubicoFiles = []importFile{
	{"yubikey-ksm, key file", ksmFile, "", 2, 0, 0, 0},
	{"`ykman otp`, log", ykmanLog, "", 1, 0, 0, 0},
	{"YubiKey Personalization Tool, traditional log", traditional, "", 2, 0, 0, 2},
	{"YubiKey Personalization Tool, PSKC log", pskcLog, "", 1, 0, 0, 1},
	{"yubikey-val, `ykval-export`", valExport, "", 0, 2, 0, 0},
	{"yubikey-val, `ykval-export-clients`", clientsExport, "", 0, 0, 2, 0},
	{"yubikey-val, SQL dump (SQLite)", sqliteDump, "", 0, 1, 0, 0},
	{"yubikey-ksm, SQL dump (MySQL)", mysqlDump, "", 2, 0, 0, 0},
	{"yubikey-val, SQL dump (PostgreSQL)", postgresDump, "", 0, 1, 1, 0},
	{"yubiserver, SQL dump", yubiserverDump, "", 1, 1, 1, 0},
	{
		"YubiKey Personalization Tool, flexible log",
		"a 5;vvccccccbdef;8792ebfe26cc;ecde18dbe76fbd0c33330f1c354871db;x\na 6;;;;\n",
		"a {serial};{pubIdTxt};{pvtIdTxt};{secretKeyTxt};{hotpDigits}{endl}", 1, 0, 0, 1,
	},
}

type importFile struct {
	row, in, format                string
	keys, counters, clients, skips int
}

func TestImportReadsEveryFormat(t *testing.T) {
	for _, c := range append(slices.Clone(yubicoFiles), []importFile{
		{"PSKC, ended", pskcLog + "</KeyContainer>", "", 1, 0, 0, 1},
		{"no public ID", "4712,,ca62baca62ba,ecde18dbe76fbd0c33330f1c354871db,be70aeca62ba,,\n", "", 0, 0, 0, 1},
		{
			"HOTP in Yubico's format",
			"1,ccccccccbb,0,3132333435363738393031323334353637383930,000000000000,2026-11-23T21:15:17,\n", "", 0, 0,
			0, 1,
		},
	}...) {
		im, err := ReadImport(strings.NewReader(c.in), ImportOptions{Format: c.format})
		if err != nil {
			t.Errorf("%s: %v", c.row, err)
			continue
		}
		if len(im.Keys) != c.keys || len(im.Counters) != c.counters || len(im.Clients) != c.clients ||
			len(im.Skipped) != c.skips {
			t.Errorf("%s: %d keys, %d counters, %d clients, %d skipped", c.row, len(im.Keys), len(im.Counters),
				len(im.Clients), len(im.Skipped))
		}
	}
}

func TestImportReadsEveryField(t *testing.T) {
	read := func(s string) *Import {
		im, err := ReadImport(strings.NewReader(s), ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return im
	}
	k := read(ksmFile).Keys[0]
	if k.PublicID != "dlcfffckrcde" || k.Serial != 4711 ||
		hex.EncodeToString(k.Secret.PrivateID[:]) != "ca62baca62ba" ||
		hex.EncodeToString(k.Secret.Key[:]) != "ecde18dbe76fbd0c33330f1c354871db" ||
		!k.Created.Equal(time.Date(2009, 1, 22, 0, 25, 11, 0, time.UTC)) {
		t.Errorf("the key is %+v", k)
	}
	if ids := read(traditional).Keys[1].PublicID; ids != "vvccccccbdeg" {
		t.Errorf("the blanks in %q", ids)
	}
	im := read(valExport)
	c := im.Counters[0]
	if c.PublicID != "cccccccccccb" || c.Seq != 2<<8|1 || c.Timestamp != 4<<16|32729 ||
		c.Nonce != "aoincuhfuahsabcd" || c.Time.Unix() != 1359470659 {
		t.Errorf("the counter is %+v", c)
	}
	if im.Counters[1].Seq != 2<<8|9 {
		t.Errorf("the caps-lock bit counts: %+v", im.Counters[1])
	}
	if len(im.Disabled) != 1 || im.Disabled[0] != "cccccccccccd" {
		t.Errorf("disabled are %v", im.Disabled)
	}
	if got := read(mysqlDump).Keys[1].Status; got != postern.CredentialDisabled {
		t.Errorf("the inactive key is %s", got)
	}
	clients := read(clientsExport).Clients
	if len(clients[0].Secret) != 20 || clients[0].Disabled || len(clients[1].Secret) != 0 || !clients[1].Disabled {
		t.Errorf("the clients are %+v", clients)
	}
	if ys := read(yubiserverDump); ys.Counters[0].Seq != 256 ||
		string(ys.Clients[0].Secret) != "abcdefghijklmnopqrst" {
		t.Errorf("yubiserver's counter is %+v", ys.Counters[0])
	}
}

func TestImportNamesTheLineAndNotTheSecret(t *testing.T) {
	const secret = "ecde18dbe76fbd0c33330f1c354871db"
	for name, in := range map[string]string{
		"short private ID": "\n\n\n\n1,vvccccccbdef,8792eb," + secret + ",,,x\n",
		"bad public ID":    "# ykksm 1\n\n\n\n1,vvaaaaaaaaaa,8792ebfe26cc," + secret + ",,,\n",
		"long public ID":   "\n\n\n\n1,vvccccccbdefvvccccccbdef,8792ebfe26cc," + secret + ",,,\n",
		"words":            "\n\n\n\nhello " + secret + "\n",
		"counter":          "\n\n\n\n1,1,1,cccccccccccb,99999999,1,1,1,n,\n",
		"client":           "\n\n\n\n1,1,1,!!!!,\n",
	} {
		im, err := ReadImport(strings.NewReader(in), ImportOptions{})
		if err != nil || len(im.Skipped) != 1 {
			t.Errorf("%s: %+v, %v", name, im, err)
			continue
		}
		if s := im.Skipped[0]; s.Place != "line 5" || strings.Contains(s.Why, secret) {
			t.Errorf("%s: %v", name, s)
		}
	}
	if _, err := ReadImport(strings.NewReader("-----BEGIN PGP MESSAGE-----\n"),
		ImportOptions{}); postern.HintOf(err) == "" {
		t.Errorf("an encrypted file: %v", err)
	}
}

func TestExportIsReadAgain(t *testing.T) {
	im, err := ReadImport(strings.NewReader(ksmFile), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	im.Keys[0].Last = Last{
		Seq: 19<<8 | 17, Timestamp: 49712, Nonce: "aoincuhfuahsabcd",
		Time: time.Unix(1359470659, 0).UTC(),
	}
	var ksm, val bytes.Buffer
	if err := WriteKSM(&ksm, im.Keys); err != nil {
		t.Fatal(err)
	}
	if err := WriteVal(&val, im.Keys); err != nil {
		t.Fatal(err)
	}
	keys, err := ReadImport(&ksm, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	counters, err := ReadImport(&val, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys.Keys {
		if want := im.Keys[i]; k.PublicID != want.PublicID || *k.Secret != *want.Secret ||
			!k.Created.Equal(want.Created) {
			t.Errorf("key %d has changed", i)
		}
	}
	if len(counters.Counters) != 1 || counters.Counters[0].Last != im.Keys[0].Last {
		t.Errorf("the counters have changed: %+v", counters.Counters)
	}
}

func FuzzReadImport(f *testing.F) {
	for _, s := range importSeeds {
		f.Add([]byte(s), "")
	}
	f.Add([]byte("a 5;vvccccccbdef;8792ebfe26cc;ecde18dbe76fbd0c33330f1c354871db;x\n"),
		"a {serial};{pubIdTxt};{pvtIdTxt};{secretKeyTxt};{x}")
	f.Fuzz(func(t *testing.T, b []byte, format string) {
		im, err := ReadImport(bytes.NewReader(b), ImportOptions{Format: format})
		if err != nil {
			return
		}
		for _, k := range im.Keys {
			if !ValidPublicID(k.PublicID) || k.Secret == nil || k.Last.Seq != -1 {
				t.Fatalf("imported %+v", k)
			}
		}
		for _, c := range im.Counters {
			if c.Seq < 0 || c.Seq > 1<<23 || c.Timestamp > maxTimestamp {
				t.Fatalf("imported %+v", c)
			}
		}
	})
}

func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{
		"id=1&otp=cccc&nonce=kakakakakakakakaka&h=%2B%2F%3D", "a=1&a=2", "%61=%zz", "&&=&",
		strings.Repeat("a&", 50),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := parseQuery(s)
		if ok && len(p) > maxParams {
			t.Fatal("too many")
		}
		p.signed([]byte("key"))
	})
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{
		"h=x\r\nt=2026-11-23T21:15:17Z0157\r\notp=a\r\nnonce=b\r\nsl=100\r\nstatus=OK\r\n\r\n",
		"status=BAD_OTP", "a\nb", "a=1\na=2",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := parseAnswer(s)
		if ok && len(p) > maxParams {
			t.Fatal("too many")
		}
		if when, err := parseTime(p.lookup("t")); err == nil && string(appendTime(nil, when)) != p.lookup("t") &&
			len(p.lookup("t")) == 25 {
			t.Fatalf("%q is %s", p.lookup("t"), when)
		}
		counted(p)
	})
}

func TestMappingsAreReadAsTheyAreMeant(t *testing.T) {
	m := ParseMappings([]byte("\xef\xbb\xbf# keys\r\n  alice : VVCCCCCCBDEF\t: vvccccccbdeg # two\r\n" +
		"\tbob:vvccccccbdeh\n" +
		"  # carol:vvccccccbdei\n\n#dave:vvccccccbdej\nErin:vvccccccbdek\nj#b:vvccccccbdel\n"))
	want := Mappings{
		"alice": {"vvccccccbdef", "vvccccccbdeg"}, "bob": {"vvccccccbdeh"}, "Erin": {"vvccccccbdek"},
		"j#b": {"vvccccccbdel"},
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("read %v", m)
	}
}

func FuzzParseMappings(f *testing.F) {
	for _, s := range []string{"fred:cccccatsdogs:ccccdogscats\n", "# c\njimbob:vvccccccbdef\nbob:\n", ":::\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for user, ids := range ParseMappings(b) {
			for _, id := range ids {
				if user == "" || !ValidPublicID(id) {
					t.Fatalf("%q: %q", user, id)
				}
			}
		}
	})
}
