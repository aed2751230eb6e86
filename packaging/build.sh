#!/bin/sh
# build.sh [ARCH...]: build the packages for amd64 and arm64, .deb and .rpm, into bin/packages.
# It needs no root, and what it builds depends on nothing but the commit.
#
#   VERSION   of the packages (default: the tag, or the commit's day and number)
#   PROGRAMS  a directory with programs built already, ARCH/postern and ARCH/postern-noserver
set -eu
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC CGO_ENABLED=0 GOOS=linux GOWORK=off GOTOOLCHAIN=local
export GOFLAGS='-trimpath -buildvcs=false'
GO=${GO:-go}

commit=${COMMIT:-$(git rev-parse HEAD)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
if [ -z "${VERSION:-}" ]; then
	VERSION=$(git describe --tags --exact-match 2>/dev/null | sed 's/^v//') ||:
	[ -n "$VERSION" ] || VERSION=0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d.%H%M%S).$(echo "$commit" | cut -c1-8)
fi

out=bin/packages
rm -rf "$out"
mkdir -p "$out"

# What the small command is built without: a server, and pages of gRPC's that nothing serves, whose
# templates would keep the linker from leaving methods out.
small=noserver,grpcnotrace

# program OUT TAGS: compile the command.
program() {
	$GO build -tags "$2" -o "$1" -ldflags "-s -w -X $build.released=$VERSION -X $build.commit=$commit -X $build.date=$date" \
		./cmd/postern
}
build=github.com/postern-project/postern/internal/system
host=$(unset GOARCH; $GO env GOHOSTARCH)

# pages DIR PATTERNS: the manual pages whose names match one of the patterns.
pages() {
	for page in $(cd man && ls $2); do
		mkdir -p "$1/man${page##*.}"
		gzip -9nc "man/$page" >"$1/man${page##*.}/$page.gz"
	done
}
server_pages='postern*'
agent_pages='postern.1 postern-agent*.1 postern-join.1 postern-leave.1 postern-trace*.1 postern-ssh.1 postern-ssh-check.1 postern-ssh-config.1
	postern-ssh-enrol.1 postern-ssh-login.1 postern-ssh-shell.1 postern-log.1 postern-log-verify.1 postern-otp.1
	postern-otp-verify.1 postern-otp-token*.1 postern-version.1 postern-witness*.1 postern-completion*.1 postern-help.1
	postern-environment.7 postern-events.7 postern-exit-codes.7 postern-files.7'

# completions DIR PROGRAM
completions() {
	mkdir -p "$1/bash-completion/completions" "$1/zsh/vendor-completions" "$1/zsh/site-functions" "$1/fish/vendor_completions.d"
	"$2" completion bash >"$1/bash-completion/completions/postern"
	"$2" completion zsh | tee "$1/zsh/site-functions/_postern" >"$1/zsh/vendor-completions/_postern"
	"$2" completion fish >"$1/fish/vendor_completions.d/postern.fish"
}

# papers DIR PROGRAM: licences, and what the program is built of.
papers() {
	mkdir -p "$1"
	GOOS='' GOARCH='' $GO run ./packaging/inventory "$2" "$VERSION" "$date" "$1"
	gzip -9n "$1/LICENSES"
	cp LICENSE "$1/copyright"
	gzip -9nc CHANGELOG.md >"$1/changelog.gz"
}

# pam_module OUT ARCH: compile the PAM module, if there is a compiler for that. Another
# architecture's libpam is not needed: what sshd has loaded already is declared in a
# library of that name.
pam_module() {
	case $2 in
	"$host") pam/build.sh "$1" -ffile-prefix-map="$PWD"=. -g0 -Wl,--build-id=sha1 && return ;;
	arm64) cc=aarch64-linux-gnu-gcc ;;
	amd64) cc=x86_64-linux-gnu-gcc ;;
	esac
	command -v "$cc" >/dev/null || { echo "no $cc: no libpam-postern for $2" >&2; return 1; }
	dir=$(dirname "$1")/libpam
	mkdir -p "$dir/security"
	cp /usr/include/security/*.h "$dir/security"
	grep -oE '\bpam_[a-z_]+\(' pam/pam_postern.c | tr -d '(' | sort -u | grep -vE '^pam_sm_|^pam_postern' |
		sed 's/.*/void &(void); void &(void) {}/' >"$dir/libpam.c"
	"$cc" -shared -fPIC -Wl,-soname,libpam.so.0 -o "$dir/libpam.so" "$dir/libpam.c"
	CC=$cc pam/build.sh "$1" -g0 -I"$dir" -L"$dir" -Wl,--build-id=sha1
}

# packages NAME: both packages of a description.
packages() {
	sed -e "s|\${OUT}|$work|g; s|\${ARCH}|$arch|g; s|\${VERSION}|$VERSION|g; s|\${DATE}|$date|g" \
		-e "s|\${SECURITYDIR}|$security|g; s|\${MAINTAINER}|Postern maintainers <postern@localhost>|g" \
		-e "s|packaging/|$work/packaging/|; s|src: LICENSE|src: $work/doc-server/copyright|" \
		"packaging/$1.nfpm.yaml" >"$work/$1.$2.yaml"
	find "$work" -exec touch -d "@$SOURCE_DATE_EPOCH" {} + # files are packed with their times
	GOOS='' GOARCH='' $GO tool -modfile=tools/go.mod nfpm package -f "$work/$1.$2.yaml" -p "$2" -t "$out/"
}

[ $# -gt 0 ] || set -- amd64 arm64
for arch; do
	export GOARCH="$arch"
	work=$out/work/$arch
	mkdir -p "$work"
	if [ -n "${PROGRAMS:-}" ]; then
		cp "$PROGRAMS/$arch/postern" "$PROGRAMS/$arch/postern-noserver" "$work/"
	else
		program "$work/postern" ''
		program "$work/postern-noserver" "$small"
	fi
	runs=$work/postern-noserver
	if [ "$arch" != "$host" ]; then
		runs=$out/work/$host/postern-noserver
		[ -e "$runs" ] || (GOARCH=$host; program "$runs" "$small")
	fi
	cp -R packaging "$work/packaging"
	completions "$work/completions" "$runs"
	pages "$work/man-server" "$server_pages"
	pages "$work/man-agent" "$agent_pages"
	pages "$work/man-pam" pam_postern.8
	papers "$work/doc-server" "$work/postern"
	papers "$work/doc-agent" "$work/postern-noserver"
	cp "$work/doc-server/sbom.cdx.json" "$out/postern_${VERSION}_$arch.cdx.json"
	cp "$work/doc-agent/sbom.cdx.json" "$out/postern-agent_${VERSION}_$arch.cdx.json"
	for kind in deb rpm; do
		security=
		packages postern $kind
		packages postern-agent $kind
	done
	if pam_module "$work/pam_postern.so" "$arch"; then
		case $arch in amd64) triplet=x86_64-linux-gnu ;; arm64) triplet=aarch64-linux-gnu ;; esac
		security=/usr/lib/$triplet/security
		packages libpam-postern deb
		security=/usr/lib64/security
		packages libpam-postern rpm
	fi
done
rm -rf "$out/work"
cd "$out"
sha256sum -- *.deb *.rpm *.json >SHA256SUMS
ls -l
