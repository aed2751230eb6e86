# make up      build, and run: front door, portal and the rest, nothing to configure
# make check   install what the tests need (Debian), then run every test
# The others: package bench soak soak-releases soak-modular fuzz demo-trace generate screenshots lint vuln pam install

GO      ?= go
BIN     := bin/postern
TAGS    ?=
RACE    ?= 1

# What is built does not depend on the directory that it is built in.
export GOFLAGS := $(shell $(GO) env GOFLAGS 2>/dev/null) -trimpath

# Every Debian package that a test needs.
PACKAGES := \
	age apache2 binutils bpftrace bsdutils ca-certificates certbot checkpolicy chromium clang curl dbus debootstrap debuginfod dehydrated \
	e2fsprogs \
	fonts-dejavu-core freeradius freeradius-utils freeradius-yubikey gcc gdb gnutls-bin haproxy iproute2 \
	ldap-utils lego libapache2-mod-authn-yubikey libauth-yubikey-webclient-perl libc6-dev libnss-extrausers libnss3-tools \
	libpam-google-authenticator libpam-oath libpam-yubico libpam0g-dev libsasl2-modules libssl-dev libvirt-clients \
	libvirt-daemon libvirt-daemon-system libvirt-wireshark libykclient-dev libyubikey-dev llvm login make mount \
	nginx oathtool openssh-client openssh-server openssh-sftp-server openssl p11-kit-modules pamtester pgbouncer \
	php-cli php-fpm postgresql procps prometheus pskc-utils pskctool python3-yubiotp qemu-system-x86 rpm rsync rsyslog rsyslog-gnutls \
	samba samba-ad-provision samba-dsdb-modules samba-vfs-modules sasl2-bin \
	semodule-utils slapd softhsm2 sqlite3 strace sudo systemd tshark uacme util-linux valgrind wget xauth yubiserver zstd

# The portal's bundle is made with npm: Debian's, where there is no other.
PACKAGES += $(if $(shell command -v npm),,npm)

# What keeps Debian from starting a service that is being installed.
POLICY_RC := /usr/sbin/policy-rc.d

.PHONY: up build package check test packages compile static generate-check lint portable generate screenshots bench soak soak-releases soak-modular fuzz demo-trace vuln pam install clean

up: build
	$(BIN) run

build:
	$(GO) build -tags '$(TAGS)' -o $(BIN) ./cmd/postern

# pam_postern.so needs a C compiler and libpam's headers.
pam:
	$(MAKE) -C pam

install: build pam
	install -D -m 755 $(BIN) $(DESTDIR)/usr/bin/postern
	install -D -m 644 -t $(DESTDIR)/usr/lib/systemd/system packaging/*.service packaging/*.socket packaging/*.timer
	install -D -m 644 packaging/postern.sysusers $(DESTDIR)/usr/lib/sysusers.d/postern.conf
	install -D -m 644 packaging/postern-agent.sysusers $(DESTDIR)/usr/lib/sysusers.d/postern-agent.conf
	install -D -m 644 packaging/postern.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/postern.conf
	for s in 1 5 7 8; do install -D -m 644 -t $(DESTDIR)/usr/share/man/man$$s man/*.$$s || exit 1; done
	$(MAKE) -C pam install

# The packages .deb and .rpm for amd64 and arm64, into bin/packages: see packaging/build.sh.
package:
	packaging/build.sh

# --- tests ---------------------------------------------------------------

# The linter and what is generated beside the tests: neither keeps two processors busy.
check: packages build compile
	@$(MAKE) --no-print-directory -j 2 test static

# Packages are installed only where one is missing: a second run needs no network.
# No service is started by installing, and none is left running.
packages:
	@if ! command -v dpkg-query >/dev/null; then \
		echo "make check installs packages on Debian only. Install these, then run 'make test':"; \
		echo "$(PACKAGES)"; exit 1; \
	fi; \
	missing=; for p in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "installing:$$missing"; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	policy=$(POLICY_RC); made=; \
	if ! [ -e $$policy ]; then printf '#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null; $$sudo chmod 755 $$policy; made=1; fi; \
	$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; rc=$$?; \
	[ -z "$$made" ] || $$sudo rm -f $$policy; \
	exit $$rc

# Where the race detector does not look: SQLite is C translated to Go, whose memory is
# not Go's, and cryptography computes with numbers of its own. With them the tests took
# twice the time: deriving a key from a passphrase, twelve times.
UNRACED := modernc.org/sqlite/lib modernc.org/libc/... modernc.org/memory crypto/internal/fips140/... \
	golang.org/x/crypto/argon2 golang.org/x/crypto/blake2b golang.org/x/crypto/scrypt
RACED   := $(if $(filter 1,$(RACE)),-race $(foreach p,$(UNRACED),'-gcflags=$p=-race=false -d=checkptr=0'))

# Compiled once, for the tests and for the linter, which reads the types of what is compiled.
compile:
	@$(GO) list -test -export $(RACED) ./... >/dev/null

# How long a process waits when it ends, for a race after everything: a second by default,
# and a story of the command line starts hundreds.
export GORACE := atexit_sleep_ms=10

# The packages that take longest, which begin first. Those that trace wait for each
# other, so they stand between others.
LONG := server cli trace/export ca trace/format sshd trace/stack store trace/capture trace/record

# More packages at a time than there are processors: most tests wait for a peer.
# Nothing is vetted here, which lint does. The command that tests start is built once.
test: build
	POSTERN_CHECK=1 POSTERN_PROGRAM=$(CURDIR)/$(BIN) $(GO) test -p 4 $(RACED) -vet=off -shuffle=on \
		-timeout 20m $(ARGS) $(or $(TESTED),$(LONG:%=./internal/%) ./...)

# What is found without running a test: one after the other.
static: lint
	@$(MAKE) --no-print-directory generate-check

# Its govet is go vet. Collecting garbage would be a third of its work.
lint:
	$(GO) mod tidy -diff
	linter=$$($(GO) tool -n -modfile=tools/go.mod golangci-lint) && \
		GOFLAGS="$(GOFLAGS) $(RACED)" GOGC=300 GOMEMLIMIT=4GiB $$linter run --allow-parallel-runners

# The command for the computers that people log in from. The tests type-check it
# for them, which takes a tenth of the time.
PORTABLE := darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
portable:
	@for p in $(PORTABLE); do echo "$$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -tags noserver,grpcnotrace -ldflags '-s -w' -o bin/$${p%/*}-$${p#*/}/ \
			./cmd/postern || exit 1; done

