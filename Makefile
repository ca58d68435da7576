# The front door: make image · make run · make test · make check · make bench; make help has the others.
# Everything is built below build/ and tools/target/. V=production picks another variant; HOST_TOOLS=1 uses the QEMU, RAUC
# and mkfs of this host instead of the tools tree. ARCH=arm64 or armv7 builds, boots and tests for those. With
# OS_BOOTLOADER=rpi-tryboot the arm64 image is one for the Raspberry Pi's firmware, for which the chain "tryboot" stands in.

V ?= development
ARCH ?= x86_64
export OS_ARCH := $(ARCH)
BIN = tools/target/debug
CARGO = cargo --quiet
ifdef HOST_TOOLS
export OS_HOST_TOOLS := $(HOST_TOOLS)
endif
export PATH := $(HOME)/.cargo/bin:$(PATH)

help:
	@echo "make image   build the disk image of the lab lane   (V=production for another variant, ARCH=arm64 or armv7)"
	@echo "make run     boot it in QEMU, built as it was the last time; Ctrl-A X leaves   (RUNFLAGS=--fresh: from the image again)"
	@echo "make bundle  make a signed update bundle of it"
	@echo "make test    lints, unit tests, and the end-to-end run in QEMU"
	@echo "make test-long   the end-to-end runs that make test leaves out: more bad releases, kexec, updates by hand"
	@echo "make check   the part of make test that needs no virtual machine"
	@echo "make unit    the unit tests of what runs on devices, under emulation   (ARCH=arm64, ARCH=armv7)"
	@echo "make fuzz    look for input that breaks a parser (takes cargo-fuzz and a nightly Rust)"
	@echo "make campaign N=10   pull the plug of a virtual machine at random moments of an update, write docs/power.md"
	@echo "make size    build the device binary as it ships, and compare its size with its budget"
	@echo "make bench   measure, and write docs/benchmarks.md"
	@echo "make clean   remove everything that was built"

image: programs
	@$(BIN)/lab build --variant $(V) $(if $(CONFIG),--config $(CONFIG))

run: programs
	@$(BIN)/lab run --build --variant $(V) $(RUNFLAGS)

bundle: image
	@$(BIN)/lab bundle --variant $(V)

check: programs
	@ci/check

# The image is built beside the checks: much of either is waiting, for packages or for one long compilation.
test: programs
	@mkdir -p build; $(BIN)/lab build --variant development >build/image.log 2>&1 & image=$$!; \
	ci/check; checked=$$?; wait $$image; built=$$?; cat build/image.log; exit $$((checked | built))
	@cd tools && $(CARGO) build --locked -p e2e
	@$(BIN)/e2e run

test-long: e2e
	@$(BIN)/e2e run --only long

unit: programs
	@$(BIN)/lab unit

# The end-to-end suite, and the image that it boots.
e2e: programs
	@$(MAKE) --no-print-directory image V=development
	@cd tools && $(CARGO) build --locked -p e2e

# TARGET=config, files, boot, channel, slot, gpt or mbr; SECONDS_MAX says how long.
fuzz:
	@cd tools && $(CARGO) fuzz run $(or $(TARGET),config) -- -max_total_time=$(or $(SECONDS_MAX),300) -max_len=4096 -timeout=10

# N power cuts; SEED says at which moments.
campaign: e2e
	@$(BIN)/e2e campaign --cuts $(or $(N),10) --seed $(or $(SEED),$(shell date +%s))

size: programs
	@$(BIN)/lab size

bench: e2e
	@$(BIN)/e2e bench

host-packages:
	@ci/host-packages

# cargo knows best what is out of date; it is asked every time, once for all that runs on the workstation.
programs: host-packages
	@cd tools && $(CARGO) build --locked -p osctl -p lab -p xtask

clean:
	rm -rf build tools/target

.PHONY: help image run bundle check test test-long unit e2e fuzz campaign size bench host-packages programs clean
