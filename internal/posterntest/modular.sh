#!/bin/sh
# Builds libvirt's modular daemons for tests, of which Debian has the source only:
# modular.sh RELEASE DIRECTORY. They load the libvirt that the release has packages of.
# Needs the packages in MODULAR_PACKAGES of the Makefile. Nothing is installed.
set -eu
name=$1 out=$2
[ ! -e "$out/complete" ] || exit 0
mkdir -p "$out/apt/lists/partial"
out=$(cd "$out" && pwd)
mirror=$(apt-cache policy | sed -n 's/.*\(https\?:[^ ]*debian\) [a-z-]*\/main .*/\1/p' | head -n 1)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg check-valid-until=no] $mirror $name main" \
	>"$out/apt/sources.list"
cat >"$out/apt/conf" <<END
Dir::Etc::SourceList "$out/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$out/apt/lists";
APT::Sandbox::User "root";
END
export APT_CONFIG="$out/apt/conf"
apt-get -qq update
cd "$out/apt"
apt-get -qq source --download-only libvirt
dpkg-source --no-check --extract libvirt_*.dsc libvirt >/dev/null
cd libvirt
CFLAGS=-O2 meson setup build --prefix=/usr --libdir="lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)" \
	--libexecdir=/usr/lib/libvirt --sysconfdir=/etc --localstatedir=/var -Drunstatedir=/run \
	--buildtype=plain --auto-features=disabled -Dsystem=false -Dgit_werror=disabled \
	-Ddriver_remote=enabled -Ddriver_libvirtd=enabled -Ddriver_qemu=enabled -Dremote_default_mode=legacy \
	-Dsasl=enabled -Dselinux=enabled -Ddtrace=enabled "-D$(sed -n "s/^option('\(yajl\|json_c\)'.*/\1/p" \
	meson_options.txt | head -n 1)=enabled" >"$out/build.log"
ninja -C build src/virtqemud src/virtproxyd >>"$out/build.log"
mv build/src/virtqemud build/src/virtproxyd "$out"
rm -rf "$out/apt"
: >"$out/complete"