# What is generated is committed, and current. It is made in a copy: a file is never
# written while it is compiled.
generate-check:
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && git checkout-index -a --prefix="$$copy/" && \
	(cd "$$copy" && $(GO) generate ./...) && git --no-optional-locks --work-tree="$$copy" diff --exit-code --stat

generate:
	$(GO) generate ./...

# The manual's pictures: pages in Chromium, and terminals as the tutorials run.
screenshots:
	POSTERN_CHECK=1 $(GO) test -count=1 -timeout 20m -run 'TestScreenshots|TestTutorials' ./docs -screenshots

# Side by side with peers; each prints a ratio measured in one run. As root, on
# a machine that does nothing else.
bench:
	POSTERN_CHECK=1 $(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./bench/...
	$(GO) run ./bench/front
	$(GO) run ./bench/trace

# A libvirtd of its own with a virtual machine, a client that asks it things, and
# what tracing shows of it.
demo-trace: build
	$(GO) run ./bench/demo -postern $(BIN)

soak: soak-releases
	POSTERN_CHECK=1 POSTERN_SOAK=1 $(GO) test -timeout 4h ./...

# Traces of libvirt as other Debian releases have it, and of modular daemons, which are
# built of Debian's source. Needs the packages' mirror.
RELEASES ?= bullseye trixie sid
soak-releases: soak-modular
	@for r in $(RELEASES); do \
		sh internal/posterntest/release.sh $$r .cache/releases/$$r || exit 1; \
		echo "libvirt of $$r"; \
		POSTERN_CHECK=1 POSTERN_LIBVIRT_ROOT=$$PWD/.cache/releases/$$r $(GO) test -count=1 -p 1 -timeout 30m \
			./internal/trace/capture || exit 1; \
		POSTERN_CHECK=1 POSTERN_LIBVIRT_ROOT=$$PWD/.cache/releases/$$r $(GO) test -count=1 -p 1 -timeout 30m \
			-run '$(RELEASE_TESTS)' ./internal/trace/inflight ./internal/trace/format || exit 1; \
	done

RELEASE_TESTS := TheHang|SlowStorage|Saturated|FullWorkerPool|TestTrace$$$$

MODULAR_PACKAGES := dpkg-dev meson ninja-build xsltproc rpcsvc-proto systemtap-sdt-dev libglib2.0-dev libxml2-dev \
	libxml2-utils libgnutls28-dev libtirpc-dev libsasl2-dev libselinux1-dev libnl-3-dev libnl-route-3-dev libyajl-dev
soak-modular:
	@$(MAKE) --no-print-directory packages PACKAGES='$(MODULAR_PACKAGES)'
	sh internal/posterntest/modular.sh $$(. /etc/os-release; echo $$VERSION_CODENAME) .cache/modular
	POSTERN_CHECK=1 POSTERN_LIBVIRT_MODULAR=$$PWD/.cache/modular $(GO) test -count=1 -p 1 -timeout 30m \
		-run Modular ./internal/trace/format ./internal/agent

# Where a worker gets no processor for ten seconds, Go says that it hung: leave it one.
FUZZTIME ?= 30s
fuzz:
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep ^Fuzz); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

vuln:
	$(GO) run golang.org/x/vuln/cmd/govulncheck@latest ./...

clean:
	rm -rf bin
