#!/bin/sh
# Unpacks libvirt and QEMU of another Debian release for tests: release.sh NAME DIRECTORY.
# POSTERN_LIBVIRT_ROOT=DIRECTORY then has tests run that release's daemon. Nothing is
# installed, and no script of a package runs.
set -eu
name=$1 root=$2
[ ! -e "$root/complete" ] || exit 0
mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial" "$root/apt/etc/apt.conf.d" \
	"$root/apt/etc/preferences.d" "$root/usr"
root=$(cd "$root" && pwd)
: >"$root/apt/status"
mirror=$(apt-cache policy | sed -n 's/.*\(https\?:[^ ]*debian\) [a-z-]*\/main .*/\1/p' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg check-valid-until=no] $mirror $name main" \
	>"$root/apt/etc/sources.list"
cat >"$root/apt/conf" <<END
Dir::Etc "$root/apt/etc";
Dir::State::Lists "$root/apt/lists";
Dir::State::status "$root/apt/status";
Dir::Cache "$root/apt/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
END
export APT_CONFIG="$root/apt/conf"
apt-get -qq update
drivers=$(apt-cache pkgnames libvirt-daemon-driver- | # packages of their own since trixie
	grep -E -- '-(network|secret|storage|nodedev|nwfilter|interface)$' || true)
# shellcheck disable=SC2086 # they are words
apt-get -qq install -y --download-only --no-install-recommends libvirt-daemon libvirt-daemon-driver-qemu \
	$drivers qemu-system-x86 iptables nftables libsasl2-modules dmidecode libc-bin coreutils bash
for dir in bin sbin lib lib64; do # as in releases with a merged /usr
	mkdir -p "$root/usr/$dir"
	ln -sfn "usr/$dir" "$root/$dir"
done
for deb in "$root"/apt/cache/archives/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink --exclude='./dev/*'
done
rm -rf "$root/apt/cache" "$root/apt/lists"
: >"$root/complete"
