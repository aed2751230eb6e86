#!/bin/sh
# Builds testdata/still and records its stacks into testdata/still.json. Needs a C
# compiler, binutils, gdb and xz on x86-64.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cc -O1 -nostdlib -static -no-pie -fno-stack-protector -fcf-protection=none -Wl,--eh-frame-hdr,--build-id,-z,noseparate-code -o "$tmp/still" still.c
env -i OUT="$PWD/still.json" COUNT=20 SPOTS=spot gdb -q -batch -nx -x dump.py --args "$tmp/still" </dev/null >/dev/null
# The names go into a packed table.
objcopy --only-keep-debug "$tmp/still" "$tmp/names"
objcopy --remove-section=.comment --remove-section=.note.gnu.build-id "$tmp/names"
xz --lzma2=preset=6,dict=64KiB --check=crc32 -k "$tmp/names"
strip "$tmp/still"
objcopy --remove-section=.comment --add-section .gnu_debugdata="$tmp/names.xz" "$tmp/still" still
sed -i "s|$tmp|/usr/bin|g" still.json
