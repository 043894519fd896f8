# SPDX-License-Identifier: MIT
#
# Further ways to have the library: one file, a tarball, Debian packages.

# What users do to have it, by the tools that they have. (The variant is that of the scripts that `make check` leaves to this.)
check-package: ## users' programs by CMake, meson and Debian packages, and the ABI; installs these tools
	@$(DEPS) $(DEPS_CHECK) cmake meson ninja debhelper lintian abidiff
	+@$(CHECK) VARIANT=package TESTS='$(or $(TESTS),$(notdir $(basename $(shell grep -l '^\# variants:.* package' tests/package/*.sh))))' \
		libs run-tests

# ---- One file ------------------------------------------------------------------------------------------------------

ONE_DIR    := $(BUILD)/amalgamation
ONE_HEADER := $(filter-out %_uring.h,$(wildcard include/*.h))

amalgamation: $(ONE_DIR)/ctxfd.c $(ONE_DIR)/ctxfd.h ## libctxfd as two files, ctxfd.c and ctxfd.h, in build/amalgamation

$(ONE_DIR)/ctxfd.h: $(ONE_HEADER) src/packaging/amalgamate
	@mkdir -p $(@D)
	@src/packaging/amalgamate h $(VERSION) $(ONE_HEADER) >$@

$(ONE_DIR)/ctxfd.c: $(SRC) $(wildcard src/*/*.h) $(ONE_DIR)/ctxfd.h src/packaging/amalgamate
	@mkdir -p $(@D)
	@src/packaging/amalgamate c $(VERSION) $(SRC) >$@

# The whole suite against the one file: its object takes the place of all others.
check-amalgamation: ## the test programs, against the amalgamation
	@$(DEPS) $(DEPS_CHECK)
	+@$(CHECK) amalgamation
	+@$(CHECK) BUILD=$(BUILD)/one VARIANT=one OBJ=$(BUILD)/one/obj/one.o ONE='$(ONE_DIR)' \
		TESTS='$(or $(TESTS),$(patsubst tests/%,%,$(notdir $(basename $(wildcard tests/*/test_*.c)))))' run-tests

$(BUILD)/obj/one.o: $(ONE)/ctxfd.c $(ONE)/ctxfd.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -Wall -Wextra $(WERROR) $(CFLAGS) -fexceptions -c -o $@ $<

.PHONY: check-package amalgamation check-amalgamation
