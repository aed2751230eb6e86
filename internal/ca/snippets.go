package ca

import (
	"strings"
	"text/template"
)

// snippet parses a text that goes with a layout. missing is printed where the
// key's file is not among the files.
func snippet(name, text string) *template.Template {
	const missing = "{{if not .HasKey}}" +
		"# The private key was made elsewhere: put it at {{.Key}}, readable by its owner alone.\n{{end}}"
	text = strings.Replace(text, "{{missing}}", missing, 1)
	return template.Must(template.New(name).Funcs(template.FuncMap{"join": strings.Join}).Parse(text))
}

var apacheSnippet = snippet("apache", `# Apache 2.4 with mod_ssl, for {{.Name}}. Include this file, or copy from it.
{{missing}}<VirtualHost *:443>
	ServerName {{.Name}}
{{- if .Aliases}}
	ServerAlias {{join .Aliases " "}}
{{- end}}
	SSLEngine on
	SSLCertificateFile {{.Cert}}
	SSLCertificateKeyFile {{.Key}}
	SSLCertificateChainFile {{.Chain}}

	# The CA that certificates of visitors are verified against.
	SSLCACertificateFile {{.Root}}

	# To close a location to all but one person:
	#SSLVerifyClient optional
	#SSLVerifyDepth 2
	#<Location /wp-admin>
	#	Require expr %{SSL_CLIENT_VERIFY} == 'SUCCESS' && %{SSL_CLIENT_S_DN_Email} == 'dan@example.com'
	#</Location>
	# Revoked certificates (renew the file by: postern ca crl --issuer client --out FILE):
	#SSLCARevocationCheck leaf
	#SSLCARevocationFile /etc/ssl/client.crl
</VirtualHost>
`)

var nginxSnippet = snippet("nginx", `# nginx, for {{.Name}}. Include this file inside http { }, or copy from it.
{{missing}}server {
	listen 443 ssl;
	server_name {{.Name}}{{range .Aliases}} {{.}}{{end}};
	ssl_certificate {{.Cert}};
	ssl_certificate_key {{.Key}};

	# The CA that certificates of visitors are verified against.
	#ssl_client_certificate {{.Root}};
	#ssl_verify_client optional;
	#ssl_verify_depth 2;
	# Revocation: postern ca crl --issuer root, and --issuer client, in one file.
	#ssl_crl /etc/ssl/postern-crls.pem;
}
`)

var haproxySnippet = snippet("haproxy",
	`# HAProxy, for {{.Name}}. The certificate's file holds the private key as well.
{{if not .HasKey -}}
# The private key was made elsewhere: append it to {{.Cert}} and make that readable by its owner alone.
{{end}}frontend https
	mode http
	bind :443 ssl crt {{.Cert}}
	# To ask visitors for a certificate without insisting:
	#bind :443 ssl crt {{.Cert}} ca-file {{.Root}} verify optional
	#http-request deny if { path_beg /private } !{ ssl_c_used }
`)

var libvirtServerSnippet = snippet("libvirt-server",
	`# libvirtd or virtproxyd over TLS. Copy the folders CA and libvirt into /etc/pki.
{{missing}}{{if not .IsRSA}}# libvirt, 9.0 for one, refuses a certificate whose key is not RSA: it wants the key
# usage "key encipherment". Make one with: postern ca issue --key-type rsa-3072
{{end}}# {{.Root}} holds the root and the intermediates, because libvirt checks
# a certificate against that file alone. So it accepts every certificate of this
# authority, servers' certificates too: name who may connect, in libvirtd.conf, by
# what virt-pki-query-dn prints for a client's certificate:
#
#   tls_allowed_dn_list = [ "O={{.Org}},CN=dan,*" ]
#
# Clients need {{.Root}} as /etc/pki/CA/cacert.pem, and a client certificate:
#   postern ca issue --client PERSON --layout libvirt
`)

var libvirtClientSnippet = snippet("libvirt-client",
	`# virsh and other clients over TLS. Copy the folders CA and libvirt into /etc/pki; or,
# for one user, cacert.pem, clientcert.pem and clientkey.pem into ~/.pki/libvirt.
{{missing}}{{if not .IsRSA}}# libvirt, 9.0 for one, refuses a certificate whose key is not RSA: it wants the key
# usage "key encipherment". Make one with: postern ca issue --key-type rsa-3072
{{end}}#   virsh -c qemu+tls://HOST/system list
`)

var postgresServerSnippet = snippet("postgresql-server",
	`# PostgreSQL, for {{.Name}}: lines for postgresql.conf. The key must belong to the
# user postgres, or to root and be readable by its group (mode 0640).
{{missing}}ssl = on
ssl_cert_file = '{{.Cert}}'
ssl_key_file = '{{.Key}}'
ssl_ca_file = '{{.Root}}'
# Revocation: postern ca crl --issuer root, and --issuer client, in one file.
#ssl_crl_file = '/etc/ssl/postern-crls.pem'

# In pg_hba.conf, to accept a certificate whose CN is the role's name:
#   hostssl all all all cert
`)

var postgresClientSnippet = snippet("postgresql-client",
	`# psql and other clients of libpq: copy postgresql.crt, postgresql.key and root.crt
# into ~/.postgresql, and connect with
#   psql "host=HOST sslmode=verify-full"
{{missing}}`)
