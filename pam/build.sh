#!/bin/sh
# build.sh OUT.so [FLAG...]: build pam_postern, hardened; tests add sanitizers.
set -eu
out=$1
shift
exec "${CC:-cc}" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wconversion -Werror \
	-O2 -g -fPIC -shared -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2 \
	-Wl,-z,relro,-z,now,-z,noexecstack,-z,defs "$@" \
	-o "$out" "$(dirname "$0")/pam_postern.c" -lpam
