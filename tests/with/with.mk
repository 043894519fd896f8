# SPDX-License-Identifier: MIT
#
# The programs of src/examples/with, each of which needs another library: here is which one. They are built twice, as a user
# would and under AddressSanitizer, and the tests run both. `make with CC=clang WERROR=-Werror` is what clang says of them.

WITH_curl_multi    := libcurl
WITH_libuv         := libuv
WITH_libevent      := libevent
WITH_glib          := glib-2.0
WITH_sd_event      := libsystemd
WITH_libev         := libev
WITH_libpq         := libpq
WITH_openssl       := libssl libcrypto
WITH_sqlite        := sqlite3
WITH_hiredis       := hiredis
WITH_hiredis_async := hiredis libevent
WITH_c_ares        := libcares
WITH_microhttpd    := libmicrohttpd libpq hiredis

WITH      := $(patsubst src/examples/%.c,%,$(wildcard src/examples/with/*.c))
WITH_SERVERS := postgres redis-server openssl
WITH_TESTS := $(basename $(notdir $(wildcard tests/with/test_*.py)))
WITH_DEPS := $(sort $(foreach w,$(WITH),$(WITH_$(notdir $w))))

# What pkg-config says of program $(1)'s library. (libev has no file there.) Headers of others get no warnings of ours.
with_pc = $(if $(WITH_PC_$(1)),$(shell $(PKG_CONFIG) $(2) $(WITH_PC_$(1))))
$(foreach w,$(WITH),$(eval WITH_PC_$(notdir $w) := $(filter-out libev,$(WITH_$(notdir $w)))))
with_cflags = $(patsubst -I%,-isystem %,$(call with_pc,$(1),--cflags))
with_libs = $(call with_pc,$(1),--libs) $(if $(filter libev,$(WITH_$(1))),-lev)

$(BUILD)/with/%: src/examples/with/%.c $(wildcard src/examples/with/*.h) $(BUILD)/libctxfd.a
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(FLAGS) $(call with_cflags,$*) $(LDFLAGS) -o $@ $< $(BUILD)/libctxfd.a $(call with_libs,$*) $(LDLIBS)

# Makes a call of theirs fail.
$(BUILD)/with/faults.so: tests/faults/example_faults.c
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(CFLAGS) -std=gnu11 -Wall -Wextra -shared -fPIC -pthread -o $@ $< -ldl

with: $(addprefix $(BUILD)/,$(WITH)) ## the programs that use other libraries, into build/with

check-with: ## the programs that use ctxfd with libcurl, libuv, libpq and so on, against real servers: two minutes
	@$(DEPS) cc pkg-config python3 asan $(WITH_DEPS) $(WITH_SERVERS)
	+@$(CHECK) with $(BUILD)/with/faults.so
	+@$(CHECK) BUILD=$(BUILD)/asan VARIANT=asan SAN='$(ASAN)' with
	@BUILD='$(BUILD)' VARIANT=with CC='$(CC)' tests/tools/run $(or $(TESTS),$(WITH_TESTS))

.PHONY: with check-with
